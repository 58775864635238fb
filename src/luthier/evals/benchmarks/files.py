"""Where a benchmark's files are, or its data on the hub, and the documents in them."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.foreign.calls import reason
from luthier.core.storage.files import sha256
from luthier.core.storage.sums import checked
from luthier.core.types.examples import Origin
from luthier.data.decode import WRAPPERS
from luthier.data.read import Row, read_rows
from luthier.evals.benchmarks.documents import Document
from luthier.evals.benchmarks.tasks import Task

RECORDS_SUM = "records"  # in a card: the sha256 of the file of records, once all are there
MEASURE_ANEW = "put it back from a copy, or remove it and the other files of its name, to measure again"
MAX_DEPTH = 6  # folders below --data-dir that are looked into


@dataclass(frozen=True)
class Material:
    """What a task is measured on.

    `shots` is what examples are drawn from, `own_shots` whether these are rows apart. `files` names what was
    read, each with its sha256.
    """

    documents: tuple[Document, ...]
    shots: tuple[Document, ...]
    own_shots: bool
    files: dict[str, str]


def from_folder(task: Task, folder: Path, shots: int) -> Material:
    """The task's documents, from files somewhere below `folder`. Raises InputError when they are not there, naming
    what was looked for, and for rows that are not as published."""
    tree = _listed(folder)
    measured = _find(task.files, tree)
    if not measured:
        looked = ", ".join(f"'{name}'" for name in task.files)
        raise InputError(
            f"no file of {task.name} in it: looked for {looked} (upper or lower case, compressed or not)",
            where=folder, fix="give --data-dir the folder that holds it, or --hub",
        )  # fmt: skip
    examples = _find(task.shot_files, tree) if shots else []
    rows = [[row for file in files for row in task.read(file)] for files in (measured, examples)]
    return _material(task, rows[0], rows[1], _digests(folder, [*measured, *examples]))


def from_texts(task: Task, paths: Sequence[str]) -> Material:
    """Any texts: files as `luthier train` reads them, with a column 'text' where they have columns."""
    rows = list(read_rows(paths))
    names = sorted({row.origin.file for row in rows})
    return _material(task, rows, [], {name: _digest(name, rows) for name in names})


def from_hub(task: Task, shots: int) -> Material:
    """The task's documents from the Hugging Face hub, or its cache here. Raises InputError without `datasets`,
    and when the data cannot be had."""
    if task.hub is None:
        raise InputError(f"{task.name} is not on the hub", where="--hub", fix="give it files")
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(
            "reading the hub's data needs the package datasets",
            where="--hub",
            fix="pip install datasets, or give --data-dir",
        ) from None
    path, name, measured, examples = task.hub
    parts = []
    files = {}
    for split in (measured, examples) if shots and examples != measured else (measured,):
        try:
            data = load_dataset(path, name, split=split)
        except Exception as error:  # it raises whatever its many storage libraries do
            raise InputError(
                f"cannot get '{split}' of {path}: {reason(error)}", where="--hub",
                fix="check the network, or give --data-dir",
            ) from None  # fmt: skip
        place = f"{path}/{name}/{split}" if name else f"{path}/{split}"
        files[place] = str(data._fingerprint)
        parts.append([Row(dict(fields), Origin(place, number)) for number, fields in enumerate(data, start=1)])
    return _material(task, parts[0], parts[1] if len(parts) > 1 else [], files)


def _material(task: Task, measured: Sequence[Row], examples: Sequence[Row], files: dict[str, str]) -> Material:
    documents, shots = (_parsed(task, rows) for rows in (measured, examples))
    if not documents:
        what = f"no rows of the subject '{task.group}'" if task.group else "no rows"
        raise InputError(what, where=next(iter(files), None), fix="fetch the file again")
    return Material(documents, shots or documents, bool(shots), files)


def _parsed(task: Task, rows: Sequence[Row]) -> tuple[Document, ...]:
    documents = [task.parse(row) for row in rows]
    if task.group:
        documents = [document for document in documents if document.group == task.group]
    return tuple(documents)


def _listed(folder: Path) -> list[Path]:
    """The files below `folder`, those near the top first."""
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, fix="give --data-dir a folder of benchmark files")
    root, found = folder.resolve(), []
    for place, folders, names in os.walk(root):
        deep = len(Path(place).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if deep < MAX_DEPTH else []
        found += [Path(place) / name for name in names]
    return sorted(found, key=lambda path: (len(path.parts), path))


def _find(names: Sequence[str], tree: Sequence[Path]) -> list[Path]:
    """The files that the first matching name stands for; with a `*` in it, all of one folder."""
    for name in names:
        found = [path for path in tree if _matches(path, name) and _card(path) is None]
        if found:
            return [path for path in found if path.parent == found[0].parent] if "*" in Path(name).name else found[:1]
    return []


def _matches(path: Path, name: str) -> bool:
    """Whether the end of `path` is `name`, part by part, but for upper case and compression."""
    wanted = name.split("/")
    last = path.name.lower()
    parts = [part.lower() for part in path.parts[-len(wanted) : -1]]
    parts.append(last.rpartition(".")[0] if Path(last).suffix in WRAPPERS else last)
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def card_of(records: Path) -> dict[str, Any] | None:
    """What the card beside these records says; None where nothing is yet.

    Raises InputError for a file there that `luthier eval` did not write: it may be somebody's data.
    """
    card = records.with_suffix(".json")
    there = [path for path in (records, card) if path.is_file() and path.stat().st_size]
    said = _card(records)
    if said is not None:
        said = checked(said, card, MEASURE_ANEW)
    if there and said is None:
        raise InputError(
            "`luthier eval` would write here, but it did not write this file", where=there[0], fix="give another --out"
        )
    return said


def require_records(records: Path, card: Mapping[str, Any]) -> None:
    """Raise InputError when the records of a finished measurement are not those that its card was written for."""
    if RECORDS_SUM in card and (not records.is_file() or sha256(records) != card[RECORDS_SUM]):
        what = "these records have changed since they were written" if records.is_file() else "these records are gone"
        raise InputError(what, where=records, fix=MEASURE_ANEW)


def _card(records: Path) -> dict[str, Any] | None:
    """The card beside a file, when that is a file of records: they may have the name of the data that they are of."""
    card = records.with_suffix(".json")
    if records.suffix != ".jsonl" or not card.is_file():
        return None
    try:
        said = json.loads(card.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) and "task" in said else None


def _digests(folder: Path, files: Sequence[Path]) -> dict[str, str]:
    root = folder.resolve()
    return {str(file.relative_to(root)): sha256(file) for file in files}


def _digest(name: str, rows: Sequence[Row]) -> str:
    """The sha256 of a file; of what came through a pipe, that of its rows."""
    if Path(name).is_file():
        return sha256(Path(name))
    said = [row.fields for row in rows if row.origin.file == name]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
