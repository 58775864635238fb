"""The cache of converted models: each folder is built once, by one process, and is there whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from luthier.core.errors import DiskFull, InputError, Unwritable
from luthier.core.files import cache_folder, write_folder, write_json
from luthier.core.log import note
from luthier.core.opening import holding

ORIGIN = "luthier.json"


def built(name: str, origin: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """The cache folder `name`, built by one process under a lock and renamed when whole."""
    models = cache_folder() / "models"
    final = models / name
    if final.is_dir():
        return final

    def fill(folder: Path) -> None:
        build(folder)
        write_json(folder / ORIGIN, origin)

    def wait() -> None:
        note("another process is preparing this model; waiting for it")

    try:
        with holding(models / f".{name}.lock", wait):
            return final if final.is_dir() else write_folder(final, fill, alone=True)
    except (DiskFull, Unwritable) as error:
        raise InputError(
            f"cannot write the model: {error.what}", where=models, mend="free space, or set LUTHIER_CACHE"
        ) from error
