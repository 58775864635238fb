"""What the best of several answers is worth, and which answers teach: on the totals of one prompt's answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import comb


def sizes(n: int) -> tuple[int, ...]:
    """1, 2, 4, ... below n, and n."""
    return tuple(2**i for i in range(n.bit_length()) if 2**i < n) + (n,)


def expected_best(totals: Sequence[float], k: int) -> float:
    """E[the largest of k answers], estimated from n >= k answers of the same prompt.

    The mean over all subsets of size k, which is unbiased: sum_i C(i-1, k-1) / C(n, k) x_(i), with x_(i) the i-th
    smallest. k = 1 is the mean, k = n the largest. The estimator of pass@k (Chen et al. 2021, "Evaluating Large
    Language Models Trained on Code", section 2.1), for any reward instead of passing or not.
    """
    return sum(weight * x for weight, x in zip(_weights(len(totals), k), sorted(totals), strict=True))


@cache
def _weights(n: int, k: int) -> tuple[float, ...]:
    return tuple(comb(i, k - 1) / comb(n, k) for i in range(n))


def best(totals: Sequence[float], ended: Sequence[bool]) -> int:
    """The index of the largest; of several, the first that ended by itself, else the first."""
    return max(range(len(totals)), key=lambda i: (totals[i], ended[i]))


def worst(totals: Sequence[float]) -> int:
    """The index of the smallest; of several, the first."""
    return min(range(len(totals)), key=lambda i: totals[i])


def ranks(totals: Sequence[float]) -> tuple[int, ...]:
    """The rank of each: 1 for the largest, equal ranks for equal totals, no rank left out."""
    place = {value: rank for rank, value in enumerate(sorted(set(totals), reverse=True), 1)}
    return tuple(place[value] for value in totals)
