"""Weights laid out for the processor while nothing learns: what makes generation on a CPU quicker.

A product of few rows, x W^T with x [B, in], spends much of its time bringing W into the order the processor
reads it in. For the length of a `with` block linear layers keep their weights in that order (oneDNN's blocked
layout). Adapters are added in where that rounds nothing, in float32, and stay beside the weight in bfloat16; quantized layers,
and DoRA in bfloat16, stay as they are. The copy costs as much memory as the weights; where that is not free, nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from luthier.model import memory
from luthier.model.adapt.lora_layer import LoraLinear

ROWS = 64  # the layout is chosen for products of about so many rows
SMALLEST = 1 << 16  # weights with fewer numbers lie in cache in any order
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of the largest value

Layer = tuple[Any, torch.Tensor, torch.Tensor | None, LoraLinear | None]


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Pack the linear layers of `model` for the block; without effect where it would not help or is under way."""
    layers = [] if _unfit(model) else list(_layers(model))
    size = sum(weight.numel() * weight.element_size() for _, weight, _, _ in layers)
    if size * 2 > memory.available(torch.device("cpu")):
        layers = []
    try:
        for module, weight, bias, adapter in layers:
            module.forward = _forward(reorder(weight), bias, adapter)
        yield
    finally:
        for module, *_ in layers:
            del module.forward


def _unfit(model: nn.Module) -> bool:
    weight = next(model.parameters())
    under_way = any("forward" in vars(m) for m in model.modules() if isinstance(m, (nn.Linear, LoraLinear)))
    return weight.device.type != "cpu" or weight.dtype not in TOLERANCE or under_way or not works(weight.dtype)


def _layers(model: nn.Module) -> Iterator[Layer]:
    """(module, its weight [out, in], bias, the adapter that stays beside it) of every layer worth packing."""
    adapted = {id(m.base) for m in model.modules() if isinstance(m, LoraLinear)}
    for module in model.modules():
        if isinstance(module, LoraLinear) and type(module.base) is nn.Linear:
            if module.dtype == module.A.dtype:
                yield module, module.merged().detach(), module.base.bias, None
            elif module.plain:
                yield module, module.base.weight.detach(), module.base.bias, module
        elif type(module) is nn.Linear and id(module) not in adapted and module.weight.numel() >= SMALLEST:
            yield module, module.weight.detach(), module.bias, None


def reorder(weight: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)
    return out


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _forward(weight: torch.Tensor, bias: torch.Tensor | None, adapter: LoraLinear | None) -> Any:
    def forward(x: torch.Tensor) -> torch.Tensor:
        out = product(x, weight, bias)
        return out if adapter is None else adapter.add_low(out, x)

    return forward


def works(dtype: torch.dtype) -> bool:
    """Whether this torch and processor have the products, and they are right: they are not part of torch's public interface."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.linspace(-1, 1, 3 * 64).view(3, 64), torch.linspace(-1, 1, 96 * 64).sin().view(96, 64)
    try:
        got = product(x.to(dtype), reorder(weight.to(dtype)), None)
    except (AttributeError, RuntimeError):
        return False
    wanted = x @ weight.T
    return float((got.float() - wanted).abs().max()) <= TOLERANCE[dtype] * float(wanted.abs().max())
