"""Text that runs in circles."""

from __future__ import annotations

import re

import numpy as np

from luthier.evals.detectors.answer import Finding
from luthier.evals.detectors.words import LIST_MARK, spans, words

LONGEST = 80  # words in the longest phrase that is looked for
GRAM = 7  # words in a row that count as said before
SHARE = 0.4  # of the words may have been said before
ITEMS = 4  # marks that make a list
FEWEST = 15  # words of a text whose share is taken

# The same one to four characters 15 times in a row; rules and dots that people draw are left out.
_STUTTER = re.compile(r"([^\s\-=_*.#~|+<>/]{1,4}?)\1{14,}")


def repeats(text: str) -> Finding | None:
    """A loop in the text, or much of it said twice.

    A loop is a word six times, two words four times or a longer phrase three times in a row, or a few characters fifteen
    times; numbers alone are no phrase. Else the share of words is taken that belong to a run of 7 words which stood in
    the text before, after Gopher's share of duplicate n-grams (Rae et al. 2021), with words for characters; in a list, whose
    items often begin alike, to lines that stood there before. Marks of lists are not read.
    """
    if stutter := _STUTTER.search(text):
        return Finding("repetitive", f"'{stutter[1]}' again and again", stutter.span())
    plain = LIST_MARK.sub(lambda mark: " " * len(mark[0]), text)
    found = words(plain)
    table: dict[str, int] = {}
    ids = np.array([table.setdefault(word, len(table)) for word in found], np.int64)
    places = spans(plain)
    for period in range(1, min(LONGEST, len(ids) // 2) + 1):
        same, least = ids[period:] == ids[:-period], period * (_times(period) - 1)
        if np.count_nonzero(same) < least:
            continue
        start, length = _longest_run(same)
        phrase = " ".join(found[start : start + period][:8])
        if length >= least and not phrase.replace(" ", "").isdigit():
            why = f"'{phrase}' {length // period + 1} times in a row"
            return Finding("repetitive", why, (places[start][0], places[start + period + length - 1][1]))
    if len(ids) < FEWEST:
        return None
    before = _items_before(plain) if len(LIST_MARK.findall(text)) >= ITEMS else _said_before(found)
    if before > SHARE:
        return Finding("repetitive", f"{before:.0%} of its words stand in it twice")
    return None


def _times(period: int) -> int:
    return {1: 6, 2: 4}.get(period, 3)


def _longest_run(same: np.ndarray) -> tuple[int, int]:
    """Start and length of the longest run of True, of which there is one."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], same.astype(np.int8), [0]))))
    starts, ends = edges[::2], edges[1::2]
    best = int(np.argmax(ends - starts))
    return int(starts[best]), int(ends[best] - starts[best])


def _items_before(text: str) -> float:
    lines = [words(line) for line in text.splitlines()]
    again = sum(len(line) for place, line in enumerate(lines) if line in lines[:place])
    return again / sum(map(len, lines))


def _said_before(found: list[str]) -> float:
    seen: set[tuple[str, ...]] = set()
    again = [False] * len(found)
    for start in range(len(found) - GRAM + 1):
        gram = tuple(found[start : start + GRAM])
        if gram in seen:
            again[start : start + GRAM] = [True] * GRAM
        seen.add(gram)
    return sum(again) / len(found)
