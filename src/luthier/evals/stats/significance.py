"""Could chance alone do it? Paired tests, their correction for many, and how many items an answer takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, comb
from statistics import NormalDist

import numpy as np

from luthier.core.seeds import generator

DRAWS_AT_ONCE = 1 << 21
EXACT = 16  # so many signs and fewer are all tried: 65,536 ways


def mcnemar(before: Sequence[float], after: Sequence[float]) -> float:
    """The two-sided p-value of the exact McNemar test for paired 0/1 items.

    Of the b items that only the first got right and the c that only the second did, each is as likely to be one as
    the other if the two are equal: p = min(1, 2 P(X <= min(b, c))), X ~ Binomial(b + c, 1/2).
    """
    gained = sum(new > old for old, new in zip(before, after, strict=True))
    lost = sum(new < old for old, new in zip(before, after, strict=True))
    return sign_test(gained, lost)


def sign_test(gained: int, lost: int) -> float:
    """The two-sided p-value of so many changes one way and the other, where each is as likely; what did not change is left out."""
    n = gained + lost
    ways = sum(comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * ways / 2**n)


def sign_flip(differences: Sequence[float], seed: int = 0, rounds: int = 10_000) -> float:
    """The two-sided p-value of the paired permutation test: how often a sum of the differences with random signs is as
    far from zero as theirs.

    If the two models are equal, each item is as likely to have its values the other way round. Up to `EXACT`
    differences that are not zero, all signs are tried; else `rounds` random ones, and p = (hits + 1) / (rounds + 1).
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not len(values):
        return 1.0
    bar = abs(values.sum()) * (1 - 1e-12)  # sums that differ by rounding alone are equal
    if len(values) <= EXACT:
        signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
        return float((np.abs(signs @ values) >= bar).mean())
    random = generator(seed, "signs", len(values))
    hits = 0
    block = max(1, DRAWS_AT_ONCE // len(values))
    for start in range(0, rounds, block):
        flips = random.integers(0, 2, (min(block, rounds - start), len(values)), dtype=np.int8)
        hits += int((np.abs(values.sum() - 2 * (flips @ values)) >= bar).sum())
    return (hits + 1) / (rounds + 1)


def holm(found: Sequence[float]) -> list[float]:
    """p-values corrected for being many (Holm 1979): the k-th smallest of m times m - k + 1, none below an earlier one.

    Calling only those at most 0.05 different calls any wrongly with probability at most 0.05, however they depend.
    """
    order = sorted(range(len(found)), key=lambda i: found[i])
    out = [0.0] * len(found)
    for place, i in enumerate(order):
        out[i] = min(1.0, (len(found) - place) * found[i])
    for before, i in pairwise(order):
        out[i] = max(out[i], out[before])
    return out


def reach(tests: int = 1, power: float = 0.8, level: float = 0.95) -> float:
    """How many standard errors a true difference must be to be shown with probability `power` as one of `tests`:
    z(1 - (1 - level) / (2 tests)) + z(power); 2.80 for one test."""
    normal = NormalDist()
    return normal.inv_cdf(1 - (1 - level) / (2 * tests)) + normal.inv_cdf(power)


def items_needed(difference: float, variance: float, fixed: float = 0.0, tests: int = 1) -> int | None:
    """How many items would show a true difference of this size: n = z^2 variance / (difference^2 - z^2 fixed).

    z is `reach(tests)`, `variance` that of one item's difference, `fixed` the variance that more items do not lower:
    that of the mean over training runs. None when no number of items would.
    """
    z = reach(tests) ** 2
    left = difference**2 - z * fixed
    return max(1, ceil(z * variance / left)) if left > 0 else None


def rows_needed(difference: float, changed: float, level: float = 0.05, power: float = 0.8) -> int:
    """How many right-or-wrong items show a difference in share with the chance `power`, both models being asked all of them.

    With d the difference and p = `changed` >= d the share of the items that only one of the two gets right:
    n = (z(1 - level / 2) sqrt(p) + z(power) sqrt(p - d^2))^2 / d^2 (Connor 1987, for McNemar's test).
    """
    assert 0 < difference <= changed <= 1
    one, other = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(power)
    return ceil((one * changed**0.5 + other * (changed - difference**2) ** 0.5) ** 2 / difference**2)


def difference_shown(rows: int, changed: float, level: float = 0.05, power: float = 0.8) -> float | None:
    """The smallest difference, to a thousandth, that so many items show by `rows_needed`; None where they show none."""
    steps = (step / 1000 for step in range(1, round(1000 * changed) + 1))
    return next((d for d in steps if rows_needed(d, changed, level, power) <= rows), None)
