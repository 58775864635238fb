"""Limits of shares, and of the difference of two shares of the same items: what few items, or none, leave room for.

All are closed or solved exactly; nothing is drawn. Chosen by coverage: `bench/coverage.py` computes it, docs/compare.md has
the table.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, factorial, sqrt
from statistics import NormalDist

CORRECTION = 0.75  # of phi, in items (Newcombe: 0.5)
RARE = 3  # counts from 1 to RARE, and as near to n, get the limit of a rare event


def quantile(level: float) -> float:
    """z of a two-sided interval: 1.96 at 95 %."""
    return NormalDist().inv_cdf((1 + level) / 2)


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """The limits of a share p of n: (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n) (Wilson 1927)."""
    extra = z * z / n
    reach = z * sqrt(max(0.0, share * (1 - share)) / n + extra / (4 * n))
    return (share + extra / 2 - reach) / (1 + extra), (share + extra / 2 + reach) / (1 + extra)


def share_limits(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The limits of the share of which `count` of `n` were seen: Wilson's, and for 1 to 3, or as few from n, the lower limit is
    that of a Poisson mean, lambda / n with P(count or more | lambda) = 1 - level (Brown, Cai & DasGupta 2001).

    Wilson's lower limit of one event is above the truth too often: it covers 84 % near n p = 0.18, this one 92 % and more.
    """
    low, high = wilson(count / n, n, quantile(level))
    if count == 0 or count == n:  # exactly, whatever the rounding
        low, high = (0.0, high) if count == 0 else (low, 1.0)
    if 1 <= count <= RARE:
        low = min(low, _rare(count, 1 - level) / n)
    if 1 <= n - count <= RARE:
        high = max(high, 1 - _rare(n - count, 1 - level) / n)
    return low, high


def paired_limits(
    both: int, lost: int, gained: int, neither: int, level: float = 0.95, correction: float = CORRECTION
) -> tuple[float, float]:
    """The limits of (gained - lost) / n, the change of a share over the same n items: `both` are right before and after,
    `lost` only before, `gained` only after, `neither` never.

    Newcombe's hybrid of Wilson's limits (1998, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", method 10), with phi the correlation of the two,

        d - sqrt(a² - 2 phi a b + b²)   to   d + sqrt(c² - 2 phi c e + e²)

    a, c = what Wilson's limits of `after` leave below and above, e, b = the same of `before`. His correction of phi,
    both * neither - lost * gained less n/2 but not below 0, is 3n/4 here (`correction`): with n/2 the interval is too narrow
    where hardly any item moves (91 % for n = 32), with 3n/4 it covers 93 % and is at most 1.15 times as wide as his.
    """
    n = both + lost + gained + neither
    before, after = (both + lost) / n, (both + gained) / n
    z = quantile(level)
    (low, high), (low_after, high_after) = wilson(before, n, z), wilson(after, n, z)
    product = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    together: float = both * neither - lost * gained
    if together > 0:
        together = max(0.0, together - correction * n)
    phi = together / sqrt(product) if product else 0.0
    down, up = after - low_after, high_after - after
    against_down, against_up = high - before, before - low
    least = sqrt(max(0.0, down**2 - 2 * phi * down * against_down + against_down**2))
    most = sqrt(max(0.0, up**2 - 2 * phi * up * against_up + against_up**2))
    return after - before - least, after - before + most


def score_limits(gained: float, lost: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """The limits of (gained - lost) / n, where each of n items gains one, loses one, or does neither: those D which the score
    test does not reject (Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design"),

        |gained - lost - n D| <= z sqrt(n (2 q + D (1 - D))),   q the likeliest chance to lose under D

    Without ties (gained + lost = n) these are Wilson's limits of gained / n, on the scale from -1 to 1. Parts of an item may be
    given: of all changes with the same sums of gains and losses, each at most one, whole ones vary most.
    """
    z = quantile(level)

    def beyond(d: float) -> float:
        middle = (2 * n - gained + lost) * d - gained - lost
        q = (sqrt(max(0.0, middle**2 + 8 * n * lost * d * (1 - d))) - middle) / (4 * n)
        return abs(gained - lost - n * d) - z * sqrt(max(0.0, n * (2 * q + d * (1 - d))))

    found = (gained - lost) / n
    return _edge(beyond, -1.0, found), _edge(beyond, 1.0, found)


def _edge(beyond: Callable[[float], float], out: float, inside: float) -> float:
    """Where `beyond` turns from above zero to below, from `out` towards `inside`; `out` where nothing is rejected."""
    if beyond(out) <= 0:
        return out
    for _ in range(60):
        middle = (out + inside) / 2
        out, inside = (middle, inside) if beyond(middle) > 0 else (out, middle)
    return (out + inside) / 2


def _rare(count: int, chance: float) -> float:
    """The Poisson mean under which `count` or more has this chance."""
    low, high = 0.0, float(count) + 10
    for _ in range(60):
        middle = (low + high) / 2
        seen = 1 - exp(-middle) * sum(middle**k / factorial(k) for k in range(count))
        low, high = (middle, high) if seen < chance else (low, middle)
    return (low + high) / 2
