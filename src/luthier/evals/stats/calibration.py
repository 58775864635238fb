"""What a reward model's scores are worth beside their accuracy: are its chances right, does it just like length?"""

from __future__ import annotations

import math
from collections.abc import Sequence

BINS = 10


def expected_calibration_error(differences: Sequence[float], bins: int = BINS) -> float:
    """ECE = sum over bins of (share of pairs) |share won - mean chance|, for d = score(better) - score(worse) of each
    pair (Guo et al. 2017).

    The chance of the answer with the higher score is 1 / (1 + exp(-|d|)), from 0.5 to 1, cut into `bins` equal
    parts; it won when d > 0, half when d = 0. 0 is perfect.
    """
    chance: list[float] = [0.0] * bins
    won: list[float] = [0.0] * bins
    for d in differences:
        p = 1 / (1 + math.exp(-min(abs(d), 700.0)))
        place = min(bins - 1, int((p - 0.5) * 2 * bins))
        chance[place] += p
        won[place] += 0.5 if d == 0 else float(d > 0)
    return sum(abs(w - c) for w, c in zip(won, chance, strict=True)) / max(1, len(differences))


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's r of two equally long columns; None where one does not vary."""
    count = len(first)
    mean_a, mean_b = (sum(values) / max(1, count) for values in (first, second))
    a, b = [x - mean_a for x in first], [y - mean_b for y in second]
    scale = math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / scale if scale else None
