"""Ratings of models from duels, on the Elo scale.

    P(i beats j) = 1 / (1 + 10^((R_j - R_i) / 400))

A tie is half a win and half a loss, as on Chatbot Arena, so R_i - R_j says what share of the points i takes from j.
Ratings maximise the likelihood of all duels together (Bradley and Terry 1952), under a prior that each rating is
Normal(mean, 4000), which holds what hardly ever loses in sight and moves the others by less than a point. Their mean
is 1000, not counting models that took every point or none; or one model's rating is given.

Intervals are the percentiles of ratings fitted again to prompts drawn with replacement, each with all its duels:
the duels of one prompt are not independent. A model that took every point, or none, has an interval with one end
(see `bradley_terry.hold`).

With length control, log-odds get the term c x, x = (L_i - L_j) / (L_i + L_j) of the answers' characters over its
standard deviation (as Dubois et al. 2024, "Length-Controlled AlpacaEval", do with a term of their own): the ratings
are then those of answers of equal length, and c, in points, is what one standard deviation more of length wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.core.errors import InputError, nearest
from luthier.core.seeds import generator
from luthier.evals.judging.judgments import Duel
from luthier.evals.stats.bradley_terry import SCALE, Arena, Array, Indices, arena, fit, hold, resampled
from luthier.evals.stats.intervals import fewest, tail

MEAN = 1000.0


@dataclass(frozen=True)
class Anchor:
    """The model whose rating is given."""

    model: str
    rating: float


@dataclass(frozen=True)
class Rating:
    """A model's rating with its 95 % interval: None where an end is not known, both with fewer than six prompts and where
    every duel was a tie.

    `rank` is one more than the number of models that are better beyond doubt: the interval of the difference leaves
    zero out. `score` is the share of points taken, ties half.
    """

    model: str
    rating: float
    low: float | None
    high: float | None
    rank: int
    duels: int
    score: float


@dataclass(frozen=True)
class Table:
    """Ratings, best first, and what they rest on.

    points[i, j], duels[i, j]   what model i took from model j, and of how many duels, in the order of `ratings`
    length                      with length control: (points for one standard deviation of length, low, high)
    unbounded                   who took every point from the rest, or none, in words
    """

    ratings: tuple[Rating, ...]
    points: Array
    duels: Indices
    prompts: int
    length: tuple[float, float | None, float | None] | None
    unbounded: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        names = [rating.model for rating in self.ratings]
        matrix = {
            one: {
                other: {"points": float(self.points[i, j]), "duels": int(self.duels[i, j])}
                for j, other in enumerate(names) if self.duels[i, j]
            } for i, one in enumerate(names)
        }  # fmt: skip
        return {
            "ratings": [asdict(rating) for rating in self.ratings],
            "matrix": matrix,
            "prompts": self.prompts,
            "length": dict(zip(("points", "low", "high"), self.length, strict=True)) if self.length else None,
            "unbounded": list(self.unbounded),
        }


def rate(
    duels: Sequence[Duel], *, anchor: Anchor | None = None, length: bool = False, rounds: int = 1000, seed: int = 0
) -> Table:
    """Rate the models of `duels`.

    Raises InputError when there are no duels, when some models never met the others directly or through third ones,
    and for an anchor that is not among the models.
    """
    names = sorted({name for duel in duels for name in (duel.first, duel.second)})
    if not names:
        raise InputError("no two models were compared", fix="give judgments with answers of different models")
    if anchor and anchor.model not in names:
        guess = nearest(anchor.model, names)
        fix = f"did you mean '{guess}'?" if guess else f"there are: {_listed(names)}"
        raise InputError(f"no model '{anchor.model}' among the judgments", where="--anchor", fix=fix)
    points, counts = _matrix(duels, names)
    _refuse_islands(names, counts > 0)
    arrays = arena(duels, names, length)
    whole = fit(arrays, np.ones((1, arrays.prompts)), np.zeros(len(names) + length))
    drawn = resampled(arrays, whole[0], rounds, seed)
    every, none = _lopsided(names, points, counts)
    _hold(arrays, whole, drawn, [*every, *none], seed)
    scores = [_scaled(theta, names, anchor, [*every, *none]) for theta in (whole, drawn)]
    rated = _rated(names, scores[0][0], scores[1], points, counts, arrays.prompts)
    best, worst = {names[i] for i in every}, {names[i] for i in none}
    rated = [
        replace(r, low=None if r.model in worst else r.low, high=None if r.model in best else r.high) for r in rated
    ]
    held = anchor.model if anchor else None
    rated = [replace(r, low=None, high=None) if r.model != held and _without_width(r) else r for r in rated]
    order = [names.index(rating.model) for rating in rated]
    cost = (float(whole[0, -1] * SCALE), *_bounds(drawn[:, -1] * SCALE, arrays.prompts)) if length else None
    return Table(
        tuple(rated), points[np.ix_(order, order)], counts[np.ix_(order, order)], arrays.prompts, cost,
        tuple(_unbounded(names, points)),
    )  # fmt: skip


def _without_width(rating: Rating) -> bool:
    """Nothing but ties: drawn again they show no spread, which is no certainty."""
    return rating.low is not None and rating.high is not None and rating.high - rating.low < 1e-6


def _matrix(duels: Sequence[Duel], names: Sequence[str]) -> tuple[Array, Indices]:
    """[n, n] the points that each model took from each other, and their duels."""
    place = {name: i for i, name in enumerate(names)}
    points, counts = np.zeros((len(names),) * 2), np.zeros((len(names),) * 2, dtype=np.int64)
    for duel in duels:
        i, j = place[duel.first], place[duel.second]
        points[i, j] += duel.outcome
        points[j, i] += 1 - duel.outcome
        counts[i, j] += 1
        counts[j, i] += 1
    return points, counts


def _lopsided(names: Sequence[str], points: Array, counts: Indices) -> tuple[list[int], list[int]]:
    """The models that took every point, and those that took none."""
    own, all_ = points.sum(axis=1), counts.sum(axis=1)
    return np.flatnonzero(own == all_).tolist(), np.flatnonzero(own == 0).tolist()


def _hold(arrays: Arena, whole: Array, drawn: Array, models: Sequence[int], seed: int) -> None:
    """Put models that took every point or none where `bradley_terry.hold` says."""
    shares = generator(seed, "shares").uniform(size=(len(models), len(drawn)))
    for model, share in zip(models, shares, strict=True):
        whole[:, model] = hold(arrays, whole, model, np.full(1, 0.5))
        drawn[:, model] = hold(arrays, drawn, model, share)


def _scaled(theta: Array, names: Sequence[str], anchor: Anchor | None, lopsided: Sequence[int]) -> Array:
    """[R, n] log-odds as ratings, moved to where the anchor or the mean is given."""
    if anchor:
        zero, base = [names.index(anchor.model)], anchor.rating
    else:
        zero, base = [i for i in range(len(names)) if i not in lopsided] or list(range(len(names))), MEAN
    return (theta - theta[:, zero].mean(axis=1, keepdims=True))[:, : len(names)] * SCALE + base


def _rated(
    names: Sequence[str], whole: Array, drawn: Array, points: Array, counts: Indices, prompts: int
) -> list[Rating]:
    out = []
    for i, name in enumerate(names):
        low, high = _bounds(drawn[:, i], prompts)
        gaps = np.quantile(drawn - drawn[:, i : i + 1], tail(prompts, 0.95), axis=0) if low is not None else np.zeros(1)
        duels = int(counts[i].sum())
        out.append(
            Rating(name, float(whole[i]), low, high, int((gaps > 0).sum()) + 1, duels, float(points[i].sum() / duels))
        )
    return sorted(out, key=lambda rating: -rating.rating)


def _bounds(values: Array, prompts: int) -> tuple[float, float] | tuple[None, None]:
    if prompts < fewest():
        return None, None
    out = tail(prompts, 0.95)
    low, high = np.quantile(values, [out, 1 - out])
    return float(low), float(high)


def _refuse_islands(names: Sequence[str], met: NDArray[np.bool_]) -> None:
    """Raise InputError when some models never met the others, directly or through third ones."""
    groups = _groups(names, _closure(met))
    if len(groups) > 1:
        words = " | ".join(_listed(group) for group in groups)
        raise InputError(
            f"the models fall into {len(groups)} groups that never met: {words}",
            fix="judge pairs across the groups, or rate each group separately: ratings compare what is connected",
        )


def _unbounded(names: Sequence[str], points: Array) -> list[str]:
    """Who took every point from the rest, or none, in words: how far off they are, nothing in the duels says."""
    reach = _closure(points > 0)  # i reaches j when a chain of points leads from i to j
    top: list[str] = []
    bottom: list[str] = []
    for group in _groups(names, reach & reach.T):
        inside = np.array([name in group for name in names])
        if inside.all():
            return []
        if not points[np.ix_(~inside, inside)].any():
            top += group
        if not points[np.ix_(inside, ~inside)].any():
            bottom += group
    out = []
    if 2 * len(top) <= len(names) and top:
        out.append(f"took every point from the rest, so how far above it is not known: {_listed(top)}")
    if 2 * len(bottom) <= len(names) and bottom:
        out.append(f"took no point from the rest, so how far below it is not known: {_listed(bottom)}")
    return out


def _closure(matrix: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Who reaches whom, oneself included (Warshall)."""
    reach = matrix | np.eye(len(matrix), dtype=bool)
    for middle in range(len(matrix)):
        reach |= np.outer(reach[:, middle], reach[middle])
    return reach


def _groups(names: Sequence[str], together: NDArray[np.bool_]) -> list[list[str]]:
    rows = dict.fromkeys(tuple(row.tolist()) for row in together)
    return [[name for name, inside in zip(names, row, strict=True) if inside] for row in rows]


def _listed(group: Sequence[str], most: int = 6) -> str:
    more = f" and {len(group) - most} more" if len(group) > most else ""
    return ", ".join(group[:most]) + more
