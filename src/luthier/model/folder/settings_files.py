"""The small JSON files of a model's folder: read once, whole, as regular files, and held to a size and a depth."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.foreign.forms import too_deep
from luthier.core.storage.files import refuse_pointer, small_file

SETTINGS_BYTES = 64 << 20  # the largest known, an index of 100,000 tensors, has 15 MB
DEEPEST = 64  # known ones have up to 8 levels
COPY_AGAIN = "copy the folder again"


def read_object(path: Path, most: int = SETTINGS_BYTES, *, unique: bool = False) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError for what is not one, with the file; FileNotFoundError for no file."""
    return parse_object(small_file(path, most), path, unique=unique)


def parse_object(content: bytes, where: Path, *, unique: bool = False) -> dict[str, Any]:
    """The JSON object that `content` of the file `where` holds. With `unique` a key that stands twice is refused: what it means
    would depend on who reads it. Raises InputError."""
    value = _parse(content, where, unique)
    if not isinstance(value, dict):
        raise InputError("not a JSON object", where=where, fix=COPY_AGAIN)
    return value


def read_list(path: Path) -> list[Any]:
    """The JSON list in a file. Raises InputError as `read_object` does."""
    value = _parse(small_file(path, SETTINGS_BYTES), path, unique=False)
    if not isinstance(value, list):
        raise InputError("not a JSON list", where=path, fix=COPY_AGAIN)
    return value


def _parse(content: bytes, where: Path, unique: bool) -> Any:
    refuse_pointer(content, where)
    try:
        value = json.loads(content.decode("utf-8-sig"), object_pairs_hook=_once(where) if unique else None)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON: {str(error)[:200]}", where=where, fix=COPY_AGAIN) from None
    if isinstance(value, (dict, list)) and too_deep(value, DEEPEST):
        raise InputError(f"nested more than {DEEPEST} deep", where=where, fix=COPY_AGAIN)
    return value


def _once(where: Path) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise InputError(f"names '{twice[:100]}' twice", where=where, fix=COPY_AGAIN)
        return found

    return once
