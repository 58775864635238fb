"""Several adapters on one base in one pass: every token goes through the adapter of its own request.

    y_t = W x_t + s B A x_t      s, B and A of the adapter of token t; with DoRA the sum times m / |W + s B A| of that adapter

The base is multiplied once for all tokens, and so are the adapters: their A stand below each other, their B beside each other, and
between the two products a token's columns of all adapters but its own are set to zero. Nothing is merged, and the adapters of other
tokens change no bit of a token's own result. An adapter more costs about what one costs.

Shape legend: T tokens of a pass, K adapters and 'as the model stands', R the sum of their ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from luthier.core.errors import InputError
from luthier.model.adapt import vocabulary_weights
from luthier.model.adapt.lora import adapters, base_of, set_layer
from luthier.model.adapt.lora_layer import LoraLinear
from luthier.model.adapt.lora_stack import LoraStack
from luthier.model.adapt.roles import Role
from luthier.model.adapt.stacks import StackModule
from luthier.model.layers.experts import Rows, expert_product


class TokenAdapters:
    """Which adapter each token of the pass at hand has: 0 is the model as it stands, i the set i - 1 of those given to `mixed`."""

    def __init__(self, own: bool) -> None:
        self._own = own
        self.which: torch.Tensor | None = None  # [T]; None where no token has any

    def assign(self, which: Sequence[int], device: torch.device) -> None:
        """Of every token of the next pass."""
        self.which = torch.tensor(which, device=device) if self._own or any(which) else None


class MixedLinear(nn.Module):
    """A frozen linear layer with several adapters, of which each token has one or none. Without gradient and dropout."""

    def __init__(self, base: nn.Module, layers: Sequence[LoraLinear | None], tokens: TokenAdapters) -> None:
        super().__init__()
        self.base, self._tokens = base, tokens
        present = [layer for layer in layers if layer is not None]
        dtype, device = present[0].dtype, present[0].A.device
        self._down = torch.cat([layer.A for layer in present]).to(dtype)  # [R, in]
        self._up = torch.cat([layer.B for layer in present], dim=1).to(dtype)  # [out, R]
        self._scale = torch.zeros(len(layers), len(self._down), dtype=dtype, device=device)  # [K, R]
        self._gain: torch.Tensor | None = None  # [K, out], less 1: what has none is left to the bit as it is
        if any(layer.magnitude is not None for layer in present):
            self._gain = torch.zeros(len(layers), len(self._up), dtype=dtype, device=device)
        first = 0
        for index, layer in enumerate(layers):
            if layer is None:
                continue
            self._scale[index, first : (first := first + len(layer.A))] = layer.scale
            if self._gain is not None and layer.magnitude is not None:
                self._gain[index] = layer.gain() - 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., in] of T tokens -> [..., out]"""
        out: torch.Tensor = self.base(x)
        which = self._tokens.which
        if which is None:
            return out
        low = (x.reshape(-1, x.shape[-1]) @ self._down.T).mul_(self._scale[which])
        y = out.view(-1, out.shape[-1]).addmm_(low, self._up.T)
        if self._gain is not None:
            bias = getattr(self.base, "bias", None)
            y = y.addcmul(y if bias is None else y - bias, self._gain[which])
        return y.view_as(out)


class MixedStack(nn.Module):
    """A frozen stack of experts with several adapters, of which each token has one or none. Without gradient and dropout."""

    def __init__(self, base: StackModule, layers: Sequence[LoraStack | None], tokens: TokenAdapters) -> None:
        super().__init__()
        self.base, self._tokens = base, tokens
        present = [layer for layer in layers if layer is not None]
        self._down = torch.cat([layer.A for layer in present], dim=1).to(base.dtype)  # [E, R, in]
        self._up = torch.cat([layer.B for layer in present], dim=2).to(base.dtype)  # [E, out, R]
        self._scale = torch.zeros(len(layers), self._down.shape[1], dtype=base.dtype, device=base.device)  # [K, R]
        first = 0
        for index, layer in enumerate(layers):
            if layer is not None:
                self._scale[index, first : (first := first + layer.A.shape[1])] = layer.scale

    def product(self, x: torch.Tensor, rows: Rows) -> torch.Tensor:
        """x [S, in] of these rows -> [S, out]."""
        out = self.base.product(x, rows)
        if self._tokens.which is None:
            return out
        low = expert_product(x, self._down, rows.ends) * self._scale[self._tokens.which[rows.tokens]]
        return out + expert_product(low, self._up, rows.ends)


def _mixed(base: nn.Module, layers: Sequence[Any], tokens: TokenAdapters) -> nn.Module:
    return MixedStack(base, layers, tokens) if isinstance(base, StackModule) else MixedLinear(base, layers, tokens)


@contextmanager
@torch.no_grad()
def mixed(model: nn.Module, sets: Sequence[Role]) -> Iterator[TokenAdapters]:
    """`model` for the block with `sets` of adapters beside its own, each token with the one that is assigned to it. Their heads
    take no part."""
    if any(one.vocabulary for one in sets) or (sets and vocabulary_weights.own(model) is not None):
        what = "an adapter that brings an embedding or a head of its own cannot share a pass with others"
        raise InputError(what, where="adapters", fix="merge it, or use each on its own")
    own = dict(adapters(model))
    names = dict.fromkeys([*own, *(name for one in sets for name in one.layers)])
    tokens = TokenAdapters(bool(own))
    before = {name: own[name] if name in own else base_of(model, name) for name in names}
    try:
        for name in names:
            layers = [own.get(name), *(one.layers.get(name) for one in sets)]
            set_layer(model, name, _mixed(base_of(model, name), layers, tokens))
        yield tokens
    finally:
        for name, module in before.items():
            set_layer(model, name, module)
