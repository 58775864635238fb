"""What is wrong with an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: which category, why in a few words, and where in the answer (characters)."""

    category: str
    why: str
    span: tuple[int, int] | None = None
