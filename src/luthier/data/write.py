"""Rows and examples -> JSON Lines, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.storage.files import writing
from luthier.core.types.examples import Example
from luthier.data.example_text import as_row
from luthier.data.read import Row


def write_jsonl(items: Iterable[Row | Example | Mapping[str, Any]], path: Path) -> int:
    """Write one JSON object a line and return how many. A Row keeps its own fields, an Example is written in the
    layout of its type (see `texts.as_row`). Raises DiskFull when it is; nothing is left then."""
    count = 0
    with writing(path) as handle:
        for item in items:
            handle.write(_line(item))
            count += 1
    return count


def digest_of_rows(items: Iterable[Row | Example | Mapping[str, Any]]) -> str:
    """The sha256 of the file that `write_jsonl` makes of these."""
    out = hashlib.sha256()
    for item in items:
        out.update(_line(item).encode(errors="backslashreplace"))
    return out.hexdigest()


def _line(item: Row | Example | Mapping[str, Any]) -> str:
    return json.dumps(_fields(item), ensure_ascii=False, default=str) + "\n"


def check_lines(path: Path) -> None:
    """Raise InputError when the file's name does not say that it holds JSON Lines: it could not be read again."""
    if path.suffix not in (".jsonl", ".ndjson"):
        raise InputError("this file will hold JSON Lines", where=path, fix="give a name that ends in .jsonl")


def _fields(item: Row | Example | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(item, Row):
        return item.fields
    return as_row(item) if isinstance(item, Example) else item
