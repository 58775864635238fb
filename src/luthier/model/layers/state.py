"""Layers with a state beside attention: gated delta nets, Mamba, short convolutions.

    state[i], out[i] = layer(state[i - 1], hidden[i])      i - 1: the token before i on its path

What such a layer makes of a token depends on the state that all tokens before it left, so the state branches where the tree does:
a child begins with the state at its parent's end. `carry` has these layers hand their input to the object passed as `tree=`, as
attention hands it q, k and v; that object runs the layer's own code on sequences, of which it knows the beginnings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from types import MethodType
from typing import Any, Protocol

import torch
from torch import nn

from luthier.model.layers.decoder import decoder

Layer = Callable[
    ..., torch.Tensor
]  # [S, L, H] -> [S, L, H]: S sequences, each from an empty state on; or with `cache=` from that one


ANY_STEP = (0.0, math.inf)  # limits of a time step that are none


class Mixer(Protocol):
    """What the model's `tree=` argument must be able to do for layers with a state (for attention see `Attender`)."""

    def mix(self, layer: int, own: Layer, hidden: torch.Tensor) -> torch.Tensor:
        """The outputs of layer number `layer`, whose code is `own`, for the packed row hidden [1, T, H]: [1, T, H]."""
        ...


def stateful(model: nn.Module) -> list[nn.Module]:
    """The layers of the decoder that have a state: those with a causal convolution of their own."""
    return [
        module
        for module in decoder(model).modules()
        if hasattr(module, "layer_idx") and any(isinstance(part, nn.Conv1d) for part in module.children())
    ]


def carry(model: nn.Module) -> int:
    """Have every layer with a state hand its input to `tree=`, in place; return how many do. Without `tree=` they are as before."""
    found = stateful(model)
    for module in found:
        module.forward = MethodType(_forward, module)
    return len(found)


def _forward(module: Any, hidden_states: torch.Tensor, *args: Any, tree: Mixer | None = None, **others: Any) -> Any:
    own = partial(_own, module)
    if tree is None:
        return own(hidden_states, *args, **others)
    limited = (
        tuple(getattr(module, "time_step_limit", None) or ANY_STEP) != ANY_STEP
    )  # a list, where it was read from JSON
    return tree.mix(int(module.layer_idx), partial(_limited, module, own) if limited else own, hidden_states)


def _limited(module: Any, own: Layer, hidden: torch.Tensor, cache: Any = None) -> torch.Tensor:
    """A Mamba 2 layer whose time steps are limited, of which transformers thinks for many tokens and not for a single one.

        clamp(softplus(x + bias), low, high) = softplus(clamp(x, low' - bias, high' - bias) + bias)      softplus(low') = low

    So for a single one x, the last columns of the projection, is clamped before.
    """
    if cache is None or hidden.shape[1] > 1:
        return own(hidden, cache=cache)
    width, bias = module.num_heads, module.dt_bias.detach()
    limits = torch.tensor(module.time_step_limit, dtype=torch.float64, device=bias.device)
    low, high = (limits + torch.log(-torch.expm1(-limits)))[:, None] - bias
    multiplied = getattr(module, "mup_vector", None)  # as Falcon-H1 does with what is projected
    factor = 1.0 if multiplied is None else multiplied[..., -width:].flatten()

    def clamped(_: nn.Module, __: Any, projected: torch.Tensor) -> torch.Tensor:
        steps = projected[..., -width:].clamp((low / factor).to(projected.dtype), (high / factor).to(projected.dtype))
        return torch.cat([projected[..., :-width], steps], -1)

    hook = module.in_proj.register_forward_hook(clamped)
    try:
        return own(hidden, cache=cache)
    finally:
        hook.remove()


def _own(module: Any, *args: Any, **others: Any) -> Any:
    """The layer's own code. While training, Mamba 2 hands the bare weight of its last projection to one fused kernel, which passes
    over what stands in the projection's place: an adapter, a quantized layer. So with one of these it takes its other way."""
    training = module.training
    module.training = training and isinstance(getattr(module, "out_proj", None), nn.Linear | None)
    try:
        return type(module).forward(module, *args, **others)
    finally:
        module.training = training


class Unfolding:
    """A packed row as the sequences it stands for: the paths from a root to a leaf, for layers that know no trees.

    A token that several paths share is computed in each of them, in these layers alone, and read from one: it is the same in
    all. Paths of like length run together, padded at their ends, where nothing real comes after.
    """

    def __init__(self, paths: Sequence[Sequence[int]], groups: Sequence[Sequence[int]], device: torch.device) -> None:
        """`paths` are indices of the row's tokens, `groups` says which paths run together."""
        self.rows: list[torch.Tensor] = []  # [S, L] indices of tokens; padding points at token 0
        place, offset = torch.zeros(1 + max(max(path) for path in paths), dtype=torch.int64), 0
        for members in groups:
            row = torch.zeros(len(members), max(len(paths[i]) for i in members), dtype=torch.int64)
            for r, i in enumerate(members):
                path = torch.tensor(paths[i])
                row[r, : len(path)] = path
                place[path] = offset + r * row.shape[1] + torch.arange(len(path))
            self.rows.append(row.to(device))
            offset += row.numel()
        self.place = place.to(device)

    def run(self, own: Layer, hidden: torch.Tensor) -> torch.Tensor:
        """The layer's outputs [1, T, H] for the row hidden [1, T, H]."""
        row = hidden[0]
        parts = [own(row.index_select(0, at.reshape(-1)).view(*at.shape, -1)).flatten(0, 1) for at in self.rows]
        return torch.cat(parts).index_select(0, self.place)[None]
