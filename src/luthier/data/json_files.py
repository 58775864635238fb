"""JSON and JSON Lines -> rows."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.types.examples import Origin
from luthier.data.cell_values import as_whole, became_floats, note_whole_numbers
from luthier.data.decode import decoded, raw_lines, text_pieces
from luthier.data.json_objects import of_object, questions, tell_of_questions
from luthier.data.json_rows import TOO_MANY_DIGITS, Decoder, JsonReader, half_character, reason_of
from luthier.data.rows import SKIP_HINT, Report, Row, listed, look_ahead, report_fault
from luthier.data.size_limits import MAX_ROW_BYTES, refuse_wide, too_long

SAMPLED_ROWS = 200  # rows that are looked at to tell whole numbers that became 42.0


def jsonl(handle: IO[bytes], file: str, skipped: Report | None, longest: int = MAX_ROW_BYTES) -> Iterator[Row]:
    """One JSON object a line."""
    yield from _whole_numbers(_lines(handle, file, skipped, longest), file)


def _lines(handle: IO[bytes], file: str, skipped: Report | None, longest: int) -> Iterator[Row]:
    decoder = Decoder()
    for number, raw in raw_lines(handle, longest):
        if not raw.strip():
            continue
        origin = Origin(file, number)
        try:
            if len(raw) > longest:
                raise too_long(longest, fix=f"cut it, {SKIP_HINT}")
            line = decoded(raw, file, number)
            fields = _object(_one_value(line, decoder), line)
        except InputError as error:
            report_fault(error, origin, skipped)
            continue
        decoder.tell(str(origin))
        yield Row(fields, origin)


def _one_value(line: str, decoder: Decoder) -> Any:
    try:
        return decoder.decode(line)
    except json.JSONDecodeError as error:
        if re.match(r"\s*\{\s*'", line):
            fix = f"write it with json.dumps, {SKIP_HINT}"
            raise InputError("broken JSON: an object as Python prints it", fix=fix) from None
        joined = error.msg == "Extra data" and line[error.pos :].lstrip().startswith("{")
        what = "two objects on one line, as where files were joined without a line end, the second" if joined else ""
        raise InputError(
            f"{what or f'broken JSON: {reason_of(error)}'} at column {error.colno}",
            fix=f"a .jsonl file holds one whole JSON object per line; fix the line, {SKIP_HINT}",
        ) from None
    except RecursionError:
        raise InputError("broken JSON: nested too deeply", fix=f"fix the line, {SKIP_HINT}") from None
    except ValueError:
        raise InputError(f"broken JSON: {TOO_MANY_DIGITS}", fix=f"fix the line, {SKIP_HINT}") from None


def _object(value: Any, text: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number or a truth value")
        raise InputError(
            f"a row must be a JSON object, this is {kind}", fix=f'write it as {{"text": ...}}, {SKIP_HINT}'
        )
    refuse_wide(len(value))
    if half_character(text):
        raise InputError("half of a character: a lone \\ud... escape", fix=f"write the character whole, {SKIP_HINT}")
    return value


def json_values(
    handle: IO[bytes], file: str, skipped: Report | None, longest: int = MAX_ROW_BYTES, held_out: bool = False
) -> Iterator[Row]:
    """An array of objects, objects one after the other, or one object that is a row or holds rows (see json_objects). Of an
    object of splits, the one to learn from, or the one that is `held_out`."""
    reader = JsonReader(text_pieces(handle, file), file, unwrap=not held_out, longest=longest)
    first, values = look_ahead(iter(reader), 2)
    if len(first) == 1 and not reader.listed and not reader.wrapper and isinstance(first[0][1], dict):
        list(values)  # raises what is wrong behind it
        values = iter(first)
        rows = of_object(first[0][1], file, held_out)
        if rows is not None:
            text = first[0][2] if half_character(first[0][2]) else ""
            values = ((number, value, text) for number, value in enumerate(rows, start=1))
    elif len(first) == 2 and first[0][0] == first[1][0]:  # all on one line: a row is named by its number
        values = ((number, value, text) for number, (_, value, text) in enumerate(values, start=1))
    yield from _whole_numbers(_checked(values, file, skipped), file)
    if reader.wrapper:
        beside = f"; not read: {listed(reader.beside)}" if reader.beside else ""
        log.once(f"{file}: the rows are the list under '{reader.wrapper}'{beside}")


def _checked(values: Iterator[tuple[int, Any, str]], file: str, skipped: Report | None) -> Iterator[Row]:
    without = number = 0
    for place, value, text in values:
        origin = Origin(file, place)
        try:
            fields = _object(value, text)
        except InputError as error:
            report_fault(error, origin, skipped)
            continue
        if (asked := questions(fields)) is None:
            yield Row(fields, origin)
            continue
        answered = [question for question in asked if question["output"] is not None]
        without += len(asked) - len(answered)
        tell_of_questions(file)
        for question in answered:
            number += 1
            yield Row(question, Origin(file, number))
    if without:
        log.warn_once(f"{file}: questions without an answer are left out: {without}")


def _whole_numbers(rows: Iterator[Row], file: str) -> Iterator[Row]:
    """The rows, with whole numbers that became 42.0 because others are missing as they were."""
    seen, rows = look_ahead(
        rows, SAMPLED_ROWS, lambda row: sum(len(value) for value in row.fields.values() if isinstance(value, str))
    )
    names = dict.fromkeys(itertools.chain.from_iterable(row.fields for row in seen))
    columns = {name: [row.fields[name] for row in seen if name in row.fields] for name in names}
    whole = [name for name, values in columns.items() if became_floats(values)]
    note_whole_numbers(whole, file)
    for row in rows:
        yield (
            Row(row.fields | {n: as_whole(row.fields[n]) for n in whole if n in row.fields}, row.origin)
            if whole
            else row
        )
