"""Settings of learning from rewards: rollouts, policies, rewards."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from luthier.config.section import Section


class RolloutConfig(Section):
    samples: int = Field(
        8, ge=1, description="Answers sampled for each prompt; grpo needs 2 or more, ppo also takes 1."
    )
    max_new_tokens: int = Field(128, ge=1, description="Longest sampled answer in tokens.")
    temperature: float = Field(1.0, gt=0, description="1 samples from the policy itself.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Sample from the likeliest tokens whose probabilities sum to this; 1 takes all."
    )
    batch: int = Field(64, ge=1, description="Answers generated at once.")


class PolicyConfig(Section):
    variant: Literal["grpo", "dr_grpo", "dapo", "rloo", "reinforce++", "gspo"] = Field(
        "grpo", description="grpo: how rewards become advantages, and how tokens are averaged; see docs/methods.md."
    )
    epochs: int = Field(1, ge=1, description="Passes over each rollout.")
    minibatches: int = Field(
        1, ge=1, description="Optimizer steps of each pass; a rollout has batch x minibatches prompts."
    )
    clip: float | None = Field(
        None,
        gt=0,
        description="Clip the ratio to the sampling policy this far below and above 1; 0.2, for gspo 0.0003.",
    )
    clip_high: float | None = Field(
        None, gt=0, description="How far above 1, if not `clip`; by default 0.28 for dapo, 0.0004 for gspo."
    )
    kl: float | None = Field(
        None, ge=0, description="Weight of the KL divergence from the starting model; ppo 0.05, others 0."
    )
    kl_in: Literal["reward", "loss"] | None = Field(
        None,
        description="Subtract the divergence from the reward (ppo, rloo, reinforce++), or add it to the loss (the others).",
    )
    kl_estimator: Literal["k1", "k2", "k3"] | None = Field(
        None, description="k1 = -d, k2 = d^2/2, k3 = exp(d)-d-1; k1 in the reward, k3 in the loss."
    )
    kl_target: float | None = Field(
        None,
        gt=0,
        description="Divergence in nats per answer that training adjusts `kl` to reach; without it `kl` is constant.",
    )
    kl_budget: float | None = Field(
        None,
        gt=0,
        description="Largest divergence of a kept checkpoint from the starting model, in nats per answer; needs "
        "--eval.every.",
    )
    gamma: float = Field(1.0, gt=0, le=1, description="ppo: discount from token to token.")
    lam: float = Field(
        1.0, ge=0, le=1, description="ppo: lambda of the advantage estimate (GAE); below 1 early tokens of an answer learn less "
        "of a reward at its end."
    )  # fmt: skip
    normalize: bool = Field(
        True, description="ppo: standardize rewards by the mean and deviation of all rollouts so far, before the "
        "divergence is subtracted."
    )  # fmt: skip
    whiten: bool = Field(True, description="ppo: scale the advantages of a rollout to mean 0 and deviation 1.")
    value_clip: float = Field(0.2, gt=0, description="ppo: how far a value may move from its old one.")
    value_weight: float = Field(0.1, ge=0, description="ppo: weight of the value loss.")
    critic_lr: float = Field(1.0, gt=0, description="ppo: learning rate of the critic, as a multiple of the policy's.")
    pretrain: tuple[str, ...] = Field(
        (), description="ppo: file of general text whose likelihood is kept up; may be repeated."
    )
    pretrain_weight: float = Field(1.0, ge=0, description="ppo: weight of that likelihood.")


class RewardConfig(Section):
    use: tuple[str, ...] = Field(
        (), description="Rewards, summed: exact, regex:PATTERN, python:FILE:FUNCTION, ..., as in docs/rewards.md; "
        "a weight may come first, such as 2*exact."
    )  # fmt: skip
    judge: tuple[str, ...] = Field(
        (), description="ppo, grpo: rewards that only measure held-out answers; nothing is learned from them."
    )
    truncated: str = Field(
        "keep",
        description="ppo, grpo: reward of an answer that was cut at `rollout.max_new_tokens`: keep (its own), zero, or a "
        "number such as -1; mask learns nothing from it.",
    )  # fmt: skip
    timeout: float = Field(60.0, gt=0, description="Seconds that a python reward may take for one batch of answers.")
    memory: int = Field(4096, ge=64, description="Memory that the process of a python reward may take, in MiB.")

    @field_validator("truncated")
    @classmethod
    def _of_a_cut_answer(cls, value: str) -> str:
        if value not in ("keep", "zero", "mask") and not re.fullmatch(r"-\d+(\.\d+)?", value):
            raise PydanticCustomError("truncated", "should be keep, zero, mask or a number below zero such as -1")
        return value
