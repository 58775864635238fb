"""The settings by which some rows are read: as they are recognised, or as their values suggest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.config.run import RunConfig
from luthier.core.errors import InputError
from luthier.data import load as data_load
from luthier.data.suggest import NotMapped


def suggested(config: RunConfig) -> dict[str, Any]:
    """Settings of a run with the layout and the columns of the data, as a YAML file holds them. Raises InputError where nothing reads the
    rows."""
    data = config.data
    if not data.path:
        raise InputError("no data given", fix="luthier data PATH --suggest, such as luthier data rows.jsonl --suggest")
    try:
        found = data_load.head(data.path, data, data_load.LAYOUT_ROWS)
        layout, columns = found.layout.name, found.reading.read
    except NotMapped as error:
        if error.suggestion is None:
            raise
        layout, columns = error.suggestion.layout, error.suggestion.columns
    settings: dict[str, Any] = {"path": data.path[0] if len(data.path) == 1 else list(data.path), "layout": layout}
    settings["columns"] = _named_otherwise(columns)
    settings["values"] = dict(data.values)
    return {"data": {name: value for name, value in settings.items() if value}}


def _named_otherwise(columns: Mapping[str, str]) -> dict[str, str]:
    return {field: column for field, column in columns.items() if field != column}
