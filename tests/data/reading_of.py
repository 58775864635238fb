"""Files made for a test, and what is read of them, as every command reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.config.data import DataConfig
from luthier.core.errors import InputError
from luthier.data.load import load
from luthier.data.read import read_rows


def loaded(tmp_path, rows, **settings):
    """Rows as a file would hold them, loaded."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load([str(path)], DataConfig(**settings))


def put(folder: Path, name: str, content: bytes | str) -> str:
    """A file with this content; its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def fields(path: str, **how: Any) -> list[dict[str, Any]]:
    """What the rows of a file say."""
    return [row.fields for row in read_rows([path], **how)]


def places(path: str) -> list[int | None]:
    """The lines on which the rows of a file begin."""
    return [row.origin.line for row in read_rows([path])]


def fault(*paths: str) -> str:
    """The one line with which reading these files ends."""
    with pytest.raises(InputError) as caught:
        list(read_rows(list(paths)))
    assert "\n" not in str(caught.value)
    return str(caught.value)
