"""A layout with the meaning of its coded values, found out from all rows together.

One row cannot tell what its `1` says; a column can, or it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from luthier.core.errors import InputError
from luthier.data import codes
from luthier.data.detect import columns_of, detect, values_of
from luthier.data.layout_table import MIXED, Layout
from luthier.data.mapping import shaped
from luthier.data.read import Row


def with_codes(layout: Layout, rows: Sequence[Row], columns: Mapping[str, str], values: Mapping[str, str]) -> Layout:
    """`layout` with the meaning of its codes, as `values` (of `--data.values`) or the rows themselves tell.

    Raises InputError for codes that could mean two things, for meanings that are unknown, for `values` where no field is coded,
    and for what the layout itself refuses of such rows, as preferences that their own scores turn round.
    """
    if layout is MIXED:
        return replace(layout, parts=_layouts_of_mixed(rows, values))
    rows = [shaped(row, columns) for row in rows]
    where = [columns_of(layout, row, columns) for row in rows]
    readable = [(_readable_fields(row, declared), declared) for row, declared in zip(rows, where, strict=True)]
    readable = [(fields, where) for fields, where in readable if where.keys() >= set(layout.needed)]
    if not readable:
        return layout
    if values and not any(layout.code in where for _, where in readable):
        raise InputError(
            f"layout '{layout.name}' reads no coded field from these rows", where="--data.values",
            fix="leave it out, or declare --data.layout and --data.columns",
        )  # fmt: skip
    try:
        declared = codes.declared(values, layout.targets) if values and layout.find_codes is None else None
        resolved = layout.find_codes(readable, values) if layout.find_codes is not None else declared
    except InputError as error:
        raise InputError(error.what, where=error.where or rows[0].origin, fix=error.fix) from None
    return layout if resolved is None else replace(layout, codes=resolved)


def _readable_fields(row: Row, where: Mapping[str, str]) -> Mapping[str, Any]:
    """The columns of a row, those that are read as `values_of` gives them."""
    values = values_of(row, where)
    return {**row.fields, **{column: values[name] for name, column in where.items()}}


def _layouts_of_mixed(rows: Sequence[Row], values: Mapping[str, str]) -> dict[str, Layout]:
    """The layouts of mixed rows, each with the codes of its own rows."""
    rows_by_layout: dict[str, list[Row]] = {}
    layouts: dict[str, Layout] = {}
    for row in rows:
        try:
            layout = detect([row], {})
        except InputError:
            continue  # told when the row is read
        rows_by_layout.setdefault(layout.name, []).append(row)
        layouts[layout.name] = layout
    return {
        name: with_codes(layouts[name], part, {}, values if layouts[name].code else {})
        for name, part in rows_by_layout.items()
    }
