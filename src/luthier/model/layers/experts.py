"""Mixtures of experts for unmodified transformers decoders: one function, registered as "luthier" as that of attention is.

    y_t = sum over the experts e that token t chose of g_te down_e(act(up_e(x_t)))

The experts' weights lie in stacks [E, ...]. Pairs of a token and a choice are sorted by expert, so that each expert is one
product over its own rows, and nothing of the size of a stack is made. What stands in for a stack (quantized, with an adapter)
is a module in its place that has `product`. Sums over choices are taken in the order of the tokens, the same each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from luthier.model.layers.products import product

NAME = "luthier"
STACKS = ("gate_up_proj", "up_proj", "down_proj")  # in the order in which transformers' experts declare them

_watching: ContextVar[list[tuple[torch.Tensor, int]] | None] = ContextVar("chosen experts", default=None)


@dataclass(frozen=True)
class Rows:
    """Pairs of a token and a choice, sorted by expert.

    tokens   [S] int64    the token of each row
    experts  [S] int64    its expert
    ends     E ints       where the rows of each expert end
    """

    tokens: torch.Tensor
    experts: torch.Tensor
    ends: Sequence[int]


class Stored(Protocol):
    """A stack that is not a tensor, such as a quantized one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[E, ...] as it lies."""
        ...

    def dense(self, expert: int, dtype: torch.dtype) -> torch.Tensor:
        """The weight of one expert as it lies in the stack."""
        ...


class _Product(torch.autograd.Function):
    """y_e = x_e W_e^T (x_e W_e for a stack that lies transposed): x [S, in], sorted by expert, -> [S, out].

    Expert e has the rows between ends[e - 1] and ends[e]. A frozen stack needs nothing kept; the gradient of one that learns is
    summed in its own type.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, stack: torch.Tensor | Stored, ends: Sequence[int], transposed: bool
    ) -> torch.Tensor:
        learns = isinstance(stack, torch.Tensor) and stack.requires_grad
        ctx.save_for_backward(x if learns else None)
        ctx.stack, ctx.ends, ctx.transposed, ctx.learns = stack, ends, transposed, learns
        return _rows(x, stack, ends, not transposed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        dx = _rows(grad, ctx.stack, ctx.ends, ctx.transposed) if ctx.needs_input_grad[0] else None
        if not ctx.learns:
            return dx, None, None, None
        (x,) = ctx.saved_tensors
        dstack = torch.zeros_like(ctx.stack)
        for expert, part in _parts(ctx.ends):
            left, right = (x, grad) if ctx.transposed else (grad, x)
            dstack[expert] = product(left[part].T, right[part], dstack.dtype)
        return dx, dstack, None, None


def _rows(x: torch.Tensor, stack: torch.Tensor | Stored, ends: Sequence[int], turned: bool) -> torch.Tensor:
    """Each expert's rows times its weight, or times its transpose where `turned`."""
    out = x.new_empty(len(x), stack.shape[1 if turned else 2])
    for expert, part in _parts(ends):
        weight = _dense(stack, expert, x.dtype)
        torch.mm(x[part], weight.T if turned else weight, out=out[part])
    return out


def _parts(ends: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """The experts that have rows, and which."""
    begin = 0
    for expert, end in enumerate(ends):
        if end > begin:
            yield expert, slice(begin, end)
        begin = end


def _dense(stack: torch.Tensor | Stored, expert: int, dtype: torch.dtype) -> torch.Tensor:
    return stack[expert].to(dtype) if isinstance(stack, torch.Tensor) else stack.dense(expert, dtype)


def expert_product(
    x: torch.Tensor, stack: torch.Tensor | Stored, ends: Sequence[int], transposed: bool = False
) -> torch.Tensor:
    """Rows x [S, in], sorted by expert, times the weights of their experts: [S, out]. See `_Product`."""
    out: torch.Tensor = _Product.apply(x, stack, ends, transposed)  # type: ignore[no-untyped-call]
    return out


class _Sorted(torch.autograd.Function):
    """hidden [T, H] -> the rows of all choices in the order of the experts, [T k, H]. The gradient is summed token by token."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, order: torch.Tensor, choices: int) -> torch.Tensor:
        ctx.save_for_backward(order)
        ctx.choices = choices
        return hidden.index_select(0, order // choices)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (order,), (grad,) = ctx.saved_tensors, grads
        return _unsorted(grad, order).view(-1, ctx.choices, grad.shape[-1]).sum(1), None, None


def _unsorted(rows: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(rows).index_copy(0, order, rows)


def _experts(module: Any, hidden: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor) -> torch.Tensor:
    """hidden [T, H], the experts of each token [T, k] and their weights [T, k] -> [T, H]."""
    if (watching := _watching.get()) is not None:
        watching.append((top_k_index.detach(), module.num_experts))
    chosen = top_k_index.reshape(-1)
    order = chosen.argsort(stable=True)
    rows = Rows(order // top_k_index.shape[-1], chosen[order], _ends(chosen[order], module.num_experts))
    x = _Sorted.apply(hidden, order, top_k_index.shape[-1])  # type: ignore[no-untyped-call]
    x = _through(module, STACKS[0] if module.has_gate else STACKS[1], x, rows)
    x = module._apply_gate(x) if module.has_gate else module.act_fn(x)
    x = _through(module, STACKS[2], x, rows)
    if module.has_post_expert_norm:
        x = module.post_expert_norm(x)
    x = x * top_k_weights.reshape(-1)[order, None]
    out = _unsorted(x, order).view(*top_k_index.shape, -1).sum(1)
    return out.to(hidden.dtype)


def _through(module: Any, name: str, x: torch.Tensor, rows: Rows) -> torch.Tensor:
    """One of the stacks of `module`, with its bias."""
    stack = getattr(module, name)
    tensor = isinstance(stack, torch.Tensor)
    out: torch.Tensor = expert_product(x, stack, rows.ends, module.is_transposed) if tensor else stack.product(x, rows)
    return out + getattr(module, f"{name}_bias")[rows.experts] if module.has_bias else out


def _ends(chosen: torch.Tensor, experts: int) -> list[int]:
    """Where the rows of each expert end, of `chosen` [S] in order. On shapes alone each has as many."""
    if chosen.is_meta:
        return [(expert + 1) * len(chosen) // experts for expert in range(experts)]
    every = torch.arange(experts, device=chosen.device)
    ends: list[int] = torch.searchsorted(chosen, every, right=True).tolist()
    return ends


def register() -> None:
    """Make the function known to transformers, before a model is built."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(NAME, _experts)


def is_experts(module: Any) -> bool:
    """Whether a module computes its experts through transformers' interface, so that the function here can take its place."""
    return all(hasattr(module, name) for name in ("num_experts", "has_gate", "has_bias", "is_transposed"))


def compute_here(module: Any) -> None:
    """Have a module of experts computed here."""
    register()
    module.config._experts_implementation_internal = NAME


def install(model: nn.Module) -> None:
    """Have all experts of a model computed here."""
    for module in model.modules():
        if is_experts(module):
            compute_here(module)


def taken(model: nn.Module) -> int:
    """How many experts of each layer a token takes; 1 where that is not said."""
    config: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    found = (getattr(config, name, None) for name in ("num_experts_per_tok", "top_k_experts"))
    return next((count for count in found if isinstance(count, int) and count > 0), 1)


@contextmanager
def watched() -> Iterator[list[tuple[torch.Tensor, int]]]:
    """For the block, the experts that tokens choose, [T, k], and of how many, for each layer in the order of the layers."""
    found: list[tuple[torch.Tensor, int]] = []
    token = _watching.set(found)
    try:
        yield found
    finally:
        _watching.reset(token)
