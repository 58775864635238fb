"""Weighted mixing of sources as a function of the position: the cursor is one number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from luthier.core.seeds import derive, generator

T = TypeVar("T")


def turns(weights: Sequence[float], seed: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """(source, how many turns that source had before), from position `start` on, without end.

    Source s takes its k-th turn (from 1) at time (k - u_s) / w_s, with w_s its share of the weights and u_s in [0, 1)
    drawn from the seed; turns follow each other in time. So every source has its share in every stretch to
    within one turn, and no random choice has to be replayed to begin in the middle. Exact fractions keep
    two turns at one time in the same order wherever one begins.
    """
    parts = [Fraction(weight).limit_denominator(1_000_000) for weight in weights]
    shares = [part / sum(parts) for part in parts]
    lead = [Fraction(derive(seed, "mix", s) % (1 << 20), 1 << 20) for s in range(len(shares))]
    # At time t the sources have had between t - S and t + S turns: step on from a time that is too early.
    time = max(0, start - len(shares))
    had = [int(share * time + offset) for share, offset in zip(shares, lead, strict=True)]
    position = sum(had)
    while True:
        source = min(
            (s for s in range(len(shares)) if shares[s]), key=lambda s: ((had[s] + 1 - lead[s]) / shares[s], s)
        )
        if position >= start:
            yield source, had[source]
        had[source] += 1
        position += 1


def mix(sources: Sequence[Sequence[T]], weights: Sequence[float], seed: int, start: int = 0) -> Iterator[T]:
    """Items of several sources in proportion to their weights, from position `start` on, without end.

    Each source is passed in a new order each time it is exhausted, every item once a pass.
    """
    for source, count in turns(weights, seed, start):
        items = sources[source]
        passes, index = divmod(count, len(items))
        yield items[_order(seed, source, passes, len(items))[index]]


def pick(sizes: Sequence[int], weights: Sequence[float], seed: int, position: int) -> tuple[int, int]:
    """(source, index in it) of the item at one position of `mix`, for sources of these sizes."""
    source, count = next(turns(weights, seed, position))
    passes, index = divmod(count, sizes[source])
    return source, int(_order(seed, source, passes, sizes[source])[index])


@lru_cache(maxsize=64)
def _order(seed: int, source: int, passes: int, size: int) -> NDArray[np.int64]:
    return generator(seed, "mix order", source, passes).permutation(size)
