"""What could hardly be learned, or was not: said before a run and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from luthier.config.run import RunConfig
from luthier.core import log

EQUAL_REWARDS = "equal_rewards"  # of a line of metrics.jsonl: the share of the prompts whose answers all got one reward
WARN_SHARE = 0.5  # of the prompts
MISLED_VARIANCE, MISLED_ROLLOUTS = -1.0, 3  # explained variance of a critic that misleads, and for how many steps
FEW_STEPS = 10  # what so many reach: docs/run.md


def warn_of_steps(config: RunConfig, steps: int) -> None:
    """Say that a run has few optimizer steps, what was measured of such runs, and what gives more; not of steps that were asked for."""
    if steps < FEW_STEPS and config.train.steps is None:
        smaller = f"--train.batch {max(1, config.train.batch // 4)}, " if config.train.batch > 1 else ""
        count = "1 optimizer step is" if steps == 1 else f"{steps} optimizer steps are"
        log.warn(
            f"{count} few: on the quickstart's task 4 reached two thirds and 8 three quarters of what 50 do; "
            f"for more, give {smaller}a larger --train.epochs, or more rows"
        )


def warn_of_rollout(metrics: Mapping[str, float], first: bool) -> None:
    """Say after the first rollout that nothing is learned from it, or that most of its answers were cut."""
    if first and metrics.get(EQUAL_REWARDS) == 1:
        log.warn(
            f"in the first rollout all answers to each prompt got the same reward: nothing is learned from it; {_reward_advice()}"
        )
    if first and (cut := 1 - metrics.get("ended", 1.0)) >= WARN_SHARE:
        log.warn(
            f"{cut:.0%} of the answers in the first rollout were cut before their end; raise "
            "--rollout.max_new_tokens, or set the reward of a cut answer with --reward.truncated"
        )


def warn_of_critic(explained: float | None, before: int) -> int:
    """For how many rollouts in a row the critic has been worse than a guess of the mean; said when they are MISLED_ROLLOUTS."""
    count = before + 1 if explained is not None and explained < MISLED_VARIANCE else 0
    if count == MISLED_ROLLOUTS:
        log.warn(
            f"the critic predicts the returns worse than their mean does (explained variance {explained:.2g} "
            f"after {MISLED_ROLLOUTS} rollouts in a row), "
            "so the advantages are mostly its errors; lower --policy.critic_lr, or use --method grpo"
        )
    return count


def equal_rewards(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The share of the prompts of a run whose answers all got one reward; None where nothing was rewarded."""
    shares = [record[EQUAL_REWARDS] for record in records if EQUAL_REWARDS in record]
    return fmean(shares) if shares else None


def warn_of_rewards(share: float | None) -> None:
    """Say how much of a run taught nothing because its answers were not told apart."""
    if share == 1:
        log.warn(f"nothing was learned: in every group all answers got the same reward; {_reward_advice()}")
    elif share is not None and share >= WARN_SHARE:
        log.warn(
            f"{share:.0%} of the groups had the same reward for all answers, and taught nothing; {_reward_advice()}"
        )


def report_judge(judged: Mapping[str, Any]) -> None:
    """Say whether the judge saw the reward's rise too; a warning where it did not."""
    if judged["confirmed"] is False:
        fix = "see in samples.jsonl what the reward pays for and fix it, raise --policy.kl, or give --policy.kl_budget N --eval.every M"
        log.warn(f"{judged['sentence']}; {fix}")
    else:
        log.note(judged["sentence"])


def _reward_advice() -> str:
    return "look at answers with `luthier sample`, and use a reward that tells them apart, other prompts, or more --rollout.samples"
