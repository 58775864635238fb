"""Settings of learning from rewards: rollouts, policies, rewards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.config.section import Section


class RolloutConfig(Section):
    samples: int = Field(8, ge=1, description="Answers sampled for each prompt (ppo: 1 is usual).")
    max_new_tokens: int = Field(128, ge=1, description="Longest sampled answer in tokens.")
    temperature: float = Field(1.0, gt=0, description="1 samples from the policy itself.")
    top_p: float = Field(1.0, gt=0, le=1, description="Keep the likeliest tokens that sum to this; 1 keeps all.")
    batch: int = Field(64, ge=1, description="Answers generated at once.")


class PolicyConfig(Section):
    variant: Literal["grpo", "dr_grpo", "dapo", "rloo", "reinforce++", "gspo"] = Field(
        "grpo", description="grpo: how rewards become advantages, and tokens one mean; see docs/methods.md."
    )
    epochs: int = Field(1, ge=1, description="Passes over each rollout.")
    minibatches: int = Field(
        1, ge=1, description="Optimizer steps of each pass; a rollout has batch x minibatches prompts."
    )
    clip: float | None = Field(
        None, gt=0, description="How far the ratio to the sampling policy counts, below 1 and above: 0.2, gspo 0.0003."
    )
    clip_high: float | None = Field(
        None, gt=0, description="Above 1, when other than `clip`; by default for dapo 0.28, for gspo 0.0004."
    )
    kl: float | None = Field(None, ge=0, description="Weight of the divergence from the start; ppo 0.05, others 0.")
    kl_in: Literal["reward", "loss"] | None = Field(
        None, description="Where it counts: of the reward (ppo, rloo, reinforce++) or of the loss (the others)."
    )
    kl_estimator: Literal["k1", "k2", "k3"] | None = Field(
        None, description="k1 = -d, k2 = d^2/2, k3 = exp(d)-d-1; k1 in the reward, k3 in the loss."
    )
    kl_target: float | None = Field(
        None, gt=0, description="Nats per answer that kl is steered to while training; without it kl stays."
    )
    kl_budget: float | None = Field(
        None, gt=0, description="Nats per answer that a kept checkpoint may lie from the start; needs --eval.every."
    )
    gamma: float = Field(1.0, gt=0, le=1, description="ppo: discount from token to token.")
    lam: float = Field(
        1.0, ge=0, le=1, description="ppo: lambda of the advantage estimate (GAE); below 1 early tokens of an answer learn less "
        "of a reward at its end."
    )  # fmt: skip
    normalize: bool = Field(
        True, description="ppo: rewards less their mean over their deviation, both of all rollouts so far, before the "
        "divergence is taken from them."
    )  # fmt: skip
    whiten: bool = Field(True, description="ppo: scale the advantages of a rollout to mean 0 and deviation 1.")
    value_clip: float = Field(0.2, gt=0, description="ppo: how far a value may move from its old one.")
    value_weight: float = Field(0.1, ge=0, description="ppo: weight of the value loss.")
    critic_lr: float = Field(1.0, gt=0, description="ppo: learning rate of the critic over the policy's.")
    pretrain: tuple[str, ...] = Field(
        (), description="ppo: file of general text whose likelihood is kept up; again for more."
    )
    pretrain_weight: float = Field(1.0, ge=0, description="ppo: weight of that likelihood.")


class RewardConfig(Section):
    use: tuple[str, ...] = Field(
        (), description="Rewards, summed: exact, regex:PATTERN, python:FILE:FUNCTION, ..., as in docs/rewards.md; "
        "a weight may stand in front, such as 2*exact."
    )  # fmt: skip
    judge: tuple[str, ...] = Field(
        (), description="ppo, grpo: rewards that held-out answers are measured by and nothing is learned from."
    )
    truncated: str = Field(
        "keep", pattern=r"^(keep|zero|mask|-\d+(\.\d+)?)$", description="ppo, grpo: what an answer is given that was cut at "
        "`rollout.max_new_tokens`: keep its reward, zero, a number such as -1; mask learns nothing from it."
    )  # fmt: skip
    timeout: float = Field(60.0, gt=0, description="Seconds that a python reward may take for one batch of answers.")
    memory: int = Field(4096, ge=64, description="Memory that the process of a python reward may take, in MiB.")
