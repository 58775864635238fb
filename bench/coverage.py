"""How often the 95 % intervals of Luthier hold the truth, and how wide they are.

    python bench/coverage.py [--draws 4000] [--items 8,16,32,64,128,256]

Shares before and after, paired: every outcome of n items is enumerated (from 256 on, outcomes are drawn), so coverage is
exact. Shares .5, .3, .1, .05, .02, .005 before, any of these after, correlations 0, .3, .6, .9 (as near as the shares allow).
Widths are told against Newcombe's method 10. One share: exact. Means: drawn, of values and of differences. Prints the tables
of docs/compare.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import product
from math import comb, exp, lgamma, log, sqrt

import numpy as np
from numpy.typing import NDArray

from luthier.evals.stats.intervals import mean_interval
from luthier.evals.stats.shares import paired_limits, share_limits

SHARES = (0.5, 0.3, 0.1, 0.05, 0.02, 0.005)
CORRELATIONS = (0.0, 0.3, 0.6, 0.9)
EXACT = 128
NEWCOMBE = 0.5

Array = NDArray[np.float64]
MEANS: dict[str, tuple[Callable[[np.random.Generator, int], Array], float]] = {
    "normal": (lambda random, n: random.normal(size=n), 0.0),
    "uniform": (lambda random, n: random.random(n), 0.5),
    "exponential": (lambda random, n: random.exponential(size=n), 1.0),
    "log-normal, sigma 0.5": (lambda random, n: random.lognormal(0, 0.5, n), exp(0.125)),
    "log-normal, sigma 1": (lambda random, n: random.lognormal(0, 1, n), exp(0.5)),
    "half zeros, else beta(2, 3)": (lambda random, n: (random.random(n) < 0.5) * random.beta(2, 3, n), 0.2),
    "difference of log-normals": (
        lambda random, n: random.lognormal(0, 1, n) - random.lognormal(0.3, 1, n),
        exp(0.5) - exp(0.8),
    ),
    "difference, 70 % zeros": (lambda random, n: (random.random(n) < 0.3) * random.normal(0.3, 0.4, n), 0.09),
}


def joint(before: float, after: float, correlation: float) -> tuple[float, float, float, float]:
    """The chances of both, lost, gained, neither with these shares, and a correlation as near as they allow."""
    both = before * after + correlation * sqrt(before * (1 - before) * after * (1 - after))
    both = min(max(both, 0.0, before + after - 1), before, after)
    return both, before - both, after - both, max(0.0, 1 - before - after + both)


def outcomes(n: int) -> Iterator[tuple[int, int, int, int]]:
    """Every way that n items can be both, lost, gained, neither."""
    for both in range(n + 1):
        for lost in range(n + 1 - both):
            for gained in range(n + 1 - both - lost):
                yield both, lost, gained, n - both - lost - gained


def paired(n: int, seed: int, draws: int) -> list[tuple[float, float, tuple[float, float, float]]]:
    """(coverage, width over Newcombe's, (before, after, correlation)) of every cell of the grid."""
    cells = list(product(SHARES, SHARES, CORRELATIONS))
    random = np.random.default_rng(seed)
    if n <= EXACT:
        counts = np.array(list(outcomes(n)))
    else:
        drawn = {cell: random.multinomial(n, joint(*cell), draws) for cell in cells}
        counts = np.unique(np.concatenate(list(drawn.values())), axis=0)
    ours = np.array([paired_limits(*row) for row in counts.tolist()])
    his = np.array([paired_limits(*row, correction=NEWCOMBE) for row in counts.tolist()])
    place = {tuple(row): i for i, row in enumerate(counts.tolist())}
    logs = np.array([lgamma(count + 1) for count in range(n + 1)])
    ways = logs[n] - logs[counts].sum(axis=1)
    found = []
    for cell in cells:
        if n <= EXACT:
            chances = np.array(joint(*cell))
            terms = np.where(counts > 0, counts * np.log(np.maximum(chances, 1e-300)), 0.0)
            weights = np.exp(ways + terms.sum(axis=1))
        else:
            weights = np.bincount([place[tuple(row)] for row in drawn[cell].tolist()], minlength=len(counts)) / draws
        truth = cell[1] - cell[0]
        hit = (ours[:, 0] - 1e-9 <= truth) & (truth <= ours[:, 1] + 1e-9)
        wide, wide_his = (float((weights * (ends[:, 1] - ends[:, 0])).sum()) for ends in (ours, his))
        found.append((float(weights[hit].sum()), wide / wide_his, cell))
    return found


def one(n: int, share: float) -> float:
    """The exact coverage of the interval of one share."""
    total = 0.0
    for count in range(n + 1):
        low, high = share_limits(count, n)
        if low <= share <= high:
            total += exp(log(comb(n, count)) + count * log(share) + (n - count) * log(1 - share))
    return total


def mean(name: str, n: int, draws: int, seed: int) -> tuple[float, float]:
    """(coverage of the intervals that were given, share of the draws with too few items apart for one)."""
    draw, truth = MEANS[name]
    random = np.random.default_rng(seed)
    hits = given = 0
    for _ in range(draws):
        found = mean_interval(draw(random, n).tolist())
        if found.low is not None and found.high is not None:
            given += 1
            hits += found.low <= truth <= found.high
    return hits / max(1, given), 1 - given / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--items", default="8,16,32,64,128,256")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    sizes = [int(n) for n in asked.items.split(",")]
    print("Change of a share, paired:\n")
    print("| items | coverage, least | mean | width over Newcombe's, mean | most |\n|--:|--:|--:|--:|--:|")
    for n in sizes:
        found = paired(n, asked.seed, asked.draws)
        covered, wide = [cell[0] for cell in found], [cell[1] for cell in found]
        print(
            f"| {n} | {min(covered):.1%} | {sum(covered) / len(covered):.1%} "
            f"| {sum(wide) / len(wide):.2f} | {max(wide):.2f} |"
        )
    print("\nOne share:\n")
    print("| items | " + " | ".join(f"{share:g}" for share in SHARES) + " |\n|--:|" + "--:|" * len(SHARES))
    for n in sizes:
        print(f"| {n} | " + " | ".join(f"{one(n, share):.1%}" for share in SHARES) + " |")
    print("\nMeans (in brackets: too few to tell):\n")
    print("| values | " + " | ".join(str(n) for n in sizes) + " |\n|---|" + "--:|" * len(sizes))
    for name in MEANS:
        cells = [mean(name, n, asked.draws, asked.seed) for n in sizes]
        print(f"| {name} | " + " | ".join(f"{c:.1%}" + (f" ({few:.0%})" if few else "") for c, few in cells) + " |")


if __name__ == "__main__":
    main()
