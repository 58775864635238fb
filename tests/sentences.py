"""The sentences of errors that tests wait for: each stands once, under a name, in sentences.txt beside this file.

A line there is `name: what is wrong; how to fix it`, with holes such as `{turn}` for what differs from case to case. A test asks for a
sentence by its name, and says what stands in the holes that it is about:

    with pytest.raises(InputError, match=sentence("no stop token", where="a.jsonl:3", turn="turn 3")): ...

Who changes a sentence changes its line. `core/test_sentences.py` holds that no sentence is written anywhere else, and none is unused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from string import Formatter

FILE = Path(__file__).with_name("sentences.txt")


@cache
def sentences() -> dict[str, str]:
    """All sentences by their names."""
    return dict(line.split(": ", 1) for line in FILE.read_text(encoding="utf-8").splitlines())


class Sentence(str):
    """A pattern that still knows the name of its sentence: cases of a table are called so."""

    name: str


def sentence(name: str, /, *, where: str | None = None, **values: object) -> Sentence:
    """A pattern of the whole sentence `name`, for `match=` or `re.search`.

    `where` is how the place before it ends, such as a file's name and a line. `values` fill holes, and `…` in them takes any text, as
    a hole without a value does.
    """
    known = sentences()
    assert name in known, f"no sentence {name!r} in {FILE.name}; nearest: {difflib.get_close_matches(name, known)}"
    holes = {hole for _, hole in _parts(known[name]) if hole}
    assert values.keys() <= holes, f"{name!r} has no hole {values.keys() - holes}, but {holes}"
    place = r"(?:^|: )" if where is None else f"{re.escape(where)}: "
    pattern = Sentence(
        place + "".join(re.escape(text) + _filled(hole, values) for text, hole in _parts(known[name])) + r"\Z"
    )
    pattern.name = name
    return pattern


def _parts(sentence: str) -> Iterator[tuple[str, str | None]]:
    """The texts of a sentence, each with the hole that follows it."""
    return ((text, hole) for text, hole, _, _ in Formatter().parse(sentence))


def _filled(hole: str | None, values: dict[str, object]) -> str:
    return re.escape(str(values.get(hole, "…"))).replace("…", ".*") if hole else ""
