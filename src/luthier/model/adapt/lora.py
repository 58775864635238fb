"""The adapters of a model: put on, taken off, merged. What they compute is in `lora_layer` and `lora_stack`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from luthier.config.model import LoraConfig
from luthier.core.errors import InputError
from luthier.model.adapt import vocabulary_weights
from luthier.model.adapt.lora_layer import Adapter, LoraLinear
from luthier.model.adapt.lora_stack import LoraStack
from luthier.model.adapt.stacks import StackModule, held, put_stack, stack_of
from luthier.model.adapt.targets import chosen
from luthier.model.layers.experts import taken


def attach(model: nn.Module, config: LoraConfig) -> dict[str, Adapter]:
    """Put an adapter on every chosen layer, in place; return them by the layer's name. Raises InputError for a rank of experts
    where none is among them."""
    names = chosen(model, config.targets)
    if config.expert_rank is None:
        config = config.model_copy(update={"expert_rank": max(1, config.rank // taken(model))})
    elif not any(isinstance(base_of(model, name), StackModule) for name in names):
        raise InputError(
            "no experts are among the layers that get an adapter", where="--lora.expert_rank", fix="leave it out"
        )
    out: dict[str, Adapter] = {}
    for name in names:
        out[name] = made(base_of(model, name), config).train(model.training)
        set_layer(model, name, out[name])
    return out


def made(base: nn.Module, config: LoraConfig) -> Adapter:
    """A new adapter for a frozen layer or stack of experts."""
    return LoraStack(base, config) if isinstance(base, StackModule) else LoraLinear(base, config)


@torch.no_grad()
def put(
    model: nn.Module,
    name: str,
    base: nn.Module,
    config: LoraConfig,
    a: torch.Tensor,
    b: torch.Tensor,
    magnitude: torch.Tensor | None,
) -> None:
    """Put an adapter with given weights on the layer called `name`, in place."""
    adapter = made(base, config)
    adapter.A.copy_(a)
    adapter.B.copy_(b)
    if adapter.magnitude is not None and magnitude is not None:
        adapter.magnitude.copy_(magnitude.flatten())
    set_layer(model, name, adapter.requires_grad_(False).train(model.training))


def adapters(model: nn.Module) -> Iterator[tuple[str, Adapter]]:
    """The adapters on a model by the name of the layer they sit on."""
    for name, module in model.named_modules():
        if isinstance(module, Adapter):
            yield name, module


@contextmanager
def cast_once(model: nn.Module) -> Iterator[None]:
    """For the block, which must not change them, all A and B are at hand in the type of the products: one call casts them
    all, where each layer would cast its own."""
    layers = [m for _, m in adapters(model) if m.plain and m.cast is None and m.dtype != m.A.dtype]
    wide = [p.detach() for layer in layers for p in (layer.A, layer.B)]
    cast = [torch.empty_like(p, dtype=layer.dtype) for layer in layers for p in (layer.A, layer.B)]
    if layers:
        torch._foreach_copy_(cast, wide)
    for layer, a, b in zip(layers, cast[::2], cast[1::2], strict=True):
        layer.cast = (a, b)
    try:
        yield
    finally:
        for layer in layers:
            layer.cast = None


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Replace every adapted layer by a plain one with the merged weight, in place; an embedding or head that an adapter brought is
    the model's own from then on."""
    vocabulary_weights.settle(model)
    for name, adapter in list(adapters(model)):
        set_layer(model, name, adapter.replaced())


def detach(model: nn.Module) -> None:
    """Take the adapters off again, in place."""
    for name, adapter in list(adapters(model)):
        set_layer(model, name, adapter.base)


def base_of(model: nn.Module, name: str) -> nn.Module:
    """The frozen layer called `name`, below any adapter; of a stack of experts a module that holds it. Raises AttributeError for
    a name that the model does not have."""
    parent, _, child = name.rpartition(".")
    if child in held(model.get_submodule(parent)):
        return stack_of(model.get_submodule(parent), child)
    module = model.get_submodule(name)
    return module.base if isinstance(module, Adapter) else module


def set_layer(model: nn.Module, name: str, module: nn.Module) -> None:
    """Have `module` be the layer called `name`."""
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    if child in held(owner):
        put_stack(owner, child, module)
    else:
        setattr(owner, child, module)
