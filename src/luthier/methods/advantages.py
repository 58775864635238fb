"""From rewards to advantages: how much better a sample, or a token, was than expected. Numbers only, no gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

EPS = 1e-4  # beside a group's standard deviation, as TRL has it
FLOOR = 1e-6  # of a running deviation, as a share of the mean: rewards that differ by less are taken as equal
Numbers = NDArray[np.float64]


def group_relative(rewards: Sequence[float], *, scale: bool) -> list[float]:
    """r - mean over the group, divided by its standard deviation (n - 1) when `scale` (GRPO); not divided for
    Dr. GRPO (Liu et al. 2025). Exactly 0 for equal rewards, whose mean may be rounded."""
    if max(rewards) == min(rewards):
        return [0.0] * len(rewards)
    mean = fmean(rewards)
    spread = stdev(rewards) + EPS if scale else 1.0
    return [(reward - mean) / spread for reward in rewards]


def leave_one_out(rewards: Sequence[float]) -> list[float]:
    """r - mean of the others of the group (RLOO, Ahmadian et al. 2024)."""
    if max(rewards) == min(rewards):
        return [0.0] * len(rewards)
    total = sum(rewards)
    return [reward - (total - reward) / (len(rewards) - 1) for reward in rewards]


@dataclass(frozen=True)
class Moments:
    """Mean and deviation of all numbers so far: `squares` is the sum of squared distances from the mean
    (Welford 1962, joined by Chan et al. 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def joined(self, numbers: Sequence[float]) -> Moments:
        """These and more numbers."""
        count, mean = len(numbers), fmean(numbers)
        total, apart = self.count + count, mean - self.mean
        squares = self.squares + sum((x - mean) ** 2 for x in numbers) + apart**2 * self.count * count / total
        return Moments(total, self.mean + apart * count / total, squares)

    @property
    def deviation(self) -> float:
        """The square root of the mean squared distance."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0

    def scaled(self, number: float) -> float:
        """(number - mean) / deviation; 0 where the numbers do not differ."""
        spread = self.deviation
        return (number - self.mean) / spread if spread > FLOOR * abs(self.mean) else 0.0


def gae(rewards: Numbers, values: Numbers, gamma: float, lam: float) -> Numbers:
    """Generalised advantage estimation (Schulman et al. 2016) over the T tokens of one answer:

    A_t = sum over l of (gamma lam)^l delta_{t+l},  delta_t = r_t + gamma v_{t+1} - v_t,  v_T = 0
    """
    out = np.zeros_like(rewards)
    ahead = 0.0
    for t in reversed(range(len(rewards))):
        following = values[t + 1] if t + 1 < len(values) else 0.0
        ahead = rewards[t] + gamma * following - values[t] + gamma * lam * ahead
        out[t] = ahead
    return out


def returns(rewards: Numbers, gamma: float) -> Numbers:
    """Discounted sum of the rewards from each token on."""
    return gae(rewards, np.zeros_like(rewards), gamma, 1.0)


def whitened(parts: Sequence[Numbers], *, scale: bool = True) -> list[Numbers]:
    """All numbers shifted to mean 0 and, where `scale`, divided by their standard deviation, together."""
    every = np.concatenate(list(parts))
    spread = every.std() + 1e-8 if scale else 1.0
    return [(part - every.mean()) / spread for part in parts]


def explained_variance(values: Numbers, target: Numbers) -> float:
    """1 - Var(target - values) / Var(target): 1 for a critic that knows, 0 for a constant, below for a worse one."""
    spread = float(target.var())
    return 1.0 - float((target - values).var()) / spread if spread else 0.0
