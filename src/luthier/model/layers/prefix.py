"""A beginning that many batches share is computed once: its keys and values are remembered, layer by layer.

The row of a batch still holds the beginning as its first tokens, so that the plan of its attention is the usual
one; the model is only given what comes after.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from luthier.core.types.batch import Batch
from luthier.model.adapt.lora import cast_once
from luthier.model.layers.decoder import decoder
from luthier.model.layers.plan import Block, TreePlan, by_row
from luthier.model.layers.scoring import Scoring
from luthier.model.layers.state import Layer


@dataclass(frozen=True)
class Prefix:
    """The first tokens of a row, and what each layer made of them: keys and values [1, kv_heads, tokens, D]. Of a layer with a state
    its inputs [1, tokens, H], of which it is made again."""

    ids: tuple[int, ...] = ()
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)
    inputs: dict[int, torch.Tensor] = field(default_factory=dict)


def hidden_after(model: nn.Module, batch: Batch, prefix: Prefix, known: int, keep: int) -> tuple[torch.Tensor, Prefix]:
    """The last hidden states of the row's tokens from `known` on, [T - known, H], and the row's first `keep` tokens
    remembered. The first `known` tokens must be those of `prefix`, and stand before everything else in the row."""
    plan = _Plan(batch, prefix, known, keep)
    with cast_once(model):
        out = decoder(model)(
            input_ids=batch.tokens[None, known:],
            position_ids=by_row(batch.positions)[..., known:],
            use_cache=False,
            tree=plan,
        )
    hidden: torch.Tensor = out.last_hidden_state[0]
    return hidden, Prefix(tuple(batch.tokens[:keep].tolist()), plan.keys, plan.values, plan.inputs)


class _Plan(TreePlan):
    """The plan of a whole row of which the model is given only the tokens from `known` on."""

    def __init__(self, batch: Batch, prefix: Prefix, known: int, keep: int) -> None:
        super().__init__(batch, batch.tokens.device)
        self.prefix, self.known, self.keep = prefix, known, keep
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self.inputs: dict[int, torch.Tensor] = {}

    def mix(self, layer: int, own: Layer, hidden: torch.Tensor) -> torch.Tensor:
        """A layer with a state, hidden [1, T - known, H]."""
        if self.known:
            hidden = torch.cat([self.prefix.inputs[layer][:, : self.known], hidden], 1)
        if self.keep:
            self.inputs[layer] = hidden[:, : self.keep].clone()
        return super().mix(layer, own, hidden)[:, self.known :]

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scoring: Scoring) -> torch.Tensor:
        """q [1, heads, T - known, D], k and v [1, kv_heads, T - known, D] -> [1, T - known, heads, D]."""
        if self.known:
            k = torch.cat([self.prefix.keys[layer][:, :, : self.known], k], 2)
            v = torch.cat([self.prefix.values[layer][:, :, : self.known], v], 2)
            q = torch.cat([q.new_zeros(*q.shape[:2], self.known, q.shape[3]), q], 2)  # nobody reads their rows
        if self.keep:
            self.keys[layer], self.values[layer] = (x[:, :, : self.keep].clone() for x in (k, v))
        return super().attend(layer, q, k, v, scoring)[:, self.known :]

    def _blocks(self) -> list[Block]:
        """Without the queries that are known: all of them stand first in the row, in its root."""
        kept = [b._replace(first=max(b.first, b.first + self.known - b.seen[b.first])) for b in super()._blocks()]
        return [block for block in kept if block.first < block.last]
