"""Settings of adapters and of quantized bases."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from luthier.config.section import Section


class LoraConfig(Section):
    rank: int = Field(16, ge=1, description="Rank of the adapters.")
    expert_rank: int | None = Field(
        None, ge=1, description="Rank of the adapters on each expert of a mixture; by default rank divided by the experts per "
        "token, at least 1."
    )  # fmt: skip
    alpha: float = Field(32.0, gt=0, description="Scale: the adapter adds alpha/rank * B A x.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before A.")
    targets: tuple[str, ...] = Field(
        ("all-linear",), description="Names of modules, globs or regular expressions that get an adapter."
    )
    modules_to_save: tuple[Literal["embed_tokens", "lm_head"], ...] = Field(
        (),
        description="What learns in full beside the adapters: embed_tokens, lm_head; if they are tied, either means both.",
    )
    rslora: bool = Field(False, description="Scale by alpha/sqrt(rank) (rsLoRA).")
    dora: bool = Field(False, description="Learn each output's magnitude separately from its direction (DoRA).")
    init: Literal["default", "pissa"] = Field(
        "default", description="Start of A and B: random and zero, or the largest singular vectors (PiSSA)."
    )
    lr_ratio: float = Field(1.0, gt=0, description="Learning rate of B, as a multiple of A's (LoRA+).")


class QuantConfig(Section):
    kind: Literal["nf4", "int8"] = Field(
        "nf4", description="4-bit NormalFloat or 8-bit affine, for the frozen base of qlora."
    )
    block: int = Field(64, ge=16, multiple_of=2, description="Weights that share one scale.")
    double: bool = Field(True, description="Quantize the NF4 scales too (double quantization).")
