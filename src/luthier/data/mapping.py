"""Which column a field is read from, as the user says it: a column, a path into a nested one (`meta.title`), or a text with columns in
braces (`{category}\\n{why}`), which is filled for each row; for all files, or for one of them (`test.csv:output`).
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, time
from functools import cache
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError, unknown
from luthier.data.cell_values import structured
from luthier.data.rows import Row

Columns = Mapping[str, str]  # FIELD or FILE:FIELD -> a column, a path, or a template
MISSING: Any = object()
# Fields that belong to what a template of the other says whole: they are read only where they are mapped themselves.
PARTS = {"prompt": ("input", "history", "instruction", "messages"), "completion": ("reasoning_content",)}
SEVERAL = ", "  # between the items of a list in a template
MAX_PATHS = 200  # paths of a row that are compared with one that is not there
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]|\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


def plain_name(name: str) -> str:
    """A column's name as names are compared: without case, a blank counting as '_'."""
    return str(name).strip().lower().replace(" ", "_")


def of_file(columns: Columns, file: str) -> Columns:
    """What holds for the rows of a file: what is said of it (by its path, its name, or a pattern of either) before what is said of all."""
    if not any(":" in field for field in columns):
        return columns
    every = {field: column for field, column in columns.items() if ":" not in field}
    for key, column in columns.items():
        pattern, sign, field = key.rpartition(":")
        if sign and _matches(pattern, file):
            every[field] = column
    return every


def _matches(pattern: str, file: str) -> bool:
    return file == pattern or any(fnmatch.fnmatchcase(name, pattern) for name in (file, Path(file).name))


def check_files(columns: Columns, files: Iterable[str]) -> None:
    """Raises InputError where a mapping of one file names none of `files`."""
    there = list(files)
    for key, column in columns.items():
        pattern, sign, _ = key.rpartition(":")
        if sign and not any(_matches(pattern, file) for file in there):
            names = {Path(file).name for file in there}
            raise unknown("file", pattern, names, where=f"--data.columns {key}={column}")


def is_template(column: str) -> bool:
    """Whether a mapping is a text to fill, not the name of a column."""
    return "{" in column or "}" in column


@cache
def pieces(template: str) -> tuple[tuple[str, bool], ...]:
    """The pieces of a template in order: (text, False) and (column or path, True). `{{` and `}}` are braces, and `\\n`, `\\t`, `\\\\` a
    line end, a tab and a backslash, as a shell passes them. Raises InputError for a brace alone, and where no column is named."""
    out: list[tuple[str, bool]] = []
    end = 0
    for found in _PIECE.finditer(template):
        out.append((template[end : found.start()], False))
        end = found.end()
        if found[1] is not None:
            out.append((found[1].strip(), True))
        elif found[2] is not None:
            out.append((_ESCAPES.get(found[2], found[0]), False))
        elif len(found[0]) == 2:
            out.append((found[0][0], False))
        else:
            raise InputError(
                f"a brace '{found[0]}' without its other one in '{template}'",
                fix="write {COLUMN}, and {{ or }} for a brace itself",
            )
    out.append((template[end:], False))
    if not any(is_column for _, is_column in out):
        raise InputError(f"'{template}' names no column", fix="write columns in braces, such as {question}")
    return tuple(piece for piece in out if piece[0])


def paths_of(column: str) -> tuple[str, ...]:
    """The columns and paths that a mapping reads."""
    return tuple(path for path, is_column in pieces(column) if is_column) if is_template(column) else (column,)


def value_at(fields: Mapping[str, Any], path: str) -> Any:
    """What stands in a column, or at a path into it; MISSING where there is none. A number in a path is a place in a list; any other
    name reads each object of the list."""
    if (key := _key(fields, path)) is not None:
        return fields[key]
    for end in (place for place, sign in enumerate(path) if sign == "."):
        if (key := _key(fields, path[:end])) is not None:
            return _inside(fields[key], path[end + 1 :])
    return MISSING


def _inside(value: Any, path: str) -> Any:
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        try:
            value = structured(value)
        except ValueError:
            return MISSING
    if isinstance(value, Mapping):
        return value_at(value, path)
    if not isinstance(value, (list, tuple)):
        return MISSING
    first, _, rest = path.partition(".")
    if first.isdigit():
        item = value[int(first)] if int(first) < len(value) else MISSING
        return item if item is MISSING or not rest else _inside(item, rest)
    found = [_inside(item, path) for item in value]
    return MISSING if MISSING in found else found


def _key(fields: Mapping[str, Any], name: str) -> str | None:
    if name in fields:
        return name
    plain = plain_name(name)
    return next((key for key in fields if plain_name(key) == plain), None)


def shaped(row: Row, columns: Columns, *, strict: bool = False) -> Row:
    """The row with a column for each path and template that `columns` reads, named as it is written there.

    A value that no template can say is left out; where `strict`, InputError is raised.
    """
    made: dict[str, Any] = {}
    for field, column in of_file(columns, row.origin.file).items():
        if _key(row.fields, column) is None and (is_template(column) or "." in column):
            try:
                value = _filled(row, field, column) if is_template(column) else value_at(row.fields, column)
            except InputError:
                if strict:
                    raise
                continue
            if value is not MISSING:
                made[column] = value
    return replace(row, fields=row.fields | made) if made else row


def _filled(row: Row, field: str, template: str) -> str:
    values = {path: value_at(row.fields, path) for path in paths_of(template)}
    if absent := [path for path, value in values.items() if value is MISSING]:
        raise InputError(
            f"no column '{absent[0]}', which the template of '{field}' reads: found {', '.join(map(str, row.fields))}",
            fix="write it as null where it is empty, or leave such rows out with --data.skip_bad",
        )
    return "".join(_text(values[text], text) if is_column else text for text, is_column in pieces(template))


def _text(value: Any, path: str) -> str:
    """A value in a template: null is nothing, truth values and numbers as JSON writes them, dates and times in ISO's form,
    the items of a list with commas."""
    if value is None:
        return ""
    if isinstance(value, Mapping) and value:
        key = next(iter(value))
        raise InputError(
            f"'{path}' is an object, and a template reads single values",
            fix=f"name a field in it, such as {{{path}.{key}}}",
        )
    if isinstance(value, (list, tuple)):
        return SEVERAL.join(_text(item, path) for item in value)
    if isinstance(value, Mapping):
        return ""
    if isinstance(value, (date, time)):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, (bool, int, float)) else str(value)


def paths_in(fields: Mapping[str, Any]) -> Iterator[str]:
    """The columns of a row, and the paths into those that are nested, as a template may name them."""
    for name, value in fields.items():
        yield str(name)
        items: Sequence[Any] = value if isinstance(value, (list, tuple)) else (value,)
        for item in items[:1]:
            if isinstance(item, Mapping):
                yield from (f"{name}.{path}" for path in paths_in(item))


def check_columns(columns: Columns, rows: Sequence[Row]) -> None:
    """Raises InputError, with the nearest name, for a mapping that reads a column which none of its rows has."""
    for file in dict.fromkeys(row.origin.file for row in rows):
        mine = [row for row in rows if row.origin.file == file]
        for field, column in of_file(columns, file).items():
            where = flag(field, column)
            try:
                paths = paths_of(column)
            except InputError as error:
                raise InputError(error.what, where=where, fix=error.fix) from None
            for path in paths:
                if all(value_at(row.fields, path) is MISSING for row in mine):
                    there = dict.fromkeys(path for row in mine for path in paths_in(row.fields))
                    raise unknown("column", path, list(there)[:MAX_PATHS], where=where)


def flag(field: str, column: str) -> str:
    """How a mapping is given on the command line."""
    return (
        f"--data.{field} '{column}'" if is_template(column) and field in PARTS else f"--data.columns {field}={column}"
    )


def used(columns: Columns, fields: Mapping[str, Any]) -> dict[str, set[str]]:
    """The columns of a row that paths and templates read from: column -> paths into it, "" for all of it."""
    out: dict[str, set[str]] = {}
    for column in columns.values():
        for path in paths_of(column):
            ends = [len(path)] if is_template(column) else []  # the column that a path is given is named as the path is
            ends += [place for place, sign in enumerate(path) if sign == "."]
            if (key := next((key for end in ends if (key := _key(fields, path[:end])) is not None), None)) is not None:
                out.setdefault(key, set()).add(path[len(key) + 1 :])
    return out
