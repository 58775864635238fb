"""Rows of no known layout -> a mapping that reads them. Whatever is proposed has been tried on the rows: it is followed without a fault."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.core.errors import InputError
from luthier.data.convert import to_examples
from luthier.data.detect import UnknownLayout, detect, is_empty
from luthier.data.layout_codes import with_codes
from luthier.data.layout_errors import IDENTIFYING, kind_of
from luthier.data.layouts import Unused
from luthier.data.mapping import MISSING, paths_in, value_at
from luthier.data.read import Row

SHOWN = 32  # characters of a value that are shown
MOST_SHOWN = 10  # columns that are shown
TRIED = 50  # rows that a mapping is tried on
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
# What columns are called that hold a question, its answer, and the better and the worse of two; the most telling first.
ASKED = (
    "instruction prompt question query frage pregunta ask request task inquiry problem customer user human ticket goal subject headline "
    "utterance comment review tweet sms email source src document article passage post title body message input text sentence "
    "description q code natural intent"
)
ANSWERED = (
    "completion response answer antwort respuesta reply solution assistant agent bot gpt output summary highlights tldr abstract "
    "translation target tgt result expected gold sql correction corrected rewrite rewritten explanation category label class klasse topic "
    "intent sentiment tag verdict department priority a"
)
BETTER = "chosen preferred accepted good better best winning win positive upvoted"
WORSE = "rejected dispreferred declined bad worse worst losing lose loser negative downvoted"


@dataclass(frozen=True)
class Suggestion:
    """A mapping that reads some rows as `layout`; `declared` where they are not detected as it without."""

    layout: str
    columns: Mapping[str, str]
    declared: bool = False

    def flags(self) -> str:
        """As options of the command line."""
        pairs = ",".join(f"{field}={column}" for field, column in self.columns.items())
        layout = f" --data.layout {self.layout}" if self.declared else ""
        return f"--data.columns {shlex.quote(pairs)}{layout}"


class NotMapped(InputError):
    """Rows of no known layout, with a mapping that reads them, where there is one."""

    def __init__(self, what: str, *, where: object, fix: str | None, suggestion: Suggestion | None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.suggestion = suggestion


def suggest(rows: Sequence[Row]) -> Suggestion | None:
    """The likeliest mapping that reads all of these rows (of many the first); None where none does."""
    rows = rows[:TRIED]
    for layout, columns in _candidates(rows):
        if any(set(column) & set(",=:{}") for column in columns.values()) or not _reads(rows, layout, columns):
            continue
        try:
            found = detect(rows, columns).name
        except InputError:
            found = ""
        return Suggestion(layout, columns, declared=found != layout)
    return None


def mended(error: UnknownLayout, rows: Sequence[Row]) -> NotMapped:
    """The error with what the first row holds, and a mapping that works, where there is one."""
    found = suggest(rows)
    if found is None:
        what = f"{error.what}; the first row has {described(rows[0])}"
        return NotMapped(what, where=error.where, fix=error.fix, suggestion=None)
    return NotMapped(
        f"unknown layout: the first row has {described(rows[0])}", where=error.where,
        fix=f"try {found.flags()}; `luthier data FILE --suggest` writes it as YAML", suggestion=found,
    )  # fmt: skip


def described(row: Row) -> str:
    """What each field of a row looks like, in one line."""
    filled = [(name, value) for name, value in row.fields.items() if not is_empty(value)]
    more = f" and {len(filled) - MOST_SHOWN} more" if len(filled) > MOST_SHOWN else ""
    return ", ".join(f"{name} ({_look(value)})" for name, value in filled[:MOST_SHOWN]) + more


def _look(value: Any) -> str:
    kind = kind_of(value)
    if isinstance(value, Mapping):
        return f"{kind} of {', '.join(map(str, list(value)[:4]))}"
    if isinstance(value, (list, tuple)):
        return f"{kind} of {len(value)}: {_look(value[0])}" if value else f"{kind} of 0"
    text = " ".join(str(value).split())
    return f"{kind}: {text if len(text) <= SHOWN else text[:SHOWN].rstrip() + '…'!s}"


def _reads(rows: Sequence[Row], name: str, columns: Mapping[str, str]) -> bool:
    """Whether every row that this mapping gives an example of is read without a fault, and there is one."""
    try:
        layout = with_codes(detect(rows, columns, declared=name), rows, columns, {})
        return bool(list(to_examples(rows, layout, columns)))
    except (InputError, Unused):
        return False


def _candidates(rows: Sequence[Row]) -> Iterator[tuple[str, dict[str, str]]]:
    """Layouts and mappings that these rows may have, the likeliest first."""
    held = _values(rows)
    texts = [
        path
        for path, values in held.items()
        if all(isinstance(value, str) for value in values) and _tells(path, values)
    ]
    objects = [path for path, values in held.items() if all(_is_list_of(value, Mapping) for value in values)]
    lists = [path for path, values in held.items() if all(_is_list_of(value, str) for value in values)]
    numbers = [path for path, values in held.items() if all(_is_list_of(value, (int, float)) for value in values)]
    asked = _named(texts, ASKED)
    yield from (("chat", {"messages": path}) for path in objects)
    better, worse = (_named([*texts, *objects], words) for words in (BETTER, WORSE))
    if better and worse:
        rest = [path for path in texts if path not in (better, worse)]
        prompt = _named(rest, ASKED) or next(iter(rest), None)
        yield "preference", ({"prompt": prompt} if prompt else {}) | {"chosen": better, "rejected": worse}
    for path in (*lists, *objects):
        if asked:
            yield from (("ranking", {"prompt": asked, "responses": path, "scores": number}) for number in numbers)
    answered = _named([path for path in texts if path != asked], ANSWERED)
    if asked == answered or asked is None:
        asked = next((path for path in texts if path != answered), None)
    if answered is None:
        rest = [path for path in texts if path != asked]
        answered = max(rest, key=lambda path: sum(map(len, held[path])) / len(held[path]), default=None)
    if asked and answered:
        yield "prompt_completion", {"prompt": asked, "completion": answered}
    labels = [
        path
        for path in held
        if path not in texts
        and (_words(path) & {*ANSWERED.split(), "labels", "categories", "tags", "score", "stars", "rating"})
    ]
    if texts:
        yield from (("labels", {"text": asked or texts[0], "label": path}) for path in labels)
    if len(texts) == 1 and not (
        objects or lists
    ):  # of several columns, a text alone would leave out what belongs to it
        yield "text", {"text": texts[0]}


def _values(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Column or path -> its values that are not empty, where most rows have one; columns before what is in them."""
    paths = dict.fromkeys(path for row in rows for path in paths_in(row.fields))
    held = {
        path: [value_at(row.fields, path) for row in rows] for path in sorted(paths, key=lambda path: path.count("."))
    }
    kept = {
        path: [value for value in values if value is not MISSING and not is_empty(value)]
        for path, values in held.items()
    }
    return {path: values for path, values in kept.items() if values and 2 * len(values) >= len(rows)}


def _tells(path: str, values: Sequence[str]) -> bool:
    """Whether a column of texts says something: it names no row, no source and no date, and is not the same in all of several."""
    if IDENTIFYING.fullmatch(path.rpartition(".")[2].lower()) and not _words(path) & {
        *ASKED.split(),
        *ANSWERED.split(),
    }:
        return False
    if all(re.fullmatch(r"(https?://\S+|\d{4}-\d\d-\d\d.*|[0-9a-f]{8,}(-[0-9a-f]+)*)", value) for value in values):
        return False
    return len(values) < 3 or len(set(values)) > 1


def _named(paths: Sequence[str], words: str) -> str | None:
    """The path whose name has the first of these words."""
    return next((path for word in words.split() for path in paths if word in _words(path)), None)


def _words(path: str) -> set[str]:
    return {word.lower() for word in WORDS.findall(path.rpartition(".")[2])}


def _is_list_of(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, kind) for item in value)
