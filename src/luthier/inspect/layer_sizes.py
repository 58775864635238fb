"""The arithmetic of a model's layers: how many weights each has, and how many an adapter on it adds.

W = in x out        adapter = rank x (in + out)        share = adapter / W
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn

from luthier.model.adapt import lora
from luthier.model.adapt.linear_layers import weight_of
from luthier.model.adapt.stacks import StackModule, stacks
from luthier.model.adapt.targets import everything
from luthier.model.layers.experts import taken


@dataclass(frozen=True)
class LayerSize:
    """`count` layers of one name and size, all experts of a stack counted; `rank` is 0 where no adapter is."""

    name: str
    inputs: int
    outputs: int
    count: int
    rank: int

    @property
    def weights(self) -> int:
        """Of one of them."""
        return self.inputs * self.outputs

    @property
    def adapter(self) -> int:
        """Weights of the adapter on one of them."""
        return self.rank * (self.inputs + self.outputs)

    @property
    def share(self) -> float:
        """Of the adapter's weights in those that it stands on."""
        return self.adapter / self.weights


@dataclass(frozen=True)
class ModelSize:
    """All weights of a model: of its `layers`, the `embedding`, the `head` (none of its own where it is `tied`) and `others`, such
    as norms and biases. `active` are those that one token passes through: of a mixture of experts not all."""

    layers: tuple[LayerSize, ...]
    embedding: int
    head: int
    tied: bool
    others: int
    active: int

    @property
    def parameters(self) -> int:
        return sum(one.count * one.weights for one in self.layers) + self.embedding + self.head + self.others

    @property
    def adapters(self) -> int:
        """Weights of all adapters."""
        return sum(one.count * one.adapter for one in self.layers)


def model_size(model: Any) -> ModelSize:
    """The sizes of a model that has its adapters on, on the meta device or not. Other parts than that of text are among the `others`."""
    counts: dict[tuple[str, int, int, int], int] = {}
    for name, inputs, outputs, count, rank in _layers(model):
        key = re.sub(r"^.*\.\d+\.", "", name), inputs, outputs, rank
        counts[key] = counts.get(key, 0) + count
    layers = tuple(LayerSize(name, inputs, outputs, n, rank) for (name, inputs, outputs, rank), n in counts.items())
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tied = head is embedding
    own = {id(p) for _, adapter in lora.adapters(model) for p in (adapter.A, adapter.B)}
    total = sum(p.numel() for p in model.parameters() if id(p) not in own)
    known = sum(one.count * one.weights for one in layers) + embedding.numel() + (0 if tied else head.numel())
    return ModelSize(layers, embedding.numel(), 0 if tied else head.numel(), tied, total - known, total - _idle(model))


def _layers(model: Any) -> Iterator[tuple[str, int, int, int, int]]:
    """(name, inputs, outputs, how many, rank of the adapter) of each layer that can take one."""
    adapted = dict(lora.adapters(model))
    for name in _names(model):
        if adapter := adapted.get(name):
            count = adapter.A.shape[0] if adapter.A.dim() > 2 else 1
            yield name, adapter.A.shape[-1], adapter.B.shape[-2], count, adapter.A.shape[-2]
            continue
        base: Any = lora.base_of(model, name)
        *stacked, outputs, inputs = _shape(base)
        if getattr(base, "transposed", False):
            outputs, inputs = inputs, outputs
        yield name, inputs, outputs, prod(stacked), 0


def _shape(layer: Any) -> tuple[int, ...]:
    """Of the weight of a layer, or of a stack of experts."""
    found: tuple[int, ...] = layer.shape if isinstance(layer, StackModule) else weight_of(layer).shape
    return found


def _names(model: nn.Module) -> list[str]:
    """The names of the layers that have an adapter or could take one, in the order of the model."""
    adapted = {name for name, _ in lora.adapters(model)}
    free = [name for name in everything(model) if not any(name.startswith(f"{one}.") for one in adapted)]
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    return sorted({*adapted, *free}, key=lambda name: order.get(name, len(order)))


def _idle(model: Any) -> int:
    """Weights of experts that one token does not pass through."""
    idle = 0
    for name in stacks(model):
        experts, *each = _shape(lora.base_of(model, name))
        idle += (experts - min(taken(model), experts)) * prod(each)
    return idle
