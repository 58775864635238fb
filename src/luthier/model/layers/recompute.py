"""Blocks that keep only their input for the backward pass, and compute the rest again there (Chen et al. 2016, arXiv:1604.06174).

A pass then holds one hidden state a token and block, and the activations of one block, for a third more computation. What is
computed again is what was computed: the same sums in the same order, the same dropout, the adapters that the block had on in the
forward pass, whoever plays by then. So gradients are equal to the bit where the same products give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from luthier.model.layers import fuse
from luthier.model.layers.decoder import decoder

Parts = list[tuple[nn.Module, dict[str, nn.Module | None], dict[str, nn.Parameter | None]]]


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks of the decoder by name, as transformers marks what may be computed again; of nested ones the outermost."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    out: dict[str, nn.Module] = {}
    for name, module in decoder(model).named_modules():
        if isinstance(module, GradientCheckpointingLayer) and not any(name.startswith(f"{outer}.") for outer in out):
            out[name] = module
    return out


def recompute_blocks(model: nn.Module) -> int:
    """Have every block of `model` compute its activations again in the backward pass, in place; return how many do."""
    found = blocks(model)
    for block in found.values():
        fuse.keep_gates(block)
        block.forward = MethodType(_forward, block)
    return len(found)


def _forward(block: Any, *args: Any, **kwargs: Any) -> Any:
    run = partial(type(block).forward, block)
    if not torch.is_grad_enabled():
        return run(*args, **kwargs)
    parts: Parts = [(module, dict(module._modules), dict(module._parameters)) for module in block.modules()]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _with_parts(parts)

    return checkpoint(run, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextmanager
def _with_parts(parts: Parts) -> Iterator[None]:
    """For the block, each module has the parts that it had: adapters, those of experts among the parameters, are exchanged between a
    pass and its gradient, where a critic plays on the same base."""
    before: Parts = [(module, module._modules, module._parameters) for module, _, _ in parts]
    try:
        _put(parts)
        yield
    finally:
        _put(before)


def _put(parts: Parts) -> None:
    for module, children, parameters in parts:
        module._modules, module._parameters = children, parameters
