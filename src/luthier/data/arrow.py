"""Parquet and Arrow -> rows. What a table adds to values, because all its rows have the same columns, is taken away again."""

from __future__ import annotations

import decimal
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.foreign.calls import library_errors
from luthier.core.log import size
from luthier.core.types.examples import Origin
from luthier.data.cell_values import as_whole, became_floats, is_nan, note_whole_numbers
from luthier.data.rows import SKIP_HINT, Report, Row, report_fault
from luthier.data.size_limits import (
    MAX_HELD_BYTES,
    MAX_LOADED_BYTES,
    MAX_ROW_BYTES,
    Growth,
    description,
    refuse_wide,
    too_long,
    weight,
)

ROWS_AT_ONCE, FEWEST_ROWS = 256, 16
LEAST_ROW_BYTES = 64  # bytes that a row takes in any case
Meaning = Callable[[Any], Any]


def parquet(handle: IO[bytes], file: str, skipped: Report | None, longest: int = MAX_ROW_BYTES) -> Iterator[Row]:
    """One record a row of a parquet file, which is read in place where it is a plain file."""
    import pyarrow as pa
    import pyarrow.parquet as library

    data = None if _in_place(handle, file) else pa.py_buffer(_loaded(handle, file))

    def source() -> Any:
        return library.ParquetFile(file if data is None else pa.BufferReader(data))

    def batches(names: list[str] | None = None) -> Iterator[Any]:
        opened = source()
        yield from opened.iter_batches(batch_size=_together(opened.metadata), columns=names)

    held = Path(file).stat().st_size if data is None else data.size
    yield from _rows(lambda: source().schema_arrow, batches, _Table(file, "parquet", held, longest, skipped))


def _together(about: Any) -> int:
    """Rows that are decoded at once: few where a column holds much, since each row may hold all that its chunk has once."""
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    largest = max(
        (group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns)), default=1
    )
    return int(max(FEWEST_ROWS, min(ROWS_AT_ONCE, MAX_LOADED_BYTES // max(largest, 1))))


def arrow(handle: IO[bytes], file: str, skipped: Report | None, longest: int = MAX_ROW_BYTES) -> Iterator[Row]:
    """One record a row of an Arrow file: a stream, as `save_to_disk` writes it, or one with a footer (.feather)."""
    import pyarrow as pa

    data = None if _in_place(handle, file) else pa.py_buffer(_loaded(handle, file))

    def source() -> Any:
        opened = pa.memory_map(file) if data is None else pa.BufferReader(data)
        footed = opened.read(6) == b"ARROW1"
        opened.seek(0)
        return pa.ipc.open_file(opened) if footed else pa.ipc.open_stream(opened)

    def batches(names: list[str] | None = None) -> Iterator[Any]:
        reader = source()
        several = hasattr(reader, "num_record_batches")
        for batch in (reader.get_batch(i) for i in range(reader.num_record_batches)) if several else reader:
            batch = batch if names is None else batch.select(names)
            yield from (batch.slice(start, ROWS_AT_ONCE) for start in range(0, batch.num_rows, ROWS_AT_ONCE))

    held = Path(file).stat().st_size if data is None else data.size
    yield from _rows(lambda: source().schema, batches, _Table(file, "Arrow", held, longest, skipped))


@dataclass(frozen=True)
class _Table:
    """A file of a `kind` that holds so many bytes, and what becomes of its rows that are too long."""

    file: str
    kind: str
    held: int
    longest: int
    skipped: Report | None


def _loaded(handle: IO[bytes], file: str) -> bytes:
    """The bytes of a file that cannot be read in place."""
    data = handle.read(MAX_LOADED_BYTES + 1)
    if len(data) > MAX_LOADED_BYTES:
        raise InputError(
            f"a table of more than {size(MAX_LOADED_BYTES)} that is compressed as a whole, or comes from a pipe", where=file,
            fix="unpack it to a file, and give that",
        )  # fmt: skip
    return data


def _in_place(handle: IO[bytes], file: str) -> bool:
    """Whether the file itself holds the bytes of `handle`, and not another file in a compressed form, or a pipe."""
    return isinstance(getattr(handle, "raw", None), io.FileIO) and Path(file).is_file()


def _rows(schema: Callable[[], Any], batches: Callable[..., Iterator[Any]], table: _Table) -> Iterator[Row]:
    file, kind = table.file, table.kind
    with library_errors(f"cannot read the {kind} file", where=file, fix=_fetch(kind)):
        columns = schema()
        refuse_wide(len(columns), file)
        features = _features(columns, file)
        known = {field.name: _meaning(field.type, features.get(field.name)) for field in columns}
    for name, feature in features.items():
        if labels := _labels(feature):
            log.once(
                f"{file}: numbers in '{name}' are read as their labels: {', '.join(labels[:4])}{' ...' * (len(labels) > 4)}"
            )
    whole = _whole_numbers(columns, batches, table)
    note_whole_numbers(whole, file)
    known |= dict.fromkeys(whole, _as_whole)
    number = 0
    for names, values, heavy in _lists(batches(), table):
        read = [
            [meant(v) for v in column] if (meant := known[n]) else column
            for n, column in zip(names, values, strict=True)
        ]
        for record in zip(*read, strict=True):
            number += 1
            if heavy and weight(record) > table.longest:
                report_fault(too_long(table.longest, fix=f"cut it, {SKIP_HINT}"), Origin(file, number), table.skipped)
                continue
            yield Row(dict(zip(names, record, strict=True)), Origin(file, number))


def _lists(batches: Iterator[Any], table: _Table) -> Iterator[tuple[list[str], list[list[Any]], bool]]:
    """Batch by batch: the names of the columns, the values of each as Python has them, and whether a row may be too long.
    Raises InputError with the row."""
    number, growth = 1, Growth(table.file)
    while True:
        with library_errors(_cannot(table), where=f"{table.file}:{number}", fix=_fetch(table.kind)):
            if (batch := next(batches, None)) is None:
                return
            batch.validate(full=True)  # offsets of a damaged file lead anywhere in memory
            names, rows, taken = list(batch.schema.names), batch.num_rows, _taken(batch)
        growth.add(taken, table.held)
        step = max(1, min(rows, rows * MAX_HELD_BYTES // taken)) if rows else 1
        for start in range(0, rows, step):
            with library_errors(_cannot(table), where=f"{table.file}:{number}", fix=_fetch(table.kind)):
                values = [column.slice(start, step).to_pylist() for column in batch.columns]
            yield names, values, taken > table.longest
        number += rows


def _cannot(table: _Table) -> str:
    return f"cannot read the {table.kind} file"


def _taken(batch: Any) -> int:
    """About how many bytes the rows of a batch take, each of them at least a few; of a dictionary, what each row takes of it."""
    import pyarrow.types as types

    total = LEAST_ROW_BYTES * batch.num_rows
    for column in batch.columns:
        held = column.dictionary if types.is_dictionary(column.type) else column
        total += held.nbytes // max(len(held), 1) * batch.num_rows
    return int(total)


def _fetch(kind: str) -> str:
    return f"the file is truncated or no {kind}: fetch it again, or save it as JSON Lines"


def _whole_numbers(schema: Any, batches: Callable[..., Iterator[Any]], table: _Table) -> list[str]:
    """The columns of floats that hold whole numbers, some missing: integers, which a data frame made into floats for these."""
    import pyarrow as pa

    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    return [
        name
        for name in floats
        if became_floats(value for _, (column,), _ in _lists(batches([name]), table) for value in column)
    ]


def _as_whole(value: Any) -> Any:
    return None if is_nan(value) else as_whole(value)


def _features(schema: Any, file: str) -> Mapping[str, Any]:
    """What the library datasets says of the columns: in the schema, else in dataset_info.json beside the file."""
    beside = Path(file).parent / "dataset_info.json"
    try:
        if (written := (schema.metadata or {}).get(b"huggingface")) is not None:
            found = json.loads(written)["info"]["features"]
        else:
            found = description(beside)["features"] if beside.is_file() else {}
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        log.warn_once(f"{file}: the column types stored by the datasets library cannot be read, so labels stay numbers")
        return {}
    return found if isinstance(found, dict) else {}


def _meaning(kind: Any, feature: Any, depth: int = 0) -> Meaning | None:
    """What turns a value of an Arrow type into what was meant by it; None where it is that already.

    - A null in a struct is a field that this row does not have: the table gave it one because other rows do.
    - A number that is no number is null; a map is an object; a label's number is its name.
    """
    import pyarrow.types as types

    if (labels := _labels(feature)) and types.is_integer(kind):
        return lambda value: labels[value] if value is not None and 0 <= value < len(labels) else None
    if types.is_floating(kind):
        return lambda value: None if is_nan(value) else value
    if getattr(kind, "extension_name", "") == "arrow.json":
        return _of_json
    if types.is_dictionary(kind):
        return _meaning(kind.value_type, feature, depth)
    if types.is_struct(kind):
        return _struct(kind, feature, depth)
    if types.is_map(kind):
        inner = _meaning(kind.item_type, None, depth + 1)
        return lambda value: None if value is None else {str(k): inner(v) if inner else v for k, v in value}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        of_items = _meaning(kind.value_type, _of_items(feature), depth + 1)
        return (lambda value: None if value is None else [of_items(item) for item in value]) if of_items else None
    plain = types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_boolean(kind)
    return None if plain else _plain


def _labels(feature: Any) -> list[str]:
    """The names of the labels that stand as numbers in a column; none where it holds other things."""
    names = feature.get("names") if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel" else None
    return [str(name) for name in names] if isinstance(names, list) else []


def _of_items(feature: Any) -> Any:
    if isinstance(feature, list):
        return feature[0] if feature else None
    return feature.get("feature") if isinstance(feature, Mapping) else None


def _struct(kind: Any, feature: Any, depth: int) -> Meaning:
    """An object without its nulls. A turn of a conversation keeps an empty `content`: that it says nothing is said."""
    inner = _of_items(feature) if isinstance(feature, Mapping) and "_type" in feature else feature
    wrapped = inner is not feature  # a sequence of objects is stored as an object of lists
    known: dict[str, Meaning | None] = {}
    for i in range(kind.num_fields):
        field = kind.field(i)
        own = inner.get(field.name) if isinstance(inner, Mapping) else None
        known[field.name] = _meaning(field.type, [own] if wrapped and own is not None else own, depth + 1)

    def meant(value: Any) -> Any:
        if value is None:
            return None
        items = {key: inside(item) if (inside := known[key]) else item for key, item in value.items()}
        turn = depth == 1 and items.get("role") is not None
        return {key: item for key, item in items.items() if item is not None or (turn and key == "content")}

    return meant


def _of_json(value: Any) -> Any:
    """What a text in a column of JSON says; the text where it is none."""
    try:
        return None if value is None else json.loads(value)
    except (ValueError, RecursionError):
        return value


def _plain(value: Any) -> Any:
    """A decimal number as it is written, and bytes that are text, which some programs store without saying so."""
    if isinstance(value, decimal.Decimal):
        return int(value) if value.as_tuple().exponent == 0 else str(value)
    if isinstance(value, bytes) and not re.search(rb"[\x00-\x08\x0e-\x1f]", value):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    return value
