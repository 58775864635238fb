"""A layout settled on some rows: what their coded values mean, found out from all of them together.

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
from luthier.data.read import Row


def settle(layout: Layout, rows: Sequence[Row], columns: Mapping[str, str], values: Mapping[str, str]) -> Layout:
    """`layout` with the meaning of its codes, as `values` (of `--data.values`) or the rows themselves tell.

    Raises InputError for codes that could mean two things, for meanings that are unknown, for `values` where no field is coded,
    and for what the layout itself refuses of such rows, as preferences that their own scores turn round.
    """
    if layout is MIXED:
        return replace(layout, parts=_parts(rows, values))
    where = [columns_of(layout, row, columns) for row in rows]
    found = [(_readable(row, own), own) for row, own in zip(rows, where, strict=True)]
    found = [(fields, where) for fields, where in found if where.keys() >= set(layout.needed)]
    if not found:
        return layout
    if values and not any(layout.code in where for _, where in found):
        raise InputError(
            f"layout '{layout.name}' reads no coded field from these rows", where="--data.values",
            fix="leave it out, or declare --data.layout and --data.columns",
        )  # fmt: skip
    try:
        own = codes.declared(values, layout.targets) if values and layout.settle is None else None
        meant = layout.settle(found, values) if layout.settle is not None else own
    except InputError as error:
        raise InputError(error.what, where=error.where or rows[0].origin, fix=error.fix) from None
    return layout if meant is None else replace(layout, codes=meant)


def _readable(row: Row, where: Mapping[str, str]) -> Mapping[str, Any]:
    """The columns of a row, those that are read as `values_of` gives them."""
    values = values_of(row, where)
    return {**row.fields, **{column: values[name] for name, column in where.items()}}


def _parts(rows: Sequence[Row], values: Mapping[str, str]) -> dict[str, Layout]:
    """The layouts of mixed rows, each settled on its own rows."""
    kinds: dict[str, list[Row]] = {}
    own: dict[str, Layout] = {}
    for row in rows:
        try:
            layout = detect([row], {})
        except InputError:
            continue  # told when the row is read
        kinds.setdefault(layout.name, []).append(row)
        own[layout.name] = layout
    return {name: settle(own[name], part, {}, values if own[name].code else {}) for name, part in kinds.items()}
