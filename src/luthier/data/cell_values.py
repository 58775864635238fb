"""Values that were written by something else than their own format: Python's and numpy's spellings, missing numbers."""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Iterable
from typing import Any

from luthier.core import log
from luthier.core.foreign.forms import MAX_DEPTH, too_deep
from luthier.data.rows import is_turn

MAX_LIST_CHARACTERS = 10_000_000  # characters of a text that is read as Python's spelling of a list
MISSING_VALUES = frozenset(
    ("nan", "NaN", "NaT", "<NA>", "#N/A")
)  # how pandas and spreadsheets write a cell without a value
LISTS = frozenset(
    ("messages", "tools", "responses", "ranks", "scores", "outputs", "choices", "history")
)  # fields that hold a list, also as text
TEXT_OR_TURNS = frozenset(("prompt", "completion", "chosen", "rejected"))  # fields that hold text, or turns
_NO_VALUE = {tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def field_value(name: str, value: Any) -> Any:
    """The value of a layout's field: a text that spells a list where a list is needed, or turns where turns may stand, is
    that list, and so are turns by columns, {"role": [...], "content": [...]}; anything else is as it was."""
    if isinstance(value, dict) and any(isinstance(value.get(key), list) for key in ("role", "from")):
        columns = value.values()
        same = all(isinstance(column, list) for column in columns) and len({len(column) for column in columns}) == 1
        return [dict(zip(value, turn, strict=True)) for turn in zip(*columns, strict=True)] if same else value
    if (
        not isinstance(value, str)
        or name not in LISTS | TEXT_OR_TURNS
        or not value.lstrip().startswith(("[", "{", "("))
    ):
        return value
    try:
        found = structured(value)
    except ValueError:
        return value  # whoever needs a list says so
    if name in LISTS:
        return found
    turns = found if isinstance(found, list) else [found]
    return found if turns and all(is_turn(turn) and ("content" in turn or "value" in turn) for turn in turns) else value


def structured(text: str) -> Any:
    """The value that a text spells as JSON, as Python prints it, or as numpy prints it (without commas between values).

    Raises ValueError for any other text, and for lists that were shortened with '...'.
    """
    try:
        value = json.loads(text, parse_constant=lambda name: None if name == "NaN" else float(name))
        if text.count("[") + text.count("{") > MAX_DEPTH and too_deep(value):
            raise RecursionError
        return value
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        if len(text) > MAX_LIST_CHARACTERS:
            raise
    try:
        return _of_python(ast.parse(_with_commas(text.strip()), mode="eval").body)
    except (SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise ValueError(f"neither JSON nor Python: {error}") from None


def _with_commas(text: str) -> str:
    """`text` with a comma between values that stand side by side, as numpy prints them. Python would join two strings there."""
    out: list[str] = []
    ended = False  # whether a value has just ended
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _NO_VALUE:
            continue
        value = token.type in (tokenize.NAME, tokenize.NUMBER, tokenize.STRING)
        if ended and (value or token.string in ("{", "[", "-")):
            out.append(",")
        out.append(token.string)
        ended = value or token.string in ("}", "]", ")")
    return " ".join(out)


def _of_python(node: ast.expr) -> Any:
    """The value of a literal; numpy's array(...) is its list, nan is null."""
    match node:
        case ast.Constant(value=value) if not isinstance(value, (bytes, complex)) and value is not ...:
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_of_python(item) for item in items]
        case ast.Dict(keys=keys, values=values) if all(isinstance(key, ast.Constant) for key in keys):
            return {str(key.value): _of_python(item) for key, item in zip(keys, values, strict=True)}  # type: ignore[union-attr]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Call(func=ast.Name(id="array" | "list") | ast.Attribute(value=ast.Name(id="np")), args=[inner, *_]):
            return _of_python(inner)
        case ast.Name(id="nan" | "NaN" | "null"):
            return None
        case ast.Name(id="true" | "false" as name):
            return name == "true"
    raise ValueError("not a literal")


def is_nan(value: Any) -> bool:
    """Whether a value is the number that stands for none."""
    return isinstance(value, float) and math.isnan(value)


def became_floats(values: Iterable[Any]) -> bool:
    """Whether a column of numbers holds whole ones that became 42.0 because others are missing: every number is whole, and
    at least one is none (null, NaN, or an empty cell). Cells of text count as the numbers they spell."""
    missing = whole = False
    for value in values:
        if value is None or value == "" or is_nan(value):
            missing = True
        elif as_whole(value) is value:
            return False
        else:
            whole = True
    return missing and whole


def note_whole_numbers(names: Iterable[str], file: str) -> None:
    """Say which columns are read as the whole numbers that they were."""
    for name in names:
        log.once(f"{file}: '{name}' holds whole numbers that became floats beside missing ones: 42.0 is read as 42")


def as_whole(value: Any) -> Any:
    """A whole number written as a float, or as the text of one, as it was before: 42.0 is 42. Any other value is itself."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return value.removesuffix(".0") if isinstance(value, str) and re.fullmatch(r"-?\d{1,15}\.0", value) else value
