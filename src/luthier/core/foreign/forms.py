"""Values from files of JSON, held against the form that they must have before anything believes them.

A form is a type: `int`, `list[str]`, a TypedDict whose other keys are left alone. Numbers are finite and no larger than
anything that is counted or measured, so that no sum of them overflows.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, TypeAdapter, ValidationError

from luthier.core.errors import InputError

T = TypeVar("T")

LARGEST_NUMBER = 1e15  # no measurement gives a larger number
Number = Annotated[float, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
Whole = Annotated[int, Field(ge=-(1 << 53), le=1 << 53)]
Count = Annotated[int, Field(ge=0, le=1 << 53)]
Share = Annotated[float, Field(ge=0, le=1)]
MAX_DEPTH = 100  # objects and lists in each other
SHOWN_CHARACTERS = 60  # characters of a value that an error shows


def read_line(line: bytes, *, where: object, fix: str) -> Any:
    """What a line of JSON, or a whole file, says. Raises InputError when it is none."""
    try:
        found = json.loads(line)
    except RecursionError:
        raise InputError(f"nested more than {MAX_DEPTH} deep", where=where, fix=fix) from None
    except ValueError as error:
        what = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not JSON"
        raise InputError(what, where=where, fix=fix) from None
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH and too_deep(found):
        raise InputError(f"nested more than {MAX_DEPTH} deep", where=where, fix=fix)
    return found


def too_deep(value: Any, most: int = MAX_DEPTH) -> bool:
    """Whether lists and objects stand in each other more than `most` times: deeper than what follows could go through them."""
    level = [value]
    for _ in range(most):
        inside = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list))
        level = [item for items in inside for item in items if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def require_form(form: type[T], value: Any, *, where: object, fix: str) -> T:
    """The value itself, unchanged. Raises InputError, with `where` and the way to what is wrong in it, when it is not of the form."""
    try:
        _adapter(cast(Any, form)).validate_python(value, strict=True)
        return cast(T, value)
    except ValidationError as error:
        raise InputError(_fault(error), where=where, fix=fix) from None


@cache
def _adapter(form: Any) -> TypeAdapter[Any]:
    return TypeAdapter(form)


def _fault(error: ValidationError) -> str:
    """The first thing that does not fit: where it stands, what was asked, what is there."""
    first = error.errors(include_url=False, include_context=False)[0]
    way = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"'{way}' is missing"
    asked = first["msg"].removeprefix("Input ").removeprefix("List ").replace(" after validation", "")
    named = f"'{way[:SHOWN_CHARACTERS]}'" if way else "this"
    counted = first["type"] in ("too_short", "too_long")  # says itself how many there are
    return f"{named} {asked}" + ("" if counted else f", not {shown(first['input'])}")


def shown(value: object) -> str:
    """A value in an error: as JSON, and short."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."
