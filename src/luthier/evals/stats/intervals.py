"""How sure a mean, a share or a difference is: 95 % intervals over items, computed, not drawn.

Values of the same item before and after are paired: that removes what makes one item harder than another, which is most of
the spread. What the values are decides how:

- **right or wrong** (0/1, or any two values): `shares`. None of 16 seen is "0 to 19 %", before and after alike.
- **any other numbers**: Student's t and Hall's interval, which follows the skewness g of the values,

      m - s k(t / sqrt(n))   to   m - s k(-t / sqrt(n)),   k(y) = 3/g ((1 + g (y - g / 6n))^(1/3) - 1)

  (Hall 1992, "On the removal of skewness by transformation"); the interval is what either holds. Student's alone covers 85 % of
  log-normal lengths with 16 items, Hall's alone 90 % of heavy-tailed differences; together 93 % and more of all that were tried
  from 32 items on, 92 % with fewer. `bench/coverage.py` prints the table.
- **hardly any item apart from the rest**: values from 0 to 1 vary at most as much as right and wrong ones, whose limits are
  given; of other values nothing says how large the next change is, so there is no interval: too few to tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import atan, copysign, exp, lgamma, pi, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from luthier.core.errors import RunError
from luthier.evals.stats.shares import paired_limits, score_limits, share_limits

Values = NDArray[np.float64]
Limits = tuple[float, float] | tuple[None, None]
ROUNDING = 1e-12  # of the largest value: differences below it are none
MIN_CHANGED = 6  # items that must stand apart from the most frequent value


@dataclass(frozen=True, slots=True)
class Interval:
    """Two means (or ratios) over the same n items, their difference, and the interval of the difference.

    `difference` = `after` - `before`. `low` and `high` are None when there is too little for any interval: fewer items
    than `fewest`, or hardly any that changed.
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


def difference(before: Sequence[float], after: Sequence[float], level: float = 0.95) -> Interval:
    """The paired interval of mean(after) - mean(before); item i of both is the same item.

    Raises RunError for a value that is not finite.
    """
    first, second = _array(before), _array(after)
    assert len(first) == len(second) > 0
    start, end = float(first.mean()), float(second.mean())
    low, high = _paired(first, second, level)
    return Interval(start, end, end - start, low, high, len(first))


def ratio_difference(
    before: Sequence[float], after: Sequence[float], weights: Sequence[float], level: float = 0.95
) -> Interval:
    """The paired interval of sum(after)/sum(weights) - sum(before)/sum(weights).

    For a loss per token: `before` and `after` are the summed losses of each item, `weights` its tokens. Items are what
    varies, numerator and denominator together, because the tokens of one item are not independent: the interval is that of
    the mean of r + (d_i - r w_i) n / sum(w), r the ratio of the differences d to the weights w. Raises RunError for a value
    that is not finite.
    """
    first, second, shares = _array(before), _array(after), _array(weights)
    assert len(first) == len(second) == len(shares) > 0 and bool((shares > 0).all())
    if bool((shares == shares[0]).all()):
        return difference((first / shares).tolist(), (second / shares).tolist(), level)
    total = shares.sum()
    start, end = float(first.sum() / total), float(second.sum() / total)
    changes = second - first
    few = few_changed(changes / shares)
    low, high = changed(changes / shares, False, level) if few else _mean(influence(changes, shares), level)
    return Interval(start, end, end - start, low, high, len(first))


def influence(values: Values, weights: Values) -> Values:
    """The items of a ratio as numbers of which it is the mean: r + (v_i - r w_i) n / sum(w), to first order."""
    total = weights.sum()
    ratio = values.sum() / total
    out: Values = ratio + (values - ratio * weights) * (len(values) / total)
    return out


def mean_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean and its interval. Raises RunError for a value that is not finite."""
    items = _array(values)
    assert len(items) > 0
    low, high = _mean(items, level) if _of_few(items) is None else (None, None)
    return Estimate(float(items.mean()), low, high, len(items))


def ratio_interval(values: Sequence[float], weights: Sequence[float], level: float = 0.95) -> Estimate:
    """sum(values)/sum(weights) and its interval, items being what varies, as in `ratio_difference`.

    Raises RunError for a value that is not finite.
    """
    items, shares = _array(values), _array(weights)
    assert len(items) == len(shares) > 0 and bool((shares > 0).all())
    low, high = _mean(influence(items, shares), level) if _of_few(items / shares) is None else (None, None)
    return Estimate(float(items.sum() / shares.sum()), low, high, len(items))


def share_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean of values from 0 to 1 and its interval: of right and wrong ones, of wins, losses and ties (1/2), or of parts.

    Raises RunError for a value that is not finite.
    """
    items = _array(values)
    n = len(items)
    assert n > 0 and items.min() >= 0 and items.max() <= 1
    value = float(items.mean())
    low: float | None
    high: float | None
    if n < fewest(level):
        return Estimate(value, None, None, n)
    if _among(items, (0.0, 1.0)):
        low, high = share_limits(int(items.sum()), n, level)
    elif _among(items, (0.0, 0.5, 1.0)):
        won, lost = int((items == 1).sum()), int((items == 0).sum())
        low, high = ((1 + end) / 2 for end in score_limits(won, lost, n, level))
    elif (usual := _of_few(items)) is not None:
        apart = items - usual
        ends = score_limits(float(apart.clip(0).sum()), float((-apart).clip(0).sum()), n, level)
        low, high = (min(1.0, max(0.0, usual + end)) for end in ends)
    else:
        low, high = _mean(items, level)
        assert low is not None and high is not None
        low, high = max(0.0, low), min(1.0, high)
    return Estimate(value, low, high, n)


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


def _among(values: Values, allowed: Sequence[float]) -> bool:
    return bool(np.isin(values, allowed).all())


def _paired(first: Values, second: Values, level: float) -> Limits:
    n = len(first)
    if n < fewest(level):
        return None, None
    both = np.concatenate([first, second])
    levels = np.array([0.0, 1.0]) if _among(both, (0.0, 1.0)) else np.unique(both)
    if len(levels) == 2:
        one, other = (side == levels[1] for side in (first, second))
        both_high, lost, gained = (int(where.sum()) for where in (one & other, one & ~other, ~one & other))
        low, high = paired_limits(both_high, lost, gained, n - both_high - lost - gained, level)
        return low * float(levels[1] - levels[0]), high * float(levels[1] - levels[0])
    return changed(second - first, bool(both.min() >= 0 and both.max() <= 1), level)


def changed(changes: Values, bounded: bool, level: float = 0.95) -> Limits:
    """The limits of the mean change; `bounded` when the values are from 0 to 1, so that no item changes by more than 1.

    Where all items change by the same c, others are taken to change by no more than that, whichever way.
    """
    n = len(changes)
    if n < fewest(level):
        return None, None
    usual = _of_few(changes)
    if usual is None:
        return _mean(changes, level)
    if not bounded:
        alike = usual != 0 and float(np.ptp(changes)) <= ROUNDING * abs(usual)
        ends = sorted(usual * end for end in score_limits(n, 0, n, level))
        return (ends[0], ends[1]) if alike else (None, None)
    return score_limits(float(changes.clip(0).sum()), float((-changes).clip(0).sum()), n, level)


def few_changed(changes: Values) -> bool:
    """Fewer than FEW items stand apart from most of them, so that their spread says little of what others may do."""
    return _of_few(changes) is not None


def _of_few(values: Values) -> float | None:
    """The value that most items share, when fewer than FEW have another one; else None."""
    scale = float(np.abs(values).max()) or 1.0
    _, first, counts = np.unique(np.round(values / scale / ROUNDING), return_index=True, return_counts=True)
    most = int(counts.max())
    return (
        float(values[first[counts.argmax()]]) if 2 * most > len(values) and len(values) - most < MIN_CHANGED else None
    )


def _mean(items: Values, level: float) -> Limits:
    """What Student's t or Hall's interval of the mean holds."""
    n = len(items)
    if n < fewest(level):
        return None, None
    mean, spread = float(items.mean()), float(items.std(ddof=1))
    if spread <= ROUNDING * float(np.abs(items).max()):
        return None, None
    reach = student((1 + level) / 2, n - 1) / sqrt(n)
    cubes = float(((items - mean) ** 3).mean()) / (spread * sqrt((n - 1) / n)) ** 3
    skewness = cubes * sqrt(n * (n - 1)) / (n - 2)

    def turned(y: float) -> float:
        if abs(skewness) < 1e-6:
            return y
        return 3 / skewness * (float(np.cbrt(1 + skewness * (y - skewness / (6 * n)))) - 1)

    return mean - spread * max(reach, turned(reach)), mean + spread * max(reach, -turned(-reach))


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
