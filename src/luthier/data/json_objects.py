"""One JSON object that holds a whole data set: its rows, and what of it is none.

| object | rows |
|---|---|
| {"version": ..., "train": [rows]} | the one list of rows |
| {"train": [rows], "test": [rows]} | the split that is asked for |
| {"id1": {row}, "id2": {row}} | its values |
| {"text": ["a", "b"], "label": [0, 1]} | a table by columns |
| {"text": {"0": "a", "1": "b"}, ...} | the same, as pandas writes it |
| {"columns": [names], "data": [[cells]]} | the same |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.core import log
from luthier.core.errors import InputError
from luthier.data.paths import split_of
from luthier.data.rows import is_turn, is_usual_column, listed

WRAPPERS = ("data", "rows", "examples", "records", "items", "samples", "instances", "dataset")

Object = Mapping[str, Any]


def of_object(value: Object, file: str, held_out: bool = False) -> list[Any] | None:
    """The rows in an object that is the whole of a file, None where the object is a row itself. What was taken for rows, and
    what was not read, is told. Raises InputError where there are several lists of rows and nothing says which."""
    if _is_row(value):
        return None
    if (table := _by_columns(value)) is not None:
        log.once(f"{file}: a table by columns: {listed(table[0])}" if table else f"{file}: an empty table")
        return table
    parts = {key: rows for key, part in value.items() if (rows := _part(key, part, file, held_out)) is not None}
    if parts:
        key = _chosen(parts, file, held_out)
        others = [name for name in value if name != key]
        log.once(f"{file}: the rows are those under '{key}'" + (f"; not read: {listed(others)}" if others else ""))
        return list(parts[key])
    if value and all(isinstance(item, dict) and not is_turn(item) for item in value.values()) and _alike(value):
        log.once(f"{file}: the rows are the values of one object, {len(value)} keys such as '{next(iter(value))}'")
        return [item if "id" in item else {"id": key, **item} for key, item in value.items()]
    return None


def _is_row(value: Object) -> bool:
    """Whether an object says itself what a row says: a usual column holds a text, a number or turns."""
    told = (item for key, item in value.items() if is_usual_column(key))
    return any(
        isinstance(item, (str, int, float)) or is_turn(item) or (isinstance(item, list) and any(map(is_turn, item)))
        for item in told
    )


def _rows(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(item, dict) and not is_turn(item) for item in value)
    )


def _part(key: str, part: Any, file: str, held_out: bool) -> Sequence[Any] | None:
    """The rows of one member of an object: a list of them, or an object of them under the name of a split or of all rows."""
    if _rows(part) or (part == [] and (key in WRAPPERS or split_of(key))):
        return list(part)
    if isinstance(part, dict) and (key.lower() in WRAPPERS or split_of(key)):
        return of_object(part, file, held_out)
    return None


def _chosen(parts: Mapping[str, Sequence[Any]], file: str, held_out: bool) -> str:
    if len(parts) == 1:
        return next(iter(parts))
    splits = {split_of(key): key for key in reversed(list(parts))}
    order = ("validation", "test", "train") if held_out else ("train",)
    for name in order:
        if name in splits:
            return splits[name]
    known = [key for key in parts if key.lower() in WRAPPERS]
    if len(known) == 1:
        return known[0]
    raise InputError(
        f"several lists of rows, under {listed(map(repr, parts))}", where=file,
        fix="write the one that is meant to a file of its own",
    )  # fmt: skip


def _by_columns(value: Object) -> list[dict[str, Any]] | None:
    """The rows of a table that is written by columns."""
    names, cells = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(cells, list) and cells and all(isinstance(row, list) for row in cells):
        if any(len(row) != len(names) for row in cells):
            return None
        return [dict(zip(map(str, names), row, strict=True)) for row in cells]
    columns = list(value.values())
    if columns and all(isinstance(column, dict) for column in columns):
        keys = list(columns[0])
        numbered = all(key.isdigit() for key in keys) or (
            any(map(is_usual_column, value)) and not any(map(is_usual_column, keys))
        )
        if not keys or not numbered or any(is_turn(column) or column.keys() != columns[0].keys() for column in columns):
            return None
        return [{name: column[key] for name, column in value.items()} for key in keys]
    same = bool(columns) and all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns)
    if not same or not columns[0] or all(_rows(column) for column in columns):
        return None
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def _alike(value: Object) -> bool:
    """Whether the values of an object are rows of one kind: all have a key in common."""
    return bool(set.intersection(*(set(item) for item in value.values())))


def questions(row: Object) -> list[dict[str, Any]] | None:
    """The questions of an article as SQuAD writes them, each with its passage as the input and its first answer as the
    output (None where there is none); None for other rows."""
    paragraphs = row.get("paragraphs")
    if not isinstance(paragraphs, list) or not all(
        isinstance(p, dict) and isinstance(p.get("qas"), list) for p in paragraphs
    ):
        return None
    return [_asked(asked, paragraph.get("context"), row) for paragraph in paragraphs for asked in paragraph["qas"]]


def _asked(asked: Object, passage: Any, row: Object) -> dict[str, Any]:
    answers = [answer.get("text") for answer in asked.get("answers") or ()]
    rest = {key: value for key, value in asked.items() if key not in ("question", "answers")}
    told = {"instruction": asked.get("question"), "input": passage, "output": answers[0] if answers else None}
    return {**told, "title": row.get("title"), "answers": answers, **rest}


def tell_of_questions(file: str) -> None:
    """Say how questions about passages are read."""
    log.once(
        f"{file}: questions about passages: instruction = the question, input = its passage, output = its first answer"
    )
