"""A row with another answer, everything else as it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Example, Prompt
from luthier.data.convert import rows_with_examples
from luthier.data.example_text import identity
from luthier.data.layout_table import Layout
from luthier.data.read import Row


def with_answer(row: Row, example: Example, answer: str, layout: Layout, columns: Mapping[str, str]) -> Row:
    """The row with `answer` in place of the last answer of `example`, which is what it reads as.

    The new row is read again before it is given back, so that nothing but the answer can have changed. Raises
    InputError where no field holds the answer as a whole, as when it is written in pieces.
    """
    wanted, old = _answered(example, answer)
    for name in reversed(row.fields):
        value = _replaced(row.fields[name], old, answer)
        if value is None:
            continue
        new = Row(row.fields | {name: value}, row.origin)
        if any(identity(read) == identity(wanted) for _, read in rows_with_examples([new], layout, columns)):
            return new
    raise InputError(
        "the answer of this row has no field of its own", where=row.origin, fix="fix it in the file by hand"
    )


def _answered(example: Example, answer: str) -> tuple[Example, str]:
    """The example with another answer, and the answer it has."""
    if isinstance(example, Prompt):
        return replace(example, answer=answer), example.answer or ""
    assert isinstance(example, Chat), "only rows with one answer are corrected"
    last = max(i for i, turn in enumerate(example.messages) if turn.role == "assistant")
    turn = example.messages[last]
    turns = (*example.messages[:last], replace(turn, content=answer), *example.messages[last + 1 :])
    return replace(example, messages=turns), turn.content


def _replaced(value: Any, old: str, new: str) -> Any:
    """The value of a field with the answer `old` replaced: a text, a message, or the last such message of a list. None
    where it holds no such answer."""
    if isinstance(value, (str, int, float)):
        if str(value) != old:
            return None
        return new if isinstance(value, (str, bool)) else _number(new)
    if isinstance(value, Mapping):
        key = next((key for key in ("content", "value") if value.get(key) == old), None)
        return {**value, key: new} if key else None
    if isinstance(value, (list, tuple)):
        for i in reversed(range(len(value))):
            if isinstance(value[i], Mapping) and (item := _replaced(value[i], old, new)) is not None:
                return [*value[:i], item, *value[i + 1 :]]
    return None


def _number(text: str) -> int | float | str:
    """The number that the text is, where it is written as that number is; else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float)) and str(value) == text else text
