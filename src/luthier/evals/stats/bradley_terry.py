"""Bradley and Terry's model: the most likely strengths of models, given who beat whom.

    log-odds that i beats j = theta_i - theta_j (+ c x)

All fits of a bootstrap are made at once. Shape legend: R rounds, P prompts, U rows of duels, E edges (pairs of models
that met), n models, k = n, or n + 1 with the covariate x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from luthier.core.seeds import generator
from luthier.evals.judging.judgments import Duel

SCALE = 400 / log(10)  # points of the Elo scale for one unit of log-odds
PRIOR = (SCALE / 4000) ** 2  # one over the variance of a Normal(mean, 4000 points) prior of each strength
AT_ONCE = 1 << 22  # numbers in the largest array of a block of rounds

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Arena:
    """Duels as arrays, sorted by edge.

    first, second [U]  the models i < j of each row        outcome [U]  1, 1/2 or 0 for i
    prompt [N]         the prompt of each duel              heads [U]    where the duels of a row begin: equal ones share it
    starts [E]         where the rows of an edge begin      sides [E, n] +1 for i, -1 for j
    x [U]              the covariate, or None
    """

    first: Indices
    second: Indices
    outcome: Array
    prompt: Indices
    heads: Indices
    starts: Indices
    sides: Array
    x: Array | None

    @property
    def prompts(self) -> int:
        return int(self.prompt.max()) + 1

    def weights(self, drawn: Array) -> Array:
        """[R, U] how often each row counts when prompts are drawn `drawn` [R, P] times."""
        return np.add.reduceat(drawn[:, self.prompt], self.heads, axis=1)


def arena(duels: Sequence[Duel], names: Sequence[str], length: bool) -> Arena:
    """The duels as arrays; with `length`, x is how much longer the first answer is, (L_i - L_j) / (L_i + L_j), over
    its standard deviation."""
    place = {name: i for i, name in enumerate(names)}
    ordered = sorted(duels, key=lambda duel: (place[duel.first], place[duel.second], duel.outcome))
    found = np.array([(place[duel.first], place[duel.second]) for duel in ordered])
    outcome = np.array([duel.outcome for duel in ordered])
    prompt = np.unique([duel.prompt for duel in ordered], return_inverse=True)[1]
    if length:
        one, other = np.array([duel.lengths for duel in ordered], dtype=float).T
        x = (one - other) / np.maximum(one + other, 1)
        heads, covariate = np.arange(len(ordered)), x / (x.std() or 1.0)
    else:
        heads, covariate = np.unique(np.column_stack([found, outcome]), axis=0, return_index=True)[1], None
    first, second = found[heads].T
    starts = np.unique(first * len(names) + second, return_index=True)[1]
    sides = np.zeros((len(starts), len(names)))
    sides[np.arange(len(starts)), first[starts]] = 1
    sides[np.arange(len(starts)), second[starts]] = -1
    return Arena(first, second, outcome[heads], prompt, heads, starts, sides, covariate)


def fit(duels: Arena, drawn: Array, start: Array) -> Array:
    """[R, k] the most likely log-odds under each row of `drawn` [R, P], prompt counts; their mean over models is 0.

    Newton's method on all rounds at once. The likelihood is concave; no step is longer than 1, so that it cannot run
    away where a model hardly ever loses.
    """
    weight = duels.weights(drawn)
    theta = np.tile(start, (len(drawn), 1))
    k, n = theta.shape[1], duels.sides.shape[1]
    for _ in range(200):
        odds = theta[:, duels.first] - theta[:, duels.second]
        if duels.x is not None:
            odds += theta[:, -1:] * duels.x
        chance = 1 / (1 + np.exp(-odds))
        gradient, curve = -PRIOR * theta, np.zeros((len(drawn), k, k))
        curve[:, np.arange(k), np.arange(k)] = PRIOR
        _add(duels, weight * (duels.outcome - chance), weight * chance * (1 - chance), gradient, curve, n)
        step = np.linalg.solve(curve, gradient[..., None])[..., 0]
        step /= np.maximum(1, np.abs(step).max(axis=1, keepdims=True))
        theta += step
        if np.abs(step).max() < 1e-9:
            return theta
    raise AssertionError("Newton's method did not end")


def _add(duels: Arena, miss: Array, spread: Array, gradient: Array, curve: Array, n: int) -> None:
    """Add the duels' part of the gradient [R, k] and of the negative second derivatives [R, k, k]."""

    def by_edge(values: Array) -> Array:
        return np.add.reduceat(values, duels.starts, axis=1)

    gradient[:, :n] += by_edge(miss) @ duels.sides
    i, j = duels.first[duels.starts], duels.second[duels.starts]
    edges = by_edge(spread)
    curve[:, i, j] -= edges
    curve[:, j, i] -= edges
    curve[:, np.arange(n), np.arange(n)] += edges @ np.abs(duels.sides)
    if duels.x is not None:
        gradient[:, -1] += (miss * duels.x).sum(axis=1)
        crossed = by_edge(spread * duels.x) @ duels.sides
        curve[:, :n, -1] += crossed
        curve[:, -1, :n] += crossed
        curve[:, -1, -1] += (spread * duels.x**2).sum(axis=1)


def resampled(duels: Arena, start: Array, rounds: int, seed: int) -> Array:
    """[rounds, k] the fit to prompts drawn with replacement; in blocks that fit in memory."""
    random = generator(seed, "ratings", duels.prompts)
    block = max(1, AT_ONCE // max(len(duels.prompt), len(start) ** 2))
    chance = np.full(duels.prompts, 1 / duels.prompts)
    sizes = [min(block, rounds - begin) for begin in range(0, rounds, block)]
    return np.concatenate(
        [fit(duels, random.multinomial(duels.prompts, chance, size).astype(float), start) for size in sizes]
    )


def hold(duels: Arena, theta: Array, model: int, share: Array) -> Array:
    """[R] the strength of a model that took every point or none, which the likelihood alone puts at infinity: the one
    at which its duels all end as they did with probability `share` [R], the others' strengths `theta` [R, k] given.

    Half is the estimate that is as often too high as too low; a share drawn evenly from 0 to 1 is a draw for an
    interval, whose outer end says nothing.
    """
    own = (duels.first == model) | (duels.second == model)
    block = max(1, AT_ONCE // int(own.sum()))
    if len(theta) > block:
        parts = [slice(begin, begin + block) for begin in range(0, len(theta), block)]
        return np.concatenate([hold(duels, theta[part], model, share[part]) for part in parts])
    ahead = np.where(duels.first[own] == model, 1.0, -1.0)
    others = np.where(duels.first[own] == model, duels.second[own], duels.first[own])
    won = bool((duels.outcome[own] == (ahead > 0)).all())
    offset = -theta[:, others]
    if duels.x is not None:
        offset = offset + theta[:, -1:] * duels.x[own] * ahead
    counts = np.diff(duels.heads, append=len(duels.prompt))[own]
    low, high = np.full(len(theta), -60.0), np.full(len(theta), 60.0)
    for _ in range(60):
        middle = (low + high) / 2
        odds = middle[:, None] + offset
        likely = -(counts * np.logaddexp(0, -odds if won else odds)).sum(axis=1)  # log of the probability
        up = (likely < np.log(share)) == won
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    return (low + high) / 2
