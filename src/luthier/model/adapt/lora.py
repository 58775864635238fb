"""Low-rank adapters: y = W x + s B A x, with W frozen (Hu et al. 2021), and their variants.

    s = alpha / rank, or alpha / sqrt(rank)      rsLoRA (Kalajdzievski 2023)
    y = m * (W x + s B A x) / |W + s B A|        DoRA (Liu et al. 2024), the norm per output row, no gradient through it
    W' = W - s B0 A0, A0 and B0 from the SVD     PiSSA (Meng et al. 2024)

A and B are float32 whatever the compute type, so that small updates are not lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from luthier.config.model import LoraConfig
from luthier.core.errors import InputError
from luthier.model.adapt.quantize import Quantized, QuantLinear
from luthier.model.adapt.targets import chosen
from luthier.model.layers.products import product


class _LoraLinear(torch.autograd.Function):
    """x W^T + bias + (s x A^T) B^T with W frozen, and no intermediate kept but x and s x A^T.

    The products take `a` and `b`, which are A and B in the type of x; the gradients are those of A and B, in their own.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor | Quantized, bias: torch.Tensor | None, A: torch.Tensor,
        B: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float,
    ) -> torch.Tensor:  # fmt: skip
        """x [T, in], a [r, in], b [out, r] -> [T, out]."""
        low = _scaled(x, a.T, scale)
        out = F.linear(x, _dense(weight, x.dtype), bias)
        out.addmm_(low, b.T)
        ctx.save_for_backward(x, a, b, low)
        ctx.weight, ctx.scale, ctx.precise = weight, scale, A.dtype  # frozen: nobody writes to it in between
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, a, b, low = ctx.saved_tensors
        (grad,) = grads
        dlow = _scaled(grad, b, ctx.scale)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = grad @ _dense(ctx.weight, grad.dtype)
            dx.addmm_(dlow, a)
        return dx, None, None, product(dlow.T, x, ctx.precise), product(grad.T, low, ctx.precise), None, None, None


def _dense(weight: torch.Tensor | Quantized, dtype: torch.dtype) -> torch.Tensor:
    """The weight itself; a quantized one is expanded for the product, never kept."""
    return weight if isinstance(weight, torch.Tensor) else weight.dequantize(dtype)


def _scaled(x: torch.Tensor, y: torch.Tensor, scale: float) -> torch.Tensor:
    """scale x y, in one product."""
    return torch.addmm(x.new_empty(()), x, y, beta=0, alpha=scale)


class LoraLinear(nn.Module):
    """A frozen linear layer with an adapter on it."""

    def __init__(self, base: nn.Module, config: LoraConfig) -> None:
        super().__init__()
        weight = _weight(base)
        out_features, in_features = weight.shape
        self.base = base.requires_grad_(False)
        self.scale = config.alpha / (math.sqrt(config.rank) if config.rslora else config.rank)
        self.cast: tuple[torch.Tensor, torch.Tensor] | None = None  # A and B in the products' type: `cast_once`
        self.dropout = config.dropout
        precise = torch.float64 if weight.dtype == torch.float64 else torch.float32
        start = torch.empty(config.rank, in_features, dtype=precise, device="meta" if weight.is_meta else "cpu")
        nn.init.kaiming_uniform_(start, a=math.sqrt(5))  # drawn on the processor: the same numbers for every device
        self.A = nn.Parameter(start.to(weight.device))
        self.B = nn.Parameter(torch.zeros(out_features, config.rank, dtype=precise, device=weight.device))
        # Of the weight as it was: PiSSA moves part of it into the adapter below.
        self.magnitude = nn.Parameter(self._norm(weight.to(precise))) if config.dora else None
        self.start: tuple[torch.Tensor, torch.Tensor] | None = None
        if config.init == "pissa":
            self._start_at_singular_vectors(config.rank)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the products."""
        return self.base.compute_dtype if isinstance(self.base, QuantLinear) else self.base.weight.dtype  # type: ignore[return-value]

    @property
    def plain(self) -> bool:
        """Whether the layer now computes W x + s B A x and no more: neither DoRA nor dropout."""
        known = type(self.base) in (nn.Linear, QuantLinear)
        return known and self.magnitude is None and not (self.dropout and self.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.plain:
            weight = self.base.quantized if isinstance(self.base, QuantLinear) else self.base.weight
            a, b = self.cast or (self.A.to(x.dtype), self.B.to(x.dtype))
            flat = x.reshape(-1, x.shape[-1])
            y = _LoraLinear.apply(flat, weight, self.base.bias, self.A, self.B, a, b, self.scale)  # type: ignore[no-untyped-call]
            return y.view(*x.shape[:-1], -1)
        a, b = self.A.to(x.dtype), self.B.to(x.dtype)
        if self.magnitude is not None:
            return self._dora(x, a, b)
        return self.base(x) + self._low(x, a, b)

    @torch.no_grad()
    def add_low(self, out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """out + s B A x, in place, for an `out` [..., out] that nothing learns from."""
        a, b = self.cast or (self.A.to(x.dtype), self.B.to(x.dtype))
        out.view(-1, out.shape[-1]).addmm_(_scaled(x.reshape(-1, x.shape[-1]), a.T, self.scale), b.T)
        return out

    def _low(self, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        return F.linear(F.linear(x, a), b) * self.scale

    def _dora(self, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        bias = getattr(self.base, "bias", None)
        plain = self.base(x) if bias is None else self.base(x) - bias
        out = self.gain().to(x.dtype) * (plain + self._low(x, a, b))
        return out if bias is None else out + bias

    def gain(self) -> torch.Tensor:
        """m / |W + s B A| of DoRA, [out]; no gradient through the norm."""
        assert self.magnitude is not None
        with torch.no_grad():
            norm = self._norm(_weight(self.base).to(self.A.dtype) + self.scale * (self.B @ self.A))
        return self.magnitude / norm

    @staticmethod
    def _norm(weight: torch.Tensor) -> torch.Tensor:
        """Length of each output row, [out]."""
        return torch.linalg.vector_norm(weight, dim=1)

    @torch.no_grad()
    def _start_at_singular_vectors(self, rank: int) -> None:
        """A0 = sqrt(S) V^T and B0 = U sqrt(S) / s over the `rank` largest, taken out of the frozen weight. What rank is left over
        in a small layer starts as it does elsewhere."""
        if type(self.base) is not nn.Linear:
            raise InputError(
                "init=pissa changes the base weights, which qlora has quantized",
                where="--lora.init",
                fix="use --tune lora",
            )
        u, s, vt = torch.linalg.svd(self.base.weight.to(self.A.dtype), full_matrices=False)
        root = s[:rank].sqrt()
        self.A[: len(root)] = root[:, None] * vt[:rank]
        self.B[:, : len(root)] = u[:, :rank] * root / self.scale
        self.start = (self.A.clone(), self.B.clone())
        self.base.weight.sub_((self.scale * (self.B @ self.A)).to(self.base.weight.dtype))

    @torch.no_grad()
    def merged(self) -> torch.Tensor:
        """The weight that alone gives this layer's output, [out, in], in the adapter's precision."""
        weight = _weight(self.base).to(self.A.dtype) + self.scale * (self.B @ self.A)
        if self.magnitude is not None:
            weight *= (self.magnitude / self._norm(weight))[:, None]
        return weight

    def export(self) -> dict[str, torch.Tensor]:
        """The adapter against the original base, under PEFT's names.

        A PiSSA adapter is written as the difference to its start, [B, -B0] [A; A0], of twice the rank,
        so that it loads on the unchanged base.
        """
        a, b = self.A.detach(), self.B.detach()
        if self.start is not None:
            a0, b0 = self.start
            a, b = torch.cat([a, a0]), torch.cat([b, -b0], dim=1)
        out = {"lora_A.weight": a, "lora_B.weight": b}
        if self.magnitude is not None:
            out["lora_magnitude_vector"] = self.magnitude.detach()
        return out


def _weight(base: nn.Module) -> torch.Tensor:
    """The base weight [out, in]; a quantized layer dequantizes it."""
    if isinstance(base, nn.Linear):
        return base.weight
    weight: torch.Tensor = base.dequantize()  # type: ignore[operator]
    return weight


def attach(model: nn.Module, config: LoraConfig) -> dict[str, LoraLinear]:
    """Put an adapter on every chosen layer, in place; return them by the layer's name."""
    out: dict[str, LoraLinear] = {}
    for name, module in chosen(model, config.targets).items():
        out[name] = LoraLinear(module, config).train(model.training)
        set_layer(model, name, out[name])
    return out


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
    adapter = LoraLinear(base, config)
    adapter.A.copy_(a)
    adapter.B.copy_(b)
    if adapter.magnitude is not None and magnitude is not None:
        adapter.magnitude.copy_(magnitude.flatten())
    set_layer(model, name, adapter.requires_grad_(False).train(model.training))


def adapters(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """The adapters on a model by the name of the layer they sit on."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
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
    """Replace every adapted layer by one plain linear layer with the merged weight, in place.

    The sum is taken in the adapter's precision and rounded once to the layer's.
    """
    for name, adapter in list(adapters(model)):
        weight = adapter.merged()
        dtype = adapter.base.weight.dtype if isinstance(adapter.base, nn.Linear) else weight.dtype
        bias = getattr(adapter.base, "bias", None)
        plain = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        plain.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
        if bias is not None:
            plain.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        set_layer(model, name, plain)


def detach(model: nn.Module) -> None:
    """Take the adapters off again, in place."""
    for name, adapter in list(adapters(model)):
        set_layer(model, name, adapter.base)


def base_of(model: nn.Module, name: str) -> nn.Module:
    """The frozen layer called `name`, below any adapter."""
    module = model.get_submodule(name)
    return module.base if isinstance(module, LoraLinear) else module


def set_layer(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
