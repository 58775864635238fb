"""Texts in which people marked spans -> a chat whose answer is JSON: each label, with the texts that were marked so.

`{"PERSON": ["Anna", "Ben"], "PLACE": ["Lima"]}`; labels and texts in the order of the text, `{}` where nothing is marked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Message
from luthier.data.layouts import Unused, Values, opened
from luthier.data.messages import text_of

# Keys of spans that are objects.
STARTS, ENDS, LABELS = ("start", "start_offset", "begin"), ("end", "end_offset"), ("label", "labels", "type", "entity")
Span = tuple[int, int, str]


def spans(values: Values) -> Chat:
    """Spans are [start, end, label] or objects of these, in characters from 0, the end not within. Raises InputError for others, and for
    one that leaves the text."""
    text, marked = text_of(values["text"], "text"), values["spans"]
    if marked is None:
        raise Unused("no annotation")
    found = [_span(item) for item in marked] if isinstance(marked, (list, tuple)) else [None]
    if None in found:
        raise InputError(
            "field 'spans' is not a list of [start, end, label]",
            fix="write each span in this form, or leave such rows out with --data.skip_bad",
        )
    return extracted(values, text, [span for span in found if span])


def tagged(values: Values) -> Chat:
    """Tokens and a tag of each: B-X begins a span of X, I-X goes on with it, O is none."""
    tokens, tags = values["tokens"], values["tags"]
    if not (isinstance(tokens, (list, tuple)) and isinstance(tags, (list, tuple)) and len(tokens) == len(tags)):
        raise InputError("not a tag for each token", fix="give both lists the same length, or use --data.skip_bad")
    text, label = "", ""
    found: list[Span] = []
    for token, tag in zip(tokens, tags, strict=True):
        text += " " * bool(text)
        start, text = len(text), text + text_of(token, "tokens")
        kind, _, name = str(tag).partition("-")
        if kind == "I" and name == label and found:
            found[-1] = (found[-1][0], len(text), label)
        elif kind in ("B", "I", "S", "U") and name:
            found.append((start, len(text), name))
        elif tag != "O":
            raise InputError(f"tag {tag!r} is not B-X, I-X or O", fix="write tags by their names")
        label = name
    return extracted(values, text, found)


def extracted(values: Values, text: str, found: Sequence[Span]) -> Chat:
    """The text, answered by what is marked in it."""
    said: dict[str, list[str]] = {}
    for start, end, label in sorted(found):
        if not 0 <= start < end <= len(text):
            raise InputError(
                f"span {start} to {end} ('{label}') is not within the text of {len(text)} characters",
                fix="count characters from 0, or leave such rows out with --data.skip_bad",
            )
        said.setdefault(label, []).append(text[start:end])
    answer = json.dumps(said, ensure_ascii=False)
    return Chat(opened(values, (Message("user", text), Message("assistant", answer))))


def are_spans(value: Any) -> bool:
    """Whether a value is a list of spans, and at least one."""
    return isinstance(value, (list, tuple)) and bool(value) and all(_span(item) is not None for item in value)


def are_tags(values: Values) -> bool:
    """Whether every token has a tag that says where spans begin."""
    tags = values["tags"]
    names = isinstance(tags, (list, tuple)) and all(isinstance(tag, str) for tag in tags)
    return names and all(tag == "O" or tag[1:2] == "-" for tag in tags)


def _span(item: Any) -> Span | None:
    """Start, end and label; None for something else."""
    if isinstance(item, Mapping):
        item = [next((item[key] for key in keys if key in item), None) for keys in (STARTS, ENDS, LABELS)]
    if not (isinstance(item, (list, tuple)) and len(item) == 3):
        return None
    start, end, label = item
    if isinstance(label, (list, tuple)) and len(label) == 1:  # Label Studio's
        label = label[0]
    whole = all(isinstance(place, int) and not isinstance(place, bool) for place in (start, end))
    return (start, end, label) if whole and isinstance(label, str) and label else None
