"""A record as it stands in its file, and what becomes of one that cannot be read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from luthier.core.errors import InputError
from luthier.core.types.examples import Origin
from luthier.data.size_limits import MAX_HELD_BYTES

Report = Callable[[Origin, str], None]
MAX_NAMES = 20  # names in a list of them
SKIP_HINT = "or leave such rows out with --data.skip_bad"

# Columns that tell what a row is. They part a header from a record, and a row from an object that holds rows.
USUAL_COLUMNS = {
    "text", "content", "document", "sentence", "utterance", "prompt", "question", "query", "instruction", "input", "context",
    "system", "history", "tools", "messages", "conversations", "conversation", "dialogue", "completion", "response", "answer",
    "output", "answers", "responses", "label", "category", "intent", "class", "chosen", "rejected", "accepted", "preferred",
    "output_1", "output_2", "preference", "anchor", "positive", "negative", "premise", "hypothesis", "sentence1", "sentence2",
    "text1", "text2", "score",
}  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it stands in its file."""

    fields: dict[str, Any]
    origin: Origin


def is_usual_column(name: str) -> bool:
    """Whether a column of this name is one of USUAL, compared without case, a blank counting as '_'."""
    return name.strip().lower().replace(" ", "_") in USUAL_COLUMNS


def is_turn(value: Any) -> bool:
    """Whether a value is one message of a conversation: it says who speaks."""
    return isinstance(value, dict) and any(isinstance(value.get(key), str) for key in ("role", "from"))


def listed(names: Iterable[object]) -> str:
    """Names with commas, the first ones of many."""
    some = [str(name) for name in names]
    return ", ".join(some[:MAX_NAMES]) + (f" and {len(some) - MAX_NAMES:,} more" if len(some) > MAX_NAMES else "")


def report_fault(error: InputError, origin: Origin, skipped: Report | None) -> None:
    """Report the fault of a row, or raise it."""
    if skipped is None:
        raise InputError(error.what, where=origin, fix=error.fix)
    skipped(origin, error.what)


def look_ahead(
    items: Iterator[T], count: int, length: Callable[[T], int] = lambda item: 0
) -> tuple[list[T], Iterator[T]]:
    """The first `count` items, fewer where these are very long, and all of them from the first on. An error on the way is
    raised when its place is reached, so that looking ahead changes nothing."""
    first: list[T] = []
    held = 0
    try:
        for item in itertools.islice(items, count):
            first.append(item)
            held += length(item)
            if held > MAX_HELD_BYTES:
                break
    except InputError as error:
        return first, itertools.chain(first, _raising(error))
    return first, itertools.chain(first, items)


def _raising(error: InputError) -> Iterator[Any]:
    raise error
    yield
