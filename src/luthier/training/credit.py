"""Credit assignment: the columns `advantage`, `return` and `old_value` of the answers of a rollout.

Rewards are one number for each answer, of each prompt; `log_ratios` is log pi - log pi_ref of every token of an answer, as far
as the divergence is taken from the reward, and None where it is not. Numbers only, no models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from luthier.config.rewards import PolicyConfig
from luthier.methods.advantages import (
    Numbers,
    explained_variance,
    gae,
    group_relative,
    leave_one_out,
    returns,
    whitened,
)
from luthier.methods.variants import VARIANTS

Column = dict[str, list[list[float]]]  # by name: leaf -> one number per token
Groups = Sequence[Sequence[Numbers]]  # tree -> leaf -> one number per token


def of_groups(
    rewards: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]], log_ratios: Groups | None, kl: float,
    settings: PolicyConfig,
) -> list[Column]:  # fmt: skip
    """Advantages without a critic: an answer beside the others of its prompt, the same for all of its tokens; for
    reinforce++ what a token's answer brought from there on, beside all tokens of the rollout (Hu 2025)."""
    estimator = settings.kl_estimator or "k1"
    compared = VARIANTS[settings.variant].advantage
    if compared == "rollout":
        tokens = [_token_rewards(*tree, kl, estimator) for tree in _trees(rewards, lengths, log_ratios)]
        advantages = iter(whitened([returns(leaf, 1.0) for tree in tokens for leaf in tree]))
        return [{"advantage": [next(advantages).tolist() for _ in tree]} for tree in tokens]
    out = []
    for group, counts, leaves in _trees(rewards, lengths, log_ratios):
        if leaves is not None:
            group = [r - kl * float(_kl_estimate(d, estimator).sum()) for r, d in zip(group, leaves, strict=True)]
        values = leave_one_out(group) if compared == "others" else group_relative(group, scale=compared == "scaled")
        out.append({"advantage": [[value] * count for value, count in zip(values, counts, strict=True)]})
    return out


def of_critic(
    rewards: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]], log_ratios: Groups | None, kl: float,
    values: Groups, settings: PolicyConfig, learned: Sequence[Sequence[bool]] | None = None,
) -> tuple[list[Column], float]:  # fmt: skip
    """Advantages of every token against the critic's `values` (GAE), what the critic should have said, and the share of
    its variance that it explained. `learned` says of each answer whether it is learned from: the others count for nothing.

    Where all answers got the same reward, advantages are not scaled up: what they differ by is the critic's error.
    """
    advantages, targets = [], []
    for (group, counts, leaves), states in zip(_trees(rewards, lengths, log_ratios), values, strict=True):
        for reward, v in zip(
            _token_rewards(group, counts, leaves, kl, settings.kl_estimator or "k1"), states, strict=True
        ):
            advantages.append(gae(reward, v, settings.gamma, settings.lam))
            targets.append(advantages[-1] + v)
    by_answer = [v for tree in values for v in tree]
    is_used = [True] * len(by_answer) if learned is None else [one for group in learned for one in group]
    used = [i for i, one in enumerate(is_used) if one] or list(range(len(by_answer)))
    explained = explained_variance(
        np.concatenate([by_answer[i] for i in used]), np.concatenate([targets[i] for i in used])
    )
    if settings.whiten:
        flat = [reward for group in rewards for reward in group]
        scaled = whitened([advantages[i] for i in used], scale=len({flat[i] for i in used}) > 1)
        for i, answer in zip(used, scaled, strict=True):
            advantages[i] = answer
    at = iter(zip(advantages, targets, strict=True))
    out: list[Column] = []
    for states in values:
        pairs = [next(at) for _ in states]
        out.append(
            {
                "advantage": [advantage.tolist() for advantage, _ in pairs],
                "return": [target.tolist() for _, target in pairs],
                "old_value": [v.tolist() for v in states],
            }
        )
    return out, explained


def _trees(
    rewards: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]], log_ratios: Groups | None
) -> Iterator[tuple[Sequence[float], Sequence[int], Sequence[Numbers] | None]]:
    of: Sequence[Sequence[Numbers] | None] = log_ratios if log_ratios is not None else [None] * len(rewards)
    yield from zip(rewards, lengths, of, strict=True)


def _token_rewards(
    group: Sequence[float], counts: Sequence[int], log_ratios: Sequence[Numbers] | None, kl: float, estimator: str
) -> list[Numbers]:
    """The reward of each token: the answer's at its last one, less the divergence of each."""
    out = []
    for i, (reward, count) in enumerate(zip(group, counts, strict=True)):
        tokens = np.zeros(count)
        tokens[-1] = reward
        out.append(tokens if log_ratios is None else tokens - kl * _kl_estimate(log_ratios[i], estimator))
    return out


def _kl_estimate(log_ratio: Any, estimator: str) -> Any:
    """KL estimates from d' = log pi - log pi_ref: see `policy.divergence`."""
    if estimator == "k1":
        return log_ratio
    return 0.5 * log_ratio**2 if estimator == "k2" else np.exp(-log_ratio) + log_ratio - 1
