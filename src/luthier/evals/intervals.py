"""How sure a measured difference is: paired bootstrap intervals over items.

The items are drawn again with replacement `rounds` times, each with its value before and its value
after, and the interval is what the drawn means span. Pairing removes what makes one item harder than
another, which is most of the spread.

The percentile interval of few items is too narrow, so its tails are widened until it is as wide as
Student's t asks for: tail = Phi(-sqrt(n / (n-1)) t), the expanded percentile interval of Hesterberg
(2015, "What Teachers Should Know About the Bootstrap"). Simulated on six distributions of scores with
8 to 128 items, it covered the truth more often than the plain percentile (normal values, 8 items: 95.0 %
against 88.5 %) and nearly as often as Student's t or more; BCa was no better on the whole, and is not used.
It still falls short where few items carry the mean: 84 % for log-normal values and 8 items, 90 % for 64;
a rare event that none of the items shows is not seen at all. Of values from 0 to 1 that are all the same, `share_interval`
says how rare it must be (Wilson 1927).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import atan, copysign, exp, lgamma, pi, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from luthier.core.errors import RunError
from luthier.core.seeds import generator

Values = NDArray[np.float64]
DRAWS_AT_ONCE = 1 << 21


@dataclass(frozen=True, slots=True)
class Interval:
    """Two means (or ratios) over the same n items, their difference, and the interval of the difference.

    `difference` = `after` - `before`. `low` and `high` are None when there are too few items for any
    interval (see `fewest`).
    """

    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, float | int | None]:
        """The six values by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean (or ratio) over n items and its interval; `low` and `high` are None as in `Interval`."""

    value: float
    low: float | None
    high: float | None
    n: int


def difference(
    before: Sequence[float], after: Sequence[float], seed: int = 0, rounds: int = 10_000, level: float = 0.95
) -> Interval:
    """The paired interval of mean(after) - mean(before); item i of both is the same item.

    Raises RunError for a value that is not finite.
    """
    return ratio_difference(before, after, [1.0] * len(before), seed, rounds, level)


def ratio_difference(
    before: Sequence[float],
    after: Sequence[float],
    weights: Sequence[float],
    seed: int = 0,
    rounds: int = 10_000,
    level: float = 0.95,
) -> Interval:
    """The paired interval of sum(after)/sum(weights) - sum(before)/sum(weights).

    For a loss per token: `before` and `after` are the summed losses of each item, `weights` its
    tokens. Items are drawn whole, numerator and denominator together, because the tokens of one item
    are not independent. Raises RunError for a value that is not finite.
    """
    first, second, shares = _array(before), _array(after), _array(weights)
    assert len(first) == len(second) == len(shares) > 0 and bool((shares > 0).all())
    low, high = _bounds(second - first, shares, seed, rounds, level)
    total = shares.sum()
    start, end = float(first.sum() / total), float(second.sum() / total)
    return Interval(start, end, end - start, low, high, len(first))


def mean_interval(values: Sequence[float], seed: int = 0, rounds: int = 10_000, level: float = 0.95) -> Estimate:
    """The mean and its interval. Raises RunError for a value that is not finite."""
    items = _array(values)
    assert len(items) > 0
    low, high = _bounds(items, np.ones_like(items), seed, rounds, level)
    return Estimate(float(items.mean()), low, high, len(items))


def share_interval(values: Sequence[float], seed: int = 0, rounds: int = 10_000, level: float = 0.95) -> Estimate:
    """The mean of values from 0 to 1 and its interval: `mean_interval`, but where all values are the same.

    Drawn again, n equal values show no spread, yet a share u of all items may be others, with u as large as Wilson's
    limit for 0 of n; were these all 0, or all 1, the mean c would be c - u c, or c + u (1 - c). For c = 0 and c = 1
    these are Wilson's own limits: 0 right of 20 leaves room for 16 %.
    """
    found = mean_interval(values, seed, rounds, level)
    if found.low is None or min(values) < max(values):
        return found
    _, unseen = wilson(0.0, found.n, NormalDist().inv_cdf((1 + level) / 2))
    return replace(found, low=found.value * (1 - unseen), high=found.value + unseen * (1 - found.value))


def wilson(share: float, n: int, z: float) -> tuple[float, float]:
    """The limits of a share p of n: (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n) (Wilson 1927)."""
    extra = z * z / n
    reach = z * sqrt(share * (1 - share) / n + extra / (4 * n))
    return (share + extra / 2 - reach) / (1 + extra), (share + extra / 2 + reach) / (1 + extra)


def fewest(level: float = 0.95) -> int:
    """The least n with 2^(1-n) <= 1 - level: 6 at 95 %.

    With fewer items even a gain on every one of them happens by chance more often than 1 - level
    allows (two-sided sign test), so no interval that assumes no distribution can be given.
    """
    n = 1
    while 2.0 ** (1 - n) > 1 - level:
        n += 1
    return n


def _array(values: Sequence[float]) -> Values:
    array = np.asarray(values, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise RunError(f"measured {array[bad[0]]}, which is not a finite number", where=f"item {bad[0]}")
    return array


def _bounds(
    sums: Values, weights: Values, seed: int, rounds: int, level: float
) -> tuple[float, float] | tuple[None, None]:
    if len(sums) < fewest(level):
        return None, None
    drawn = _drawn(sums, weights, seed, rounds)
    out = tail(len(sums), level)
    low, high = np.quantile(drawn, [out, 1 - out])
    return float(low), float(high)


def _drawn(sums: Values, weights: Values, seed: int, rounds: int) -> Values:
    """[rounds] the ratio of sums to weights of n items drawn with replacement, in blocks that fit in memory."""
    n = len(sums)
    random = generator(seed, "bootstrap", n)
    drawn = np.empty(rounds)
    block = max(1, DRAWS_AT_ONCE // n)
    for start in range(0, rounds, block):
        picked = random.integers(0, n, (min(block, rounds - start), n))
        drawn[start : start + block] = sums[picked].sum(axis=1) / weights[picked].sum(axis=1)
    return drawn


def tail(n: float, level: float) -> float:
    """The share of drawn means of n items to leave out on each side: Phi(-sqrt(n / (n-1)) t), t with n - 1 degrees."""
    return NormalDist().cdf(-sqrt(n / (n - 1)) * student((1 + level) / 2, n - 1))


def student(p: float, freedom: float) -> float:
    """The p-quantile of Student's t, p > 1/2, for any degrees of freedom from 1 on; within 1e-6."""
    low, high = 0.0, 1.0
    while student_share(high, freedom) < p:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_share(middle, freedom) < p else (low, middle)
    return (low + high) / 2


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def student_share(t: float, freedom: float) -> float:
    """P(T <= t) of Student's t: 1/2 + integral of cos^(freedom-1) from 0 to atan(t / sqrt(freedom)), over its integral
    from -pi/2 to pi/2, sqrt(pi) Gamma(freedom/2) / Gamma((freedom+1)/2); by Gauss and Legendre's rule."""
    width = min(atan(abs(t) / sqrt(freedom)), 12 / sqrt(freedom))  # beyond it nothing is left: cos^freedom < 1e-30
    angles = width / 2 * (_NODES + 1)
    part = float(width / 2 * (_WEIGHTS * np.cos(angles) ** (freedom - 1)).sum())
    whole = exp(lgamma(freedom / 2) - lgamma((freedom + 1) / 2)) * sqrt(pi)
    return 0.5 + copysign(part / whole, t)
