"""The run directory: one folder holds everything a person or a script wants of a run later.

run.yaml        every setting, resolved        metrics.jsonl   one line per step and evaluation
lineage.json    hashes of what went in         losses.jsonl    loss of every example, step by step
checkpoints/    to go on from                  samples.jsonl   answers generated during training
adapter/ or model/   the result                evals/          held-out rows before and after
data.json       what the rows are              errors/          what is wrong with answers
result.json     the figures `--json` prints    report.html, loss.svg, table.svg   to look at
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256 as hasher
from importlib.metadata import version
from pathlib import Path
from typing import Any

from luthier import __version__
from luthier.core import log
from luthier.core.config import BESIDE, RunConfig, fields, read_yaml, resolve, write_yaml
from luthier.core.errors import InputError
from luthier.core.files import read_json, write_json, writing
from luthier.core.leftovers import clear
from luthier.core.opening import append_line, appending, cut, holding, refuse_special, regular

GROWS = "read as a stream"  # in lineage.json, in place of the hash of a file that may grow
REWARDS = "rewards"  # in lineage.json: files that may be mended while a run is under way
JOURNALS = ("metrics.jsonl", "losses.jsonl", "samples.jsonl")
LOCK = ".lock"
INSIDE = ("checkpoints", "evals", "errors")  # folders that are written into, file by file
FOLDERS = frozenset((*INSIDE, "adapter", "model", "merged"))
FILES = frozenset(
    (*JOURNALS, LOCK, "run.yaml", "lineage.json", "data.json", "result.json", "tracking.json")
    + ("report.html", "loss.svg", "table.svg", "reward.svg")
)


class RunFolder:
    """One run's folder. Journals are appended to, and cut back to a checkpoint when the run goes on from it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def result(self) -> dict[str, Any] | None:
        """What the finished run printed, or None while it is not finished."""
        path = self.path / "result.json"
        return read_json(path) if path.is_file() else None

    def check(self) -> None:
        """Raise InputError when something inside is not what a run puts there: a link, which leads elsewhere, a file where
        a folder belongs, or a folder, a pipe or a device where a file does. The folder itself may be a link."""
        for place in (self.path, *(self.path / name for name in INSIDE)):
            for entry in sorted(os.scandir(place), key=lambda entry: entry.name) if place.is_dir() else ():
                if entry.is_symlink():
                    raise InputError(
                        "a link inside a run's folder, where none is followed", where=entry.path,
                        mend="put what it leads to in its place; the run's folder itself may be a link",
                    )  # fmt: skip
                if place == self.path and entry.name in FOLDERS | FILES:
                    refuse_special(Path(entry.path), folder=entry.name in FOLDERS)

    def append(self, journal: str, record: Mapping[str, Any]) -> None:
        """Add one line to a journal."""
        append_line(self.path / journal, json.dumps(record, ensure_ascii=False))

    def remove_if_unused(self) -> None:
        """Remove the folder where nothing but its settings is in it: a run that was refused leaves nothing behind."""
        files = {path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if not path.is_dir()}
        if files <= {"run.yaml", "lineage.json", LOCK}:
            shutil.rmtree(self.path)

    def marks(self) -> dict[str, int]:
        """How long each journal is now, in bytes, flushed to disk: a checkpoint keeps this."""
        out = {}
        for name in JOURNALS:
            path = self.path / name
            if path.is_file():
                with appending(path) as handle:
                    os.fsync(handle.fileno())
                    out[name] = handle.seek(0, os.SEEK_END)
        return out

    def cut(self, marks: Mapping[str, int]) -> None:
        """Cut every journal back to its mark; those without one are emptied."""
        for name in JOURNALS:
            if (self.path / name).is_file():
                cut(self.path / name, marks.get(name, 0))

    def write_records(self, name: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Write a whole JSONL file at once: it is there complete, or not at all."""
        with writing(self.path / name) as handle:
            for record in records:
                handle.write(json.dumps(record, ensure_ascii=False) + "\n")

    def records(self, name: str) -> list[dict[str, Any]] | None:
        """The lines of a JSONL file, or None when it is not there."""
        path = self.path / name
        if not path.is_file():
            return None
        with open(path, encoding="utf-8", opener=regular) as lines:  # not splitlines(): text may hold other line ends
            return [json.loads(line) for line in lines]


def place(config: RunConfig, data_name: str) -> Path:
    """Where the run of these settings is, or will be."""
    return Path(config.out or f"runs/{config.method}-{data_name}-{config.fingerprint()}")


def open_run(config: RunConfig, data_name: str, lineage: Mapping[str, Any]) -> RunFolder:
    """The folder of this run, made when it is not there yet.

    Raises InputError when the folder holds another run (naming a setting that differs), when what went
    into the run has changed since it began, or when it holds something that is no run.
    """
    path = place(config, data_name)
    if os.path.lexists(path / "run.yaml"):
        RunFolder(path).check()
        _same_settings(path, config)
        if (path / "lineage.json").is_file():
            _same_inputs(path, lineage)
            _same_rewards(path, lineage)
    elif path.is_dir() and any(
        path.glob("[!.]*")
    ):  # hidden files: of a start that was killed before run.yaml was whole
        raise InputError("the folder holds something that is not a run", where=path, mend="give another --out")
    elif path.exists() and not path.is_dir():
        raise InputError("this is a file, not a folder", where=path, mend="give another --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the run directory: {error.strerror}", where=path, mend="give another --out"
        ) from None
    if (path / "result.json").is_file():
        return RunFolder(path)  # finished: nothing more goes into it
    with writing(path / "run.yaml") as handle:
        handle.write(write_yaml(config))
    (path / "evals").mkdir(exist_ok=True)
    _keep_lineage(path / "lineage.json", lineage)
    return RunFolder(path)


def differences(lineage: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What besides the inputs is not as it was: 'code', or libraries, Python, the platform, the threads by name."""
    before, after = lineage["environment"], now["environment"]
    return ["code"] * (lineage["code"] != now["code"]) + [name for name in after if before.get(name) != after[name]]


def _keep_lineage(path: Path, now: Mapping[str, Any]) -> None:
    """Write the lineage of a new run; to that of an older start, add this one when it is made of other things."""
    if not path.is_file():
        write_json(path, now)
        return
    first = read_json(path)
    starts = [first, *first.get("later_starts", ())]
    if changed := differences(starts[-1], now):
        before, after = (start["environment"]["threads"] for start in (starts[-1], now))
        told = [f"threads ({before}, now {after})" if name == "threads" else name for name in changed]
        log.warn(
            f"{', '.join(told)} changed since this run began: its last bits may differ from an uninterrupted run's"
        )
        later = {name: now[name] for name in ("luthier", "code", "environment")}
        write_json(path, first | {"later_starts": [*starts[1:], later]})


def read_run(path: Path) -> tuple[RunFolder, RunConfig]:
    """An existing run and its settings. Raises InputError when `path` is not a run directory."""
    if os.path.lexists(path / "run.yaml"):
        RunFolder(path).check()
    else:
        raise InputError("not a run directory: no run.yaml in it", where=path, mend="give a folder under runs/")
    return RunFolder(path), resolve(read_yaml(path / "run.yaml"), where=path / "run.yaml")


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the run for this process, and clear what killed starts left. Raises InputError when another process works on
    it, and as `RunFolder.check`."""
    busy = InputError("another process works on this run", where=folder.path, mend="wait for it, or give another --out")
    with holding(folder.path / LOCK, busy):
        if (folder.path / "run.yaml").is_file():  # else `luthier eval` keeps its records in a folder of the user's
            folder.check()
            for place in (folder.path, *(folder.path / name for name in INSIDE)):
                clear(place, alone=True)
        yield


def lineage(config: RunConfig, **inputs: Any) -> dict[str, Any]:
    """What this run is made of: `inputs` (hashes of data, weights, template), code, settings and environment."""
    import torch  # here: who reads a run needs none of it

    package = Path(__file__).parent.parent
    code = hasher()
    for file in sorted(package.rglob("*.py")):
        code.update(file.read_bytes())
    return {
        "inputs": inputs,
        "seed": config.seed,
        "luthier": __version__,
        "code": code.hexdigest()[:16],
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
        },
    }


def _same_settings(path: Path, config: RunConfig) -> None:
    old = resolve(read_yaml(path / "run.yaml"), where=path / "run.yaml")
    before, now = _flat(old), _flat(config)
    for name in fields():
        if name not in BESIDE and before[name] != now[name]:
            raise InputError(
                f"this folder holds another run: {name} was {before[name]!r} there and is {now[name]!r} here", where=path,
                mend="give another --out, or the same settings to go on with it",
            )  # fmt: skip


def _same_inputs(path: Path, lineage: Mapping[str, Any]) -> None:
    before, now = read_json(path / "lineage.json").get("inputs", {}), lineage["inputs"]
    if changed := changes(before, now):
        raise InputError(
            f"the {changed[0]} changed since this run began, so it cannot go on exactly", where=path,
            mend="give another --out to start anew",
        )  # fmt: skip


def _same_rewards(path: Path, lineage: Mapping[str, Any]) -> None:
    """A reward function may be mended on the way, as its errors ask for; what a finished run learned from it was the old one."""
    now = lineage["inputs"].get(REWARDS, {})
    if read_json(path / "lineage.json").get("inputs", {}).get(REWARDS, now) == now:
        return
    if (path / "result.json").is_file():
        raise InputError(
            "its rewards changed since this run was made", where=path, mend="give another --out to start anew"
        )
    log.warn("the rewards changed since this run began: it learns from both")


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The inputs that are not as they were, by name. Of what a run computes on, each part that was noted is told."""
    out = []
    for name, value in json.loads(json.dumps(dict(now))).items():
        old = value if name == REWARDS else before.get(name, value)
        if name == "computing":
            parts = [key for key in value if key in old and old[key] != value[key]]
            out += [f"{key} of computing ({old[key]}, now {value[key]})" for key in parts]
        elif name == "data" and GROWS in value.values():
            fixed = {path: digest for path, digest in value.items() if digest != GROWS}
            out += [name] * any(old.get(path, digest) != digest for path, digest in fixed.items())
        elif old != value:
            out.append(name)
    return out


def _flat(config: RunConfig) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in fields():
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        out[name] = value
    return out
