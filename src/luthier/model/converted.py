"""The cache of converted models: each folder is built once, by one process, and is there whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError, LuthierError
from luthier.core.files import cache_folder, fsync_folder, full_disk, write_json
from luthier.core.log import note

ORIGIN = "luthier.json"


def built(name: str, origin: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The cache folder `name`, built by one process under a lock and renamed when whole."""
    models = cache_folder() / "models"
    final = models / name
    if final.is_dir():
        return final
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _locked(models / f".{name}.lock"):
            if final.is_dir():
                return final
            temporary = models / f".{name}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            try:
                build(temporary)
                write_json(temporary / ORIGIN, origin)
                for file in temporary.rglob("*"):
                    if file.is_file():
                        _flush(file)
                os.rename(temporary, final)
                fsync_folder(models)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except LuthierError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not full_disk(error):
            raise
        reason = "the disk is full" if full_disk(error) else error.strerror  # type: ignore[attr-defined]
        raise InputError(
            f"cannot write the model: {reason}", where=models, mend="free space, or set LUTHIER_CACHE"
        ) from error
    return final


def _flush(path: Path) -> None:
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the system frees it when the process ends, however it ends."""
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("another process is preparing this model; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
