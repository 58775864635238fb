"""The cache of converted models: each folder is built once, by one process, and is there whole or not at all.

luthier.json in it says what each file is: bytes, time of its last change, sha256. It is looked at whenever the model is opened, and a
folder that is not as it was made is made anew. Size and time are believed; `luthier models --check` reads the content.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from luthier.core.errors import DiskFull, InputError, LuthierError, Unwritable
from luthier.core.log import note
from luthier.core.storage.files import cache_folder, sha256, write_folder, write_json
from luthier.core.storage.opening import holding
from luthier.model.folder.settings_files import read_object

ORIGIN = "luthier.json"


def built(name: str, origin: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The cache folder `name`, built by one process under a lock and renamed when whole; anew where it was changed since.

    Raises InputError where it cannot be built.
    """
    models = cache_folder() / "models"
    final = models / name
    if final.is_dir() and damage(final) is None:
        return final

    def fill(folder: Path) -> None:
        build(folder)
        write_json(folder / ORIGIN, origin | {"files": _record(folder)})

    def wait() -> None:
        note("another process is preparing this model; waiting for it")

    why = None
    try:
        with holding(models / f".{name}.lock", wait):
            if final.is_dir():
                if (why := damage(final)) is None:
                    return final
                note(f"{final}: {why}; making it again")
            return write_folder(final, fill, alone=True)
    except (DiskFull, Unwritable) as error:
        raise InputError(
            f"cannot write the model: {error.what}", where=models, fix="free space, or set LUTHIER_CACHE"
        ) from error
    except LuthierError as error:
        if why is None:
            raise
        raise InputError(f"{why}, and it cannot be made again: {error.what}", where=final, fix=error.fix) from error


def _record(folder: Path) -> dict[str, dict[str, Any]]:
    """What luthier.json says of each file."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        about = path.stat()
        found[str(path.relative_to(folder))] = {
            "bytes": about.st_size, "time_ns": about.st_mtime_ns, "sha256": sha256(path),
        }  # fmt: skip
    return found


def damage(folder: Path, *, content: bool = False) -> str | None:
    """What is wrong with a model of the cache; None where each file is there as it was made, and no other.

    A file whose time is another is read, and one that has its content after all (a cache that was copied) gets its time back. With
    `content` every file is read.
    """
    if folder.is_symlink():
        return "it is a link"
    try:
        record = read_object(folder / ORIGIN).get("files")
    except FileNotFoundError:
        return f"{ORIGIN} is missing"
    except InputError as error:
        return f"{ORIGIN} is broken: {error.what}"
    if not isinstance(record, dict) or not record:
        return f"{ORIGIN} has no checksums, as an earlier version left it"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    if changed := sorted((there - {ORIGIN}) ^ record.keys()):
        return f"{changed[0]} is {'missing' if changed[0] in record else 'not of it'}"
    return next(
        (f"{name} {why}" for name, said in record.items() if (why := _changed(folder / name, said, content))), None
    )


def _changed(path: Path, said: object, content: bool) -> str | None:
    """How a file is another than `said`; None where it is not."""
    if not isinstance(said, dict) or not said.keys() >= {"bytes", "time_ns", "sha256"}:
        return "has no checksum"
    if path.is_symlink() or not path.is_file():
        return "is not a regular file"
    about = path.stat()
    if about.st_size != said["bytes"]:
        return "has another size"
    if about.st_mtime_ns == said["time_ns"] and not content:
        return None
    if sha256(path) != said["sha256"]:
        return "has another content"
    with contextlib.suppress(OSError, OverflowError, TypeError):
        os.utime(path, ns=(about.st_atime_ns, said["time_ns"]))
    return None
