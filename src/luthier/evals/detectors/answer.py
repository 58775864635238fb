"""An answer as detectors see it, and what they say of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """An answer to a prompt. `reference` is the expected answer, "" where there is none.

    row      the data-set row
    ended    by 'stop' or 'length' (as generate/generate.py says it); "" where that is not known, as for rows of data
    logps    log p of each token of the answer; empty where that is not known
    """

    prompt: str
    answer: str
    reference: str = ""
    row: int = 0
    ended: str = ""
    logps: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: which category, why in a few words, and where in the answer (characters)."""

    category: str
    why: str
    span: tuple[int, int] | None = None
