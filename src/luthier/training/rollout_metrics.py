"""What is told of the answers of a rollout as they were drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Protocol

Groups = Sequence[Sequence[float]]  # prompt -> one number for each of its answers


class Answer(Protocol):
    """A sampled answer: its ids, the stop token included, and how it ended."""

    @property
    def ids(self) -> tuple[int, ...]: ...
    @property
    def ended(self) -> str: ...


def draw_metrics(
    samples: Sequence[Sequence[Answer]], rewards: Groups, parts: Mapping[str, Groups]
) -> dict[str, float]:  # fmt: skip
    """What is told of all answers that were drawn, whether something is learned from them or not."""
    flat = [reward for group in rewards for reward in group]
    answers = [answer for group in samples for answer in group]
    return {
        "reward": fmean(flat), "reward_deviation": pstdev(flat),
        **{f"reward/{name}": fmean(x for group in values for x in group) for name, values in parts.items()},
        "length": fmean(len(answer.ids) for answer in answers),
        "ended": fmean(answer.ended == "stop" for answer in answers), "equal_rewards": _equal(rewards),
    }  # fmt: skip


def _equal(totals: Groups) -> float:
    """The share of the prompts whose answers all got one reward; with one answer a prompt, whether all prompts' did."""
    groups = totals if len(totals[0]) > 1 else [[x for group in totals for x in group]]
    return fmean(max(group) == min(group) for group in groups)
