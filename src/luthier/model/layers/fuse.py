"""The two element-wise parts of a block that cost most, as single functions that keep less for the backward pass.

    RMS norm   y = w * x / sqrt(mean(x^2) + eps)   keeps x and one number per row, not the normalised x
    gated MLP  y = down(silu(gate(x)) * up(x))     keeps gate and up; silu and the product, which `down` would keep,
                                                   are made again

They take the place of a model's own only after giving the same values on a random input, so nothing needs to
be known of the architecture: what looks different, or computes something else, stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


class _RmsNorm(torch.autograd.Function):
    """In float32 (float64) inside whatever the type, rounded before the weight, as Llama and its kin do."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        (grad,) = grads
        normal = x * scale
        dweight = None
        if ctx.needs_input_grad[1]:
            dweight = (grad * normal).flatten(0, -2).sum(0).to(weight.dtype)
        dnormal = (grad * weight).to(normal.dtype)
        share = (dnormal * normal).mean(-1, keepdim=True)
        return dnormal.addcmul_(normal, share, value=-1).mul_(scale).to(x.dtype), dweight, None


class Gate(torch.autograd.Function):
    """silu(gate) * up"""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        (grad,) = grads
        dgate: torch.Tensor = torch.ops.aten.silu_backward(grad * up, gate)
        return dgate, F.silu(gate).mul_(grad)


def _norm_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    if x.is_cuda:  # one kernel; rounded after the weight
        return F.rms_norm(x, x.shape[-1:], module.weight, module.variance_epsilon)
    out: torch.Tensor = _RmsNorm.apply(x, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return out


def _mlp_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    gate, up = module.gate_proj(x), module.up_proj(x)
    hidden = Gate.apply(gate, up)  # type: ignore[no-untyped-call]
    out: torch.Tensor
    if not hidden.requires_grad:
        out = module.down_proj(hidden)
        return out
    with saved_tensors_hooks(*_made_again(hidden, gate.detach(), up.detach())):
        out = module.down_proj(hidden)
    return out


def keep_gates(part: nn.Module) -> None:
    """Have the gated MLPs of `part` keep silu(gate) * up after all, in place: where the whole block is computed again, hooks
    of their own would keep gate and up for nothing."""
    for module in part.modules():
        if getattr(vars(module).get("forward"), "__func__", None) is _mlp_forward:
            module.forward = MethodType(_mlp_kept, module)


def _mlp_kept(module: Any, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = module.down_proj(Gate.apply(module.gate_proj(x), module.up_proj(x)))  # type: ignore[no-untyped-call]
    return out


def _made_again(hidden: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[Any, Any]:
    """Hooks under which autograd keeps the shape of `hidden` alone, and makes silu(gate) * up for the gradient.

    They live as long as the graph, so they hold no reference to `hidden`.
    """
    storage, count = hidden.untyped_storage()._cdata, hidden.numel()

    def pack(kept: torch.Tensor) -> torch.Tensor | torch.Size:
        if kept.untyped_storage()._cdata == storage and kept.numel() == count and kept.is_contiguous():
            return kept.shape
        if _count:
            _count(kept)
        return kept

    def unpack(kept: torch.Tensor | torch.Size) -> torch.Tensor:
        return kept if isinstance(kept, torch.Tensor) else F.silu(gate).mul_(up).view(kept)

    return pack, unpack


_count: Callable[[torch.Tensor], Any] | None = None


@contextmanager
def counted(count: Callable[[torch.Tensor], Any]) -> Iterator[None]:
    """For the block, `count` is told of each tensor that autograd keeps of a fused model: hooks of torch around the model
    do not hear of those that are saved under hooks within."""
    global _count
    _count = count
    try:
        with saved_tensors_hooks(count, lambda tensor: tensor):
            yield
    finally:
        _count = None


def fuse(model: nn.Module) -> int:
    """Replace what can be replaced, in place; return how many modules were."""
    count = 0
    for module in model.modules():
        forward = _candidate(module)
        if forward is not None and agrees(module, forward):
            module.forward = MethodType(forward, module)
            count += 1
    return count


def _candidate(module: nn.Module) -> Any:
    if len(signature(module.forward).parameters) != 1:  # a norm that takes a gate too is another function
        return None
    if isinstance(getattr(module, "weight", None), torch.Tensor) and isinstance(
        getattr(module, "variance_epsilon", None), float
    ):
        return _norm_forward
    if all(isinstance(getattr(module, name, None), nn.Module) for name in ("gate_proj", "up_proj", "down_proj")):
        return _mlp_forward
    return None


@torch.no_grad()
def agrees(module: Any, forward: Any) -> bool:
    """Whether `forward` gives what the module gives, on a few random rows. On shapes alone, names decide: only what a run
    will need is guessed from those."""
    weight = getattr(module, "weight", None)
    weight = getattr(module.gate_proj, "weight", None) if weight is None else weight
    if weight is None:
        return False
    if weight.is_meta:
        norm = "rmsnorm" in type(module).__name__.lower()
        return norm or (hasattr(module, "act_fn") and _same_gate(module, torch.device("cpu")))
    width = weight.shape[-1]
    x = (
        torch.linspace(-2, 2, 3 * width, dtype=torch.float64)
        .sin()
        .mul(1.7)
        .view(3, width)
        .to(weight.device, weight.dtype)
    )
    try:
        own, ours = module(x), forward(module, x)
    except (TypeError, AttributeError, RuntimeError):
        return False
    if not isinstance(own, torch.Tensor) or not _same_gate(module, weight.device):
        return False
    largest = float(own.abs().max())
    return largest > 0 and float((own - ours).abs().max()) <= TOLERANCE[weight.dtype] * largest


def _same_gate(module: Any, device: torch.device) -> bool:
    """Whether a gated MLP's activation is silu; in 16 bits its output alone could hide another one."""
    activation = getattr(module, "act_fn", None)
    if activation is None:
        return True
    x = torch.linspace(-4, 4, 64, device=device)
    return torch.allclose(activation(x), F.silu(x), rtol=1e-5, atol=1e-6)
