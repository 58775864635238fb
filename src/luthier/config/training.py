"""Settings of training and of the losses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.config.section import Section


class TrainConfig(Section):
    epochs: float = Field(1.0, gt=0, description="Passes over the data.")
    steps: int | None = Field(None, ge=1, description="Optimizer steps; overrides epochs.")
    batch: int = Field(16, ge=1, description="Examples per optimizer step.")
    tokens: int | None = Field(
        None,
        ge=32,
        description="Tokens per forward pass; lower it to save memory. Results change only by rounding. By default 1024 "
        "on a CPU, up to 8192 on a GPU.",
    )
    lr: float | None = Field(
        None, gt=0, description="Peak learning rate; by default chosen from the tune kind and model width."
    )
    schedule: Literal["constant", "linear", "cosine"] | None = Field(
        None, description="Learning rate after warm-up; by default constant for ppo and grpo, cosine for the others."
    )
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps that warm up.")
    optimizer: Literal["adamw", "adamw8bit"] = Field("adamw", description="AdamW, or AdamW with 8-bit state.")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the first moment.")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW: decay of the second moment.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of matrices.")
    clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    weigh: Literal["token", "example"] = Field(
        "token", description="Every trained token counts the same, or every example does."
    )
    router_loss: float = Field(
        0.0, ge=0, description="Weight of the load-balancing loss of a mixture of experts; with adapters the router itself "
        "does not learn, and the loss acts only through the layers below it."
    )  # fmt: skip
    recompute: Literal["auto", "none", "blocks"] = Field(
        "auto",
        description="Keep activations, or only the input of each block and recompute the rest for the gradient: a third more "
        "computation, a fraction of the memory, the same gradients. auto does so if the run would not fit otherwise.",
    )
    offload: Literal["none", "optimizer"] = Field(
        "none",
        description="On a GPU, what is kept in CPU memory: the optimizer's moments and float32 copies, which are updated there.",
    )
    checkpoint: int = Field(50, ge=1, description="Steps between checkpoints.")
    checkpoint_minutes: float = Field(
        3.0, ge=0, description="Longest time between checkpoints in minutes; 0 counts only steps."
    )
    keep: int = Field(2, ge=1, description="Checkpoints kept.")


class PreferenceConfig(Section):
    beta: float | None = Field(
        None,
        gt=0,
        description="Strength of the preference; by default 0.1, for simpo 2. In orpo, its weight in the loss.",
    )
    loss: Literal["sigmoid", "ipo", "hinge", "robust"] = Field("sigmoid", description="Loss of dpo and response.")
    smoothing: float = Field(0.0, ge=0, lt=0.5, description="Share of the labels believed to be wrong (dpo, simpo).")
    likelihood: float | None = Field(
        None, ge=0, description="Weight of the better answers' likelihood; by default 0, for orpo and response 1."
    )
    target_margin: float = Field(1.0, ge=0, description="simpo: margin by which the better answer should win.")
    span: Literal["completion", "all"] = Field(
        "completion", description="orpo: learn the likelihood of the answer, or of prompt and answer."
    )
    desirable: float = Field(1.0, ge=0, description="kto: weight of wanted answers.")
    undesirable: float = Field(1.0, ge=0, description="kto: weight of unwanted answers.")


class RankingConfig(Section):
    loss: Literal["pairs", "plackett-luce"] = Field(
        "pairs", description="All pairs of a prompt's answers, or their order as a whole."
    )
    center: float = Field(0.0, ge=0, description="Weight of a term that keeps the scores of each pair around 0.")
    gather: bool | None = Field(
        None,
        description="Pairs of the same prompt become one example, each answer computed once; on by default for reward.",
    )
