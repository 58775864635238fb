"""Rows as a file would hold them, loaded as every command loads them."""

from __future__ import annotations

import json

from luthier.config.data import DataConfig
from luthier.data.load import load


def loaded(tmp_path, rows, **settings):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load([str(path)], DataConfig(**settings))
