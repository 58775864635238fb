"""The run directory: one folder holds everything a person or a script wants of a run later.

run.yaml        every setting, resolved        metrics.jsonl   one line per step and evaluation
lineage.json    hashes of what went in         losses.jsonl    loss of every example, step by step
checkpoints/    to go on from                  samples.jsonl   answers generated during training
adapter/ or model/   the result                evals/          held-out rows before and after
data.json       what the rows are              errors/          what is wrong with answers
result.json     the figures `--json` prints    report.html, loss.svg, table.svg   to look at
sums            sha256 of what is read again, checked whenever it is
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from luthier.config.resolve import read_yaml, resolve
from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.foreign.forms import read_line
from luthier.core.journal import Journal, Mark
from luthier.core.storage.files import sha256, write_folder, writing
from luthier.core.storage.leftovers import clear
from luthier.core.storage.opening import holding, refuse_special, regular
from luthier.core.storage.sums import FILE as SUMS
from luthier.core.storage.sums import Sums, digest_of
from luthier.core.types.run_result import RunResult
from luthier.runs import lineage as made_of
from luthier.runs.lineage import LINEAGE
from luthier.runs.records import MEND, hold

SETTINGS, RESULT = "run.yaml", "result.json"
JOURNALS = ("metrics.jsonl", "losses.jsonl", "samples.jsonl")
LOCK = ".lock"
INSIDE = ("checkpoints", "evals", "errors")  # folders that are written into, file by file
FOLDERS = frozenset((*INSIDE, "adapter", "model", "merged"))
FILES = frozenset(
    (*JOURNALS, LOCK, SETTINGS, LINEAGE, RESULT, SUMS, "data.json", "tracking.json")
    + ("report.html", "loss.svg", "table.svg", "reward.svg")
)
BEGUN = ("checkpoints/*", "evals/*", "errors/*", *JOURNALS, RESULT)  # what a run makes


class RunFolder:
    """One run's folder. What is written whole is noted in its `sums`, and checked when it is read. Journals are appended to,
    and cut back to a checkpoint when the run goes on from it."""

    def __init__(self, path: Path) -> None:
        self.path, self.sums = path, Sums(path)
        again = f"put it back from a copy, or remove {self.checkpoints} to train from the first step"
        self.journals = {name: Journal(path / name, again, sums=False) for name in JOURNALS}

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def begun(self) -> bool:
        """Whether the run has made anything yet."""
        return any(next(self.path.glob(name), None) for name in BEGUN)

    @property
    def result(self) -> RunResult | None:
        """What the finished run printed, or None while it is not finished."""
        found: RunResult | None = self.read_json(RESULT)
        return found

    @property
    def lineage(self) -> dict[str, Any]:
        """What the run is made of; nothing where that is not noted."""
        content = self.read(LINEAGE)
        return {} if content is None else made_of.read(content, self.path / LINEAGE)

    def check(self) -> None:
        """Raise InputError when something inside is not what a run puts there: a link, which leads elsewhere, a file where
        a folder belongs, or a folder, a pipe or a device where a file does. The folder itself may be a link."""
        for place in (self.path, *(self.path / name for name in INSIDE)):
            for entry in sorted(os.scandir(place), key=lambda entry: entry.name) if place.is_dir() else ():
                if entry.is_symlink():
                    raise InputError(
                        "a link inside a run's folder; links are not followed there", where=entry.path,
                        fix="replace it with what it points to; the run's folder itself may be a link",
                    )  # fmt: skip
                if place == self.path and entry.name in FOLDERS | FILES:
                    refuse_special(Path(entry.path), folder=entry.name in FOLDERS)

    def append(self, journal: str, record: Mapping[str, Any]) -> None:
        """Add one line to a journal."""
        self.journals[journal].add(record)

    def remove_if_unused(self) -> None:
        """Remove the folder where nothing but its settings is in it: a run that was refused leaves nothing behind."""
        files = {path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if not path.is_dir()}
        if files <= {SETTINGS, LINEAGE, SUMS, LOCK}:
            shutil.rmtree(self.path)

    def marks(self) -> dict[str, Mark]:
        """What is in each journal now, flushed to disk: a checkpoint keeps this."""
        found = {name: journal.mark() for name, journal in self.journals.items()}
        return {name: mark for name, mark in found.items() if mark is not None}

    def require_journals(self, marks: Mapping[str, Mark | int]) -> None:
        """Raise InputError unless every journal begins as it was when these marks were made."""
        for name, mark in marks.items():
            self.journals[name].require(mark)

    def cut(self, marks: Mapping[str, Mark | int]) -> None:
        """Cut every journal back to its mark; those without one are emptied."""
        self.sums.forget(JOURNALS)
        for name, journal in self.journals.items():
            if journal.path.is_file():
                journal.cut(marks.get(name, 0))

    def close_journals(self) -> None:
        """Note the journals among the sums: training is over, and nothing more is added to them."""
        there = [name for name in JOURNALS if (self.path / name).is_file()]
        with self.sums.replacing({name: sha256(self.path / name) for name in there}):
            pass

    def write(self, name: str, text: str) -> None:
        """Write a file, whole or not at all."""
        content = text.encode(errors="backslashreplace")  # half a character, in JSON
        with self.sums.replacing({name: digest_of(content)}), writing(self.path / name, "wb") as handle:
            handle.write(content)

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file, indented, whole or not at all."""
        self.write(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write_records(self, name: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Write a whole JSONL file at once: it is there complete, or not at all."""
        self.write(name, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))

    def write_folder(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Let `fill` write a folder, whole or not at all."""
        with ExitStack() as noting:

            def noted(out: Path) -> None:
                fill(out)
                files = [file for file in sorted(out.rglob("*")) if file.is_file()]
                digests = {f"{name}/{file.relative_to(out).as_posix()}": sha256(file) for file in files}
                noting.enter_context(self.sums.replacing(digests, name))

            return write_folder(self.path / name, noted)

    def read(self, name: str) -> bytes | None:
        """A file as it was written, or None when it is not there. Raises InputError when it was changed or removed since."""
        self.sums.check(name)
        path = self.path / name
        if not path.is_file():
            return None
        with open(path, "rb", opener=regular) as handle:
            return handle.read()

    def read_json(self, name: str) -> Any:
        """What a JSON file holds, of the form that it must have (see `records`), or None when it is not there."""
        path, content = self.path / name, self.read(name)
        return None if content is None else hold(name, read_line(content, where=path, fix=MEND), path)

    def records(self, name: str) -> list[dict[str, Any]] | None:
        """The lines of a JSONL file, or None when it is not there."""
        if (content := self.read(name)) is None:
            return None
        lines = content.split(b"\n")  # not splitlines(): text may hold other line ends
        places = ((f"{self.path / name}:{number}", line) for number, line in enumerate(lines, 1) if line)
        return [hold(name, read_line(line, where=at, fix=MEND), at) for at, line in places]


def place(config: RunConfig, data_name: str) -> Path:
    """Where the run of these settings is, or will be."""
    return Path(config.out or f"runs/{config.method.rpartition(':')[2]}-{data_name}-{config.fingerprint()}")


def check_entry(folder: RunFolder) -> None:
    """Raise InputError unless settings, lineage and sums of a run are there as they were written; of a run of an older
    version, which noted no sums, as far as can be told."""
    folder.sums.check(SETTINGS)
    if folder.lineage.get("sums") and LINEAGE not in folder.sums.noted():
        raise InputError(
            "the sums of this run's files are gone", where=folder.path / SUMS,
            fix="put the file back from a copy, or train again with another --out",
        )  # fmt: skip


def read_run(path: Path) -> tuple[RunFolder, RunConfig]:
    """An existing run and its settings. Raises InputError when `path` is not a run directory, and for one that was damaged."""
    folder = RunFolder(path)
    if os.path.lexists(path / SETTINGS):
        folder.check()
    elif SETTINGS not in folder.sums.noted():
        raise InputError("not a run directory: no run.yaml in it", where=path, fix="give a folder under runs/")
    check_entry(folder)
    if not (path / LINEAGE).is_file():
        log.warn_once(f"{path}: {LINEAGE} is gone; what this run was made of is not known")
    return folder, resolve(read_yaml(path / SETTINGS), where=path / SETTINGS)


@contextmanager
def understood(folder: RunFolder) -> Iterator[None]:
    """Make an error for users of what a file does not have that the block looks for, in a run of an older version: its files
    have no sums by which damage is seen."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
        if folder.lineage.get("sums"):
            raise
        raise InputError(
            f"a file of this run has changed since it was written: {type(error).__name__}: {error}", where=folder.path,
            fix="put it back from a copy, or train again",
        ) from error  # fmt: skip


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the run for this process, and clear what killed starts left. Raises InputError when another process works on
    it, and as `RunFolder.check`."""
    busy = InputError("another process works on this run", where=folder.path, fix="wait for it, or give another --out")
    with holding(folder.path / LOCK, busy):
        if (folder.path / SETTINGS).is_file():  # else `luthier eval` keeps its records in a folder of the user's
            folder.check()
            for place in (folder.path, *(folder.path / name for name in INSIDE)):
                clear(place, alone=True)
        yield
