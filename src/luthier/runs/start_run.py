"""A run's folder at the start of the command: made, or taken up when it is the same run and nothing changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.config.resolve import read_yaml, resolve, write_yaml
from luthier.config.run import BESIDE, FORMER, RunConfig, fields
from luthier.core.errors import InputError
from luthier.core.storage.sums import FILE as SUMS
from luthier.runs import lineage as made_of
from luthier.runs.folder import SETTINGS, RunFolder, check_entry, locked, place
from luthier.runs.lineage import LINEAGE
from luthier.training.method_table import method


def open_run(config: RunConfig, data_name: str, lineage: Mapping[str, Any]) -> RunFolder:
    """The folder of this run, made when it is not there yet.

    Raises InputError when the folder holds another run (naming a setting that differs), when what went
    into the run has changed since it began, or when it holds something that is no run.
    """
    folder = RunFolder(path := place(config, data_name))
    there = os.path.lexists(path / SETTINGS) or os.path.lexists(path / LINEAGE)
    if not there and path.is_dir() and any(path.glob("[!.]*")) and not _only_sums(path):
        # hidden files: of a start that was killed before run.yaml was whole
        raise InputError("the folder holds something that is not a run", where=path, fix="give another --out")
    if path.exists() and not path.is_dir():
        raise InputError("this is a file, not a folder", where=path, fix="give another --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the run directory: {error.strerror}", where=path, fix="give another --out"
        ) from None
    if there:
        folder.check()
    with locked(folder):
        made = _same_run(folder, config, lineage) if there else None
        if folder.result is None:  # else nothing more goes into it
            _keep(folder, config, made, lineage)
    return folder


def _same_run(folder: RunFolder, config: RunConfig, lineage: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the run that is here was made of; None where it has made nothing yet."""
    check_entry(folder)
    if not (folder.path / SETTINGS).is_file() and folder.begun:
        raise InputError("run.yaml is gone", where=folder.path, fix="put it back from a copy, or give another --out")
    if (folder.path / SETTINGS).is_file():
        require_same_settings(folder.path, config)
    made = folder.lineage
    if not folder.begun:
        return None
    if not made:
        raise InputError(
            f"{LINEAGE} is gone, so it is not known whether data and weights are the same", where=folder.path,
            fix="put it back from a copy, or give another --out to start over",
        )  # fmt: skip
    made_of.require_same(made, lineage, folder.path)
    return made


def _keep(folder: RunFolder, config: RunConfig, made: Mapping[str, Any] | None, lineage: Mapping[str, Any]) -> None:
    """Write the settings, and what the run is made of: at the first start, and where a later one differs."""
    settings = write_yaml(config)
    if folder.read(SETTINGS) != settings.encode(errors="backslashreplace"):
        folder.write(SETTINGS, settings)
    (folder.path / "evals").mkdir(exist_ok=True)
    if kept := lineage if made is None else made_of.later(made, lineage):
        folder.write_json(LINEAGE, kept)


def note_failure(folder: RunFolder, name: str) -> None:
    """Note that the run stopped at an error of the inputs `name`, which may be corrected then."""
    if made := folder.lineage:
        folder.write_json(LINEAGE, made_of.failed(made, name))


def _only_sums(path: Path) -> bool:
    """Whether a start was killed before it had written anything but what it was about to write."""
    return [file.name for file in path.glob("[!.]*")] == [SUMS]


def require_same_settings(path: Path, config: RunConfig) -> None:
    old = resolve(read_yaml(path / SETTINGS), where=path / SETTINGS)
    before, now = _flat(old), _flat(config)
    row = method(config.method)
    unread = () if row.online else [name for name in FORMER if name.startswith("policy.")]
    for settings in (before, now):  # None is the method's own
        settings["train.schedule"] = settings["train.schedule"] or row.schedule
    for name in fields():
        if name not in BESIDE and name not in unread and before[name] != now[name]:
            raise InputError(
                f"this folder holds another run: {name} was {before[name]!r} there and is {now[name]!r} here", where=path,
                fix="give another --out, or the same settings to continue it",
            )  # fmt: skip


def _flat(config: RunConfig) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in fields():
        value: Any = config
        for part in name.split("."):
            value = getattr(value, part)
        out[name] = value
    return out
