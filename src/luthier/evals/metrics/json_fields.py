"""JSON answers field by field: how many of the reference's fields they have, and the keys that they lack."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

MAX_PAIRED_ITEMS = 50  # items of lists that are paired by likeness; longer lists are paired by place
MAX_COMPARED_DEPTH = 64  # levels that are compared; deeper ones must be equal as a whole
MAX_DEPTH = 200  # levels that are read
_LEVELS = {"{": 1, "[": 1, "}": -1, "]": -1}

_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)


def parsed(text: str) -> Any:
    """The object or list that the text is, in a fence or not; None where it is neither, or nested deeper than DEEPEST."""
    fenced = _FENCED.fullmatch(text)
    inner = (fenced[1] if fenced else text).strip()
    if not inner.startswith(("{", "[")) or max(accumulate(_LEVELS.get(sign, 0) for sign in inner)) > MAX_DEPTH:
        return None
    try:
        return json.loads(inner)
    except (ValueError, RecursionError):
        return None


def field_f1(answer: str, reference: str) -> float:
    """F1 of the fields, from 0 to 1: 2 x equal fields / (fields of the answer + fields of the reference).

    A field is a value that is no object and no list, with the keys that lead to it; an empty object or list counts as one. Items of
    lists are paired with those they are most like, in whatever order. Text is equal without the white space around it, 1 equals
    1.0 and no other type. An answer that is no JSON has none; 0 for a reference that is none.
    """
    said, wanted = parsed(answer), parsed(reference)
    if said is None or wanted is None:
        return 0.0
    return 2 * _alike(said, wanted, 0) / (_size(said, 0) + _size(wanted, 0))


def _size(value: Any, depth: int) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(_size(item, depth + 1) for item in inner) if inner and depth < MAX_COMPARED_DEPTH else 1


def _alike(one: Any, other: Any, depth: int) -> int:
    """How many fields are equal."""
    if isinstance(one, dict) and isinstance(other, dict) and one and other and depth < MAX_COMPARED_DEPTH:
        return sum(_alike(one[key], other[key], depth + 1) for key in one.keys() & other.keys())
    if isinstance(one, list) and isinstance(other, list) and one and other and depth < MAX_COMPARED_DEPTH:
        return _items(one, other, depth)
    return int(_equal(one, other))


def _items(one: list[Any], other: list[Any], depth: int) -> int:
    if max(len(one), len(other)) > MAX_PAIRED_ITEMS:
        return sum(_alike(a, b, depth + 1) for a, b in zip(one, other, strict=False))
    found = [(_alike(a, b, depth + 1), i, j) for i, a in enumerate(one) for j, b in enumerate(other)]
    left, right, total = set(range(len(one))), set(range(len(other))), 0
    for count, i, j in sorted(found, key=lambda entry: (-entry[0], entry[1], entry[2])):
        if i in left and j in right:
            left.discard(i)
            right.discard(j)
            total += count
    return total


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, str) and isinstance(other, str):
        return one.strip() == other.strip()
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    return type(one) is type(other) and bool(one == other)


def key_paths(value: Any) -> frozenset[str]:
    """The keys that all objects at their place have: 'items' and, for those of a list, 'items[].name'; 'items[]' says that there is
    a list, 'items[]*' that it is empty."""
    return frozenset(_paths(value, "", 0))


def _paths(value: Any, before: str, depth: int) -> Iterator[str]:
    if depth >= MAX_COMPARED_DEPTH:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            path = f"{before}.{key}" if before else str(key)
            yield path
            yield from _paths(item, path, depth + 1)
    elif isinstance(value, list):
        yield f"{before}[]"
        if not value:
            yield f"{before}[]*"
            return
        kinds = [set(_paths(item, f"{before}[]", depth + 1)) for item in value]
        yield from set.intersection(*kinds)


def missing(said: Any, wanted: frozenset[str]) -> str:
    """The first key of `wanted` (paths of `key_paths`) that the value lacks where its surroundings are there, or ''."""
    have = key_paths(said)
    for path in sorted(wanted - have, key=lambda path: (len(path), path)):
        above = path[:-2] if path.endswith("[]") else path.rpartition(".")[0]
        if not path.endswith("*") and (not above or above in have) and f"{above}*" not in have:
            return path
    return ""
