"""Where answers are worse than elsewhere: the rows that share a length, a file, a label or a topic.

Many slices are looked at, so some look bad by chance. The intervals are therefore at a level that all of them decide
together (Benjamini & Hochberg 1995, with the intervals of Benjamini & Yekutieli 2005): of m slices, R are `clear` when R
is the largest number for which R intervals of level 1 - 0.05 R / m leave out zero. Of the slices called clear, at most
5 % are expected to be no different from the rest; of one slice it is the usual 95 % interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from luthier.core.verdicts import SHOWN, WORSE, verdict
from luthier.diagnose.topics import length_bands, topics
from luthier.evals.stats.intervals import student, student_share
from luthier.evals.stats.shares import wilson

__all__ = ["Slice", "length_bands", "slices", "topics"]

MIN_ROWS = 10  # rows a slice needs, and the rest too
LEVEL = 0.95

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Slice:
    """The n rows whose `kind` is `value`: the mean of `bad` over them (`rate`) and over all others (`rest`).

    `difference` = rate - rest, and `low` to `high` its interval, corrected for the number of slices.
    """

    kind: str
    value: str
    n: int
    rate: float
    rest: float
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval shows: worse, or better, than chance alone explains; or no difference from the rest."""
        return verdict(self.difference, self.low, self.high, better=False)

    @property
    def clear(self) -> bool:
        """Whether it shows a difference."""
        return self.verdict in SHOWN


def slices(rows: Sequence[Mapping[str, str]], bad: Sequence[float]) -> list[Slice]:
    """Every slice of at least `MIN_ROWS` rows against the rest: those clearly worse first, then by their difference.

    `rows` name what each row is (kind -> value; "" is not known, and no slice), `bad` is 1 for a bad answer and 0 for
    a good one, or a score that is higher for worse answers.
    """
    values = np.asarray(bad, dtype=np.float64)
    members: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(rows):
        for kind, value in row.items():
            if value:
                members.setdefault((kind, value), []).append(i)
    shares = bool(np.isin(values, (0, 1)).all())
    least = 0.0 if shares or len(values) < 2 else float(values.var(ddof=1))
    pairs: dict[tuple[str, str], tuple[ShareOfRows, ShareOfRows]] = {}
    for name, inside in members.items():
        if MIN_ROWS <= len(inside) <= len(values) - MIN_ROWS:
            pairs[name] = ShareOfRows.of(values[inside], least), ShareOfRows.of(np.delete(values, inside), least)
    interval, chance = (newcombe, newcombe_chance) if shares else (welch, welch_chance)
    outside = _chosen([chance(*pair) for pair in pairs.values()])
    found = []
    for (kind, value), (inner, outer) in pairs.items():
        low, high = interval(inner, outer, outside)
        found.append(Slice(kind, value, inner.n, inner.mean, outer.mean, inner.mean - outer.mean, low, high))
    return sorted(found, key=lambda s: (s.verdict != WORSE, -s.difference, s.kind, s.value))


def _chosen(chances: Sequence[float]) -> float:
    """0.05 R / m, R the largest with so many of m chances at most that (R = 1 when there is none)."""
    bars = [(1 - LEVEL) * (place + 1) / len(chances) for place in range(len(chances))]
    clear = [bar for bar, chance in zip(bars, sorted(chances), strict=True) if chance <= bar]
    return clear[-1] if clear else (1 - LEVEL) / max(1, len(chances))


@dataclass(frozen=True, slots=True)
class ShareOfRows:
    """The values inside a slice, or those outside it."""

    mean: float
    variance: float
    n: int

    @classmethod
    def of(cls, values: Values, least: float) -> ShareOfRows:
        """With a variance of at least so much: ten equal scores do not show that a slice has no spread."""
        return cls(float(values.mean()), max(least, float(values.var(ddof=1))), len(values))


def newcombe(inner: ShareOfRows, outer: ShareOfRows, outside: float) -> tuple[float, float]:
    """The interval of the difference of two shares at level 1 - outside (Newcombe 1998, method 10), which holds for few rows and
    for shares of 0 and 1."""
    z = -NormalDist().inv_cdf(outside / 2)
    (inner_low, inner_high), (outer_low, outer_high) = (wilson(part.mean, part.n, z) for part in (inner, outer))
    difference = inner.mean - outer.mean
    down = sqrt((inner.mean - inner_low) ** 2 + (outer_high - outer.mean) ** 2)
    up = sqrt((inner_high - inner.mean) ** 2 + (outer.mean - outer_low) ** 2)
    return difference - down, difference + up


def newcombe_chance(inner: ShareOfRows, outer: ShareOfRows) -> float:
    """The p-value that belongs to it: one minus the highest level at which it leaves out zero."""
    least, most = 0.0, 1.0
    for _ in range(50):
        middle = (least + most) / 2
        low, high = newcombe(inner, outer, middle)
        least, most = (middle, most) if low <= 0 <= high else (least, middle)
    return most


def welch(inner: ShareOfRows, outer: ShareOfRows, outside: float) -> tuple[float, float]:
    """The interval of the difference of two means at level 1 - outside (Welch 1947)."""
    error, freedom = _error(inner, outer)
    reach = student(1 - outside / 2, freedom) * error
    return inner.mean - outer.mean - reach, inner.mean - outer.mean + reach


def welch_chance(inner: ShareOfRows, outer: ShareOfRows) -> float:
    """The p-value that belongs to it."""
    error, freedom = _error(inner, outer)
    return 2 * student_share(-abs(inner.mean - outer.mean) / error, freedom) if error else 1.0


def _error(inner: ShareOfRows, outer: ShareOfRows) -> tuple[float, float]:
    """The standard error of the difference, and its degrees of freedom."""
    parts = [(part.variance / part.n, part.n - 1) for part in (inner, outer)]
    total = sum(error for error, _ in parts)
    return sqrt(total), total**2 / sum(error**2 / freedom for error, freedom in parts) if total else 1.0
