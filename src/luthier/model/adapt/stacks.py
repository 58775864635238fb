"""The stacked weights of experts as modules, so that they can be quantized and adapters can stand on them.

A model has such a stack as a parameter [E, out, in] of its module of experts ([E, in, out] where the architecture has them
transposed). One of the modules here takes its place under the same name, and the parameter comes back when it leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from luthier.model.adapt.quantize import Kind, Quantized, quantize
from luthier.model.layers import experts
from luthier.model.layers.experts import Rows, expert_product


class Stack(nn.Module):
    """A stack in the model's own type, frozen."""

    def __init__(self, weight: nn.Parameter, transposed: bool) -> None:
        super().__init__()
        self.weight, self.transposed = weight, transposed

    @property
    def shape(self) -> tuple[int, int, int]:
        """(experts, in, out) where the stack lies transposed, else (experts, out, in)."""
        count, rows, columns = self.weight.shape
        return count, rows, columns

    @property
    def dtype(self) -> torch.dtype:
        """The type of the products."""
        return self.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def dense(self, expert: int, dtype: torch.dtype) -> torch.Tensor:
        """The weight of one expert as it lies in the stack."""
        return self.weight[expert].to(dtype)

    def product(self, x: torch.Tensor, rows: Rows) -> torch.Tensor:
        """x [S, in] times the weights of its rows' experts: [S, out]."""
        return expert_product(x, self.weight, rows.ends, self.transposed)


@dataclass(frozen=True)
class _Stored:
    """A quantized stack as the products take it."""

    every: Quantized
    shape: tuple[int, ...]

    def dense(self, expert: int, dtype: torch.dtype) -> torch.Tensor:
        return _one(self.every, expert, self.shape[1:]).dequantize(dtype)


def _one(every: Quantized, expert: int, shape: tuple[int, ...]) -> Quantized:
    """One expert of a quantized stack, whose tensors have one more dimension."""
    scale = every.scale
    scale = _one(scale, expert, scale.shape) if isinstance(scale, Quantized) else scale[expert]
    zero, mean = (None if part is None else part[expert] for part in (every.zero, every.mean))
    return replace(every, shape=shape, codes=every.codes[expert], scale=scale, zero=zero, mean=mean)


class QuantStack(nn.Module):
    """A frozen stack in few bits, quantized expert by expert and expanded one expert at a time, for its product."""

    def __init__(self, weight: torch.Tensor, transposed: bool, kind: Kind, block: int, double: bool) -> None:
        super().__init__()
        count, rows, columns = weight.shape
        self.shape, self.transposed = (count, rows, columns), transposed
        self.dtype, self.kind, self.block = weight.dtype, kind, block
        each = [quantize(expert, kind, block, double).tensors() for expert in weight.detach()]
        for name in each[0]:
            self.register_buffer(name, torch.stack([tensors[name] for tensors in each]))

    @property
    def device(self) -> torch.device:
        codes: torch.Tensor = self.codes  # type: ignore[assignment]
        return codes.device

    @property
    def quantized(self) -> Quantized:
        """All experts as stored: tensors with one dimension more than those of one expert."""
        held = dict(self.named_buffers())
        if "scale" in held:
            return Quantized(self.kind, self.shape, self.block, held["codes"], held["scale"], held.get("zero"))
        blocks = -(-self.shape[1] * self.shape[2] // self.block)
        scale, zero, codes = held["scale_scale"], held["scale_zero"], held["scale_codes"]
        inner = Quantized("int8", (blocks,), codes.shape[-1], codes, scale, zero)
        return Quantized(self.kind, self.shape, self.block, held["codes"], inner, mean=held["mean"])

    def dense(self, expert: int, dtype: torch.dtype) -> torch.Tensor:
        """The weight of one expert as it lies in the stack, expanded."""
        return _one(self.quantized, expert, self.shape[1:]).dequantize(dtype)

    def product(self, x: torch.Tensor, rows: Rows) -> torch.Tensor:
        """x [S, in] times the weights of its rows' experts: [S, out]."""
        return expert_product(x, _Stored(self.quantized, self.shape), rows.ends, self.transposed)

    def extra_repr(self) -> str:
        return f"{self.shape}, {self.kind}, block={self.block}"


StackModule = Stack | QuantStack


def stacks(model: nn.Module) -> dict[str, Any]:
    """The modules of experts by the names of their stacks, such as model.layers.0.mlp.experts.down_proj, in the order of the
    model; of experts that no interface computes, none."""
    return {f"{name}.{stack}": module for name, module in model.named_modules() for stack in held(module)}


def held(module: nn.Module) -> list[str]:
    """What a module of experts calls its stacks; of any other module nothing."""
    return [name for name in experts.STACKS if hasattr(module, name)] if experts.is_experts(module) else []


def stack_of(module: Any, name: str) -> StackModule:
    """The frozen stack that a module of experts calls `name`, as a module, below any adapter."""
    found = getattr(module, name)
    if isinstance(found, nn.Parameter):
        return Stack(found, bool(module.is_transposed))
    return found if isinstance(found, StackModule) else found.base


def put_stack(module: nn.Module, name: str, stack: nn.Module) -> None:
    """Have `stack` be what a module of experts calls `name`: a plain one becomes the parameter that the architecture has there."""
    experts.compute_here(module)
    delattr(module, name)  # torch puts no module where a parameter is
    setattr(module, name, stack.weight if isinstance(stack, Stack) else stack)


def quantize_stacks(model: nn.Module, kind: Kind, block: int, double: bool) -> None:
    """Replace every stack of experts that is a parameter by a QuantStack, in place."""
    for module in model.modules():
        for name in held(module):
            if isinstance(weight := getattr(module, name), nn.Parameter):
                put_stack(module, name, QuantStack(weight, bool(module.is_transposed), kind, block, double))


@torch.no_grad()
def dequantize_stacks(model: nn.Module) -> None:
    """Replace every quantized stack by a parameter with the weights it stands for, in place."""
    for module in model.modules():
        for name in held(module):
            if isinstance(stack := getattr(module, name), QuantStack):
                put_stack(module, name, Stack(whole(stack), stack.transposed))


@torch.no_grad()
def whole(stack: StackModule) -> nn.Parameter:
    """All experts of a stack as a frozen parameter of its own, in the stack's type."""
    out = torch.empty(stack.shape, dtype=stack.dtype, device=stack.device)
    for expert in range(stack.shape[0]):
        out[expert] = stack.dense(expert, stack.dtype)
    return nn.Parameter(out, requires_grad=False)
