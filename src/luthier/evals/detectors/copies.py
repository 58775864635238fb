"""Which runs of words stand in the training answers, and in whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luthier.evals.detectors.words import contains, spans, unspaced, words

GRAM = 12  # words in a row that are a stretch
GRAM_UNSPACED = 20  # characters, in scripts without spaces
RARE = 2  # a stretch of more answers than this is the manner of the task, not one answer learned by heart
SHARE = 0.25  # of the answer that the stretch makes at least

_PRIME = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Copies:
    """Hashes of all runs of 12 words of the training answers, sorted, and the row of each: 12 bytes a word."""

    table: dict[str, int]
    hashes: np.ndarray
    owners: np.ndarray
    prompts: tuple[str, ...]

    @classmethod
    def learn(cls, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> Copies:
        """`answers` are the words of each answer. Runs do not cross from one answer into the next."""
        table: dict[str, int] = {}
        hashes, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
        for row, found in enumerate(answers):
            ids = [table.setdefault(word, len(table)) for word in found]
            if len(ids) >= GRAM:
                hashes.append(np.unique(_hashes(np.array(ids, np.uint64))))
                owners.append(np.full(len(hashes[-1]), row, np.int32))
        together, rows = np.concatenate(hashes), np.concatenate(owners)
        order = np.argsort(together, kind="stable")
        return cls(table, together[order], rows[order], tuple(prompt.strip() for prompt in prompts))

    def stretch(self, prompt: str, answer: str, reference: str) -> tuple[int, tuple[int, int], int] | None:
        """The longest stretch of the answer that one or two training answers to other prompts have, and neither prompt
        nor reference: how many words, where (characters), and whose.
        """
        found = words(answer)
        if len(found) < GRAM or not len(self.hashes):
            return None
        ids = np.array([self.table.get(word, len(self.table)) for word in found], np.uint64)
        hashes = _hashes(ids)
        left, right = (np.searchsorted(self.hashes, hashes, side) for side in ("left", "right"))
        owner = np.full(len(hashes), -1)
        for place in np.flatnonzero((right > left) & (right - left <= RARE)):
            rows = self.owners[left[place] : right[place]]
            if all(self.prompts[row] != prompt.strip() for row in rows):
                owner[place] = rows[0]
        return self._longest(owner, answer, found, words(prompt), words(reference))

    def _longest(
        self, owner: np.ndarray, answer: str, found: list[str], prompt: list[str], reference: list[str]
    ) -> tuple[int, tuple[int, int], int] | None:
        best, start = (0, 0), 0
        while start < len(owner):
            end = start
            while end < len(owner) and owner[end] >= 0:
                end += 1
            best = max(best, (end - start, -start))
            start = end + 1
        if not best[0]:
            return None
        start, length = -best[1], best[0] + GRAM - 1
        part = found[start : start + length]
        need = max(GRAM_UNSPACED if unspaced("".join(part)) else GRAM, SHARE * len(found))
        core = part[: min(length, GRAM)]
        if length < need or contains(reference, core) or contains(prompt, core):
            return None
        places = spans(answer)
        return length, (places[start][0], places[start + length - 1][1]), int(owner[start])


def _hashes(ids: np.ndarray) -> np.ndarray:
    """A hash of each run of GRAM ids: a polynomial modulo 2^64 of mixed ids."""
    mixed = (ids + np.uint64(1)) * _PRIME
    mixed ^= mixed >> np.uint64(29)
    total = np.zeros(len(ids) - GRAM + 1, np.uint64)
    for place in range(GRAM):
        total = total * np.uint64(0x100000001B3) + mixed[place : place + len(total)]
    return total
