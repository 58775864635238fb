"""Low-rank adapters: y = W x + s B A x, with W frozen (Hu et al. 2021), and their variants.

    s = alpha / rank, or alpha / sqrt(rank)      rsLoRA (Kalajdzievski 2023)
    y = m * (W x + s B A x) / |W + s B A|        DoRA (Liu et al. 2024), the norm per output row, no gradient through it
    W' = W - s B0 A0, A0 and B0 from the SVD     PiSSA (Meng et al. 2024)

A and B are float32 whatever the compute type, so that small updates are not lost.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from luthier.config.model import LoraConfig
from luthier.core.errors import InputError
from luthier.model.adapt.linear_layers import is_plain, is_transposed, layer_of, weight_of
from luthier.model.adapt.quantize import Quantized, QuantLinear
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


class Adapter(nn.Module):
    """A frozen layer and what learns on it: A and B, in DoRA magnitudes.

    cast       A and B in the type of the products, where these are at hand (`lora.cast_once`)
    start      A0 and B0 of PiSSA, which the frozen weight lacks
    """

    A: nn.Parameter
    B: nn.Parameter

    def __init__(self, base: nn.Module, config: LoraConfig) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = config.alpha / (math.sqrt(config.rank) if config.rslora else config.rank)
        self.dropout = config.dropout
        self.cast: tuple[torch.Tensor, torch.Tensor] | None = None
        self.start: tuple[torch.Tensor, torch.Tensor] | None = None
        self.magnitude: nn.Parameter | None = None

    @property
    def rank(self) -> int:
        """The rank of what `export` gives: PiSSA's is twice that of A."""
        return self.A.shape[-2] * (1 if self.start is None else 2)

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The type of the products."""

    @property
    @abstractmethod
    def plain(self) -> bool:
        """Whether the layer now computes W x + s B A x and no more, in one function that takes `cast`."""

    @abstractmethod
    def export(self) -> dict[str, torch.Tensor]:
        """The adapter against the original base, under PEFT's names and in its shapes."""

    @abstractmethod
    def replaced(self) -> nn.Module:
        """The layer without an adapter that gives this one's output. The sum is taken in the adapter's precision and rounded once."""


def drawn(rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
    """A's start, [rows, columns], where `like` is: as nn.Linear starts, but drawn on the processor, the same numbers for every
    device. In float32, or float64 where `like` is."""
    precise = torch.float64 if like.dtype == torch.float64 else torch.float32
    start = torch.empty(rows, columns, dtype=precise, device="meta" if like.is_meta else "cpu")
    nn.init.kaiming_uniform_(start, a=math.sqrt(5))
    return start.to(like.device)


class LoraLinear(Adapter):
    """A frozen linear layer with an adapter on it."""

    def __init__(self, base: nn.Module, config: LoraConfig) -> None:
        super().__init__(base, config)
        self.transposed = base.transposed if isinstance(base, QuantLinear) else is_transposed(base)
        self._known = isinstance(base, QuantLinear) or is_plain(base)
        weight = _weight(base)
        out_features, in_features = weight.shape
        self.A = nn.Parameter(drawn(config.rank, in_features, weight))
        self.B = nn.Parameter(torch.zeros(out_features, config.rank, dtype=self.A.dtype, device=weight.device))
        if config.dora:  # of the weight as it was: PiSSA moves part of it into the adapter below
            self.magnitude = nn.Parameter(self._norm(weight.to(self.A.dtype)))
        if config.init == "pissa":
            self._start_at_singular_vectors()

    @property
    def dtype(self) -> torch.dtype:
        """The type of the products."""
        return self.base.compute_dtype if isinstance(self.base, QuantLinear) else self.base.weight.dtype  # type: ignore[return-value]

    @property
    def plain(self) -> bool:
        """Whether the layer now computes W x + s B A x and no more: neither DoRA nor dropout."""
        return self._known and self.magnitude is None and not (self.dropout and self.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.plain:
            weight = self.base.quantized if isinstance(self.base, QuantLinear) else self.base.weight
            if self.transposed and isinstance(weight, torch.Tensor):
                weight = weight.T
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
    def _start_at_singular_vectors(self) -> None:
        """PiSSA: what A and B start with is taken out of the frozen weight."""
        if not is_plain(self.base):
            raise quantized_already()
        weight = _weight(self.base)
        singular_vectors(weight.to(self.A.dtype), self.A, self.B, self.scale)
        self.start = (self.A.clone(), self.B.clone())
        weight.sub_((self.scale * (self.B @ self.A)).to(weight.dtype))

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

    def replaced(self) -> nn.Module:
        weight = self.merged()
        dtype = weight.dtype if isinstance(self.base, QuantLinear) else _weight(self.base).dtype
        return layer_of(weight.to(dtype), getattr(self.base, "bias", None), transposed=self.transposed)


def singular_vectors(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
    """A0 = sqrt(S) V^T and B0 = U sqrt(S) / s over the largest singular values of `weight`, into `a` and `b`. What rank is left over
    in a small layer stays as it is."""
    rank = len(a)
    u, s, vt = torch.linalg.svd(weight, full_matrices=False)
    root = s[:rank].sqrt()
    a[: len(root)] = root[:, None] * vt[:rank]
    b[:, : len(root)] = u[:, :rank] * root / scale


def quantized_already() -> InputError:
    return InputError(
        "init=pissa changes the base weights, which qlora has quantized", where="--lora.init", fix="use --tune lora"
    )


def _weight(base: nn.Module) -> torch.Tensor:
    """The base weight [out, in]; a quantized layer dequantizes it."""
    return base.dequantize() if isinstance(base, QuantLinear) else weight_of(base)
