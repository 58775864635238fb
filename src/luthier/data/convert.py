"""Rows -> Examples by a layout, and what is said when a row does not fit it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import Example, Ranking
from luthier.data.corrections import corrected
from luthier.data.detect import columns_of, filled, listed, own_layout, values_of
from luthier.data.layout_table import Layout
from luthier.data.layouts import Unused
from luthier.data.mapping import MISSING, shaped, value_at
from luthier.data.media import media_columns, refuse_media
from luthier.data.rankings import UNRANKED, rated
from luthier.data.read import Report, Row


def to_examples(
    rows: Iterable[Row],
    layout: Layout,
    columns: Mapping[str, str],
    *,
    group: str | None = None,
    skipped: Report | None = None,
    unused: Report | None = None,
) -> Iterator[Example]:
    """An example for each row. `group` names the column whose equal values belong together.

    A bad row goes to `skipped`, or raises InputError with file, line, the fields found and those needed.
    A sound row without an example (a tie) goes to `unused`, and is never an error. An empty text is
    kept, because the data card counts it and `clean` drops it; what makes a row bad is a missing
    field, a value of the wrong kind, an unknown role, an empty conversation.
    """
    for _, example in rows_with_examples(rows, layout, columns, group=group, skipped=skipped, unused=unused):
        yield example


def rows_with_examples(
    rows: Iterable[Row],
    layout: Layout,
    columns: Mapping[str, str],
    *,
    group: str | None = None,
    skipped: Report | None = None,
    unused: Report | None = None,
    corrections: Report | None = None,
) -> Iterator[tuple[Row, Example]]:
    """As `to_examples`, each example with its row. What was put right in an example goes to `corrections`."""
    known: dict[tuple[str, ...], tuple[dict[str, str], tuple[str, ...]]] = {}
    for row in rows:
        try:
            read = shaped(row, columns, strict=True)
            row_layout = own_layout(layout, read)
            # Rows of a file with the same columns filled are read alike.
            names = (row_layout.name, row.origin.file if columns else "", *read.fields, "", *filled(read))
            if names not in known:
                where = columns_of(row_layout, read, columns)
                known[names] = where, media_columns(set(filled(read)) - set(where.values()))
            where, media = known[names]
            values = values_of(read, where)
            example = _parse(row_layout, values, row.fields)
            refuse_media(media, example, row_layout.name == "labels")
            example, notes = corrected(values, example)
            if isinstance(example, Ranking) and not rated(values):
                notes = (*notes, UNRANKED)
            example = replace(example, origin=row.origin, group=_group(row, group))
        except InputError as error:
            if skipped is None:
                raise InputError(error.what, where=row.origin, fix=error.fix) from None
            skipped(row.origin, error.what)
        except Unused as reason:
            if unused is not None:
                unused(row.origin, str(reason))
        else:
            if corrections is not None:
                for note in notes:
                    corrections(row.origin, note)
            yield row, example


def _parse(layout: Layout, values: dict[str, Any], names: Iterable[str]) -> Example:
    missing = [name for name in layout.needed if name not in values]
    if missing:
        raise InputError(
            f"no field '{missing[0]}': found {listed(names)}; layout '{layout.name}' needs {listed(layout.needed)}",
            fix=f"map it with --data.columns {missing[0]}=COLUMN, or leave such rows out with --data.skip_bad",
        )
    if layout.codes is not None and layout.code in values:
        values = values | {layout.code: layout.codes(values[layout.code])}
    # A table gives absent fields as null: an optional field that is null is absent.
    return layout.parse({k: v for k, v in values.items() if v is not None or k in (*layout.needed, layout.code)})


def _group(row: Row, group: str | None) -> str:
    if group is None:
        return ""
    if (value := value_at(row.fields, group)) is None or value is MISSING:
        raise InputError(f"no field '{group}' to group by: found {listed(row.fields)}", fix="check --data.group")
    return str(value)
