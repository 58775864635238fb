"""Low-rank adapters on the stacked weights of experts: each expert has an A and a B of its own.

    y_e = W_e x + s B_e A_e x        A [E, r, in], B [E, out, r]

As `lora_layer` has it, and PEFT's `target_parameters`; nothing of the size of the stack is made.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from luthier.config.model import LoraConfig
from luthier.core.errors import InputError
from luthier.model.adapt.lora_layer import Adapter, drawn, quantized_already, singular_vectors
from luthier.model.adapt.stacks import Stack, StackModule
from luthier.model.layers.experts import Rows, expert_product


class LoraStack(Adapter):
    """A frozen stack with an adapter on each expert."""

    base: StackModule

    def __init__(self, base: StackModule, config: LoraConfig) -> None:
        super().__init__(base, config)
        if config.dora:
            raise InputError(
                "DoRA is not available for the stacked weights of experts", where="--lora.dora",
                fix="leave it out, or name other layers with --lora.targets",
            )  # fmt: skip
        count, rows, columns = base.shape
        inside, outside = (rows, columns) if base.transposed else (columns, rows)
        rank = config.expert_rank or config.rank
        like = torch.empty(0, dtype=base.dtype, device=base.device)
        self.A = nn.Parameter(drawn(count * rank, inside, like).view(count, rank, inside))
        self.B = nn.Parameter(torch.zeros(count, outside, rank, dtype=self.A.dtype, device=base.device))
        if config.init == "pissa":
            self._start_at_singular_vectors()

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def plain(self) -> bool:
        return False

    def product(self, x: torch.Tensor, rows: Rows) -> torch.Tensor:
        """x [S, in] of these rows -> [S, out]."""
        out = self.base.product(x, rows)
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        low = expert_product(x, self.A, rows.ends) * self.scale
        return out + expert_product(low, self.B, rows.ends)

    def added(self, expert: int) -> torch.Tensor:
        """s B_e A_e as it lies in the stack."""
        low = self.scale * (self.B[expert] @ self.A[expert])
        return low.T if self.base.transposed else low

    @torch.no_grad()
    def _start_at_singular_vectors(self) -> None:
        """PiSSA, expert by expert."""
        if not isinstance(self.base, Stack):
            raise quantized_already()
        for expert, weight in enumerate(self.base.weight):
            dense = weight.T if self.base.transposed else weight
            singular_vectors(dense.to(self.A.dtype), self.A[expert], self.B[expert], self.scale)
            weight.sub_(self.added(expert).to(weight.dtype))
        self.start = (self.A.clone(), self.B.clone())

    def export(self) -> dict[str, torch.Tensor]:
        """The adapter against the original base in PEFT's shapes: A [E r, in] with the experts outside, B [out, r E] with the
        experts inside."""
        a, b = self.A.detach(), self.B.detach()
        if self.start is not None:
            a0, b0 = self.start
            a, b = torch.cat([a, a0], dim=1), torch.cat([b, -b0], dim=2)
        return {"lora_A.weight": a.flatten(0, 1), "lora_B.weight": b.permute(1, 2, 0).flatten(1)}

    @torch.no_grad()
    def replaced(self) -> Stack:
        out = torch.empty(self.base.shape, dtype=self.base.dtype, device=self.base.device)
        for expert in range(len(out)):
            out[expert] = self.base.dense(expert, self.A.dtype) + self.added(expert)
        return Stack(nn.Parameter(out, requires_grad=False), self.base.transposed)
