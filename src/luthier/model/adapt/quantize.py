"""Frozen weights in 4 or 8 bits, for QLoRA (Dettmers et al. 2023, arXiv:2305.14314).

    nf4    w = scale * LEVELS[code]       scale = largest |w| of the block
    int8   w = scale * (code - zero)      scale and zero point from the block's minimum and maximum

A block is `block` neighbouring weights in row order. With double quantization the NF4 scales themselves
are stored in 8 bits, 256 to a block, after their mean is taken off. The paper uses 8-bit floats there;
here it is the affine int8 above, whose step is even: 0.004 bits per weight more.

Kept in plain torch, so it runs wherever torch does. A weight is expanded for each product and dropped
again, in the backward pass too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from luthier.model.adapt.linear_layers import is_plain, is_transposed, layer_of, weight_of
from luthier.model.adapt.read_past import read_past
from luthier.model.layers.decoder import text_modules

Kind = Literal["nf4", "int8"]

# Appendix E of the paper: quantiles of a normal distribution, scaled to [-1, 1], with 0 among them.
LEVELS = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
])  # fmt: skip
_BYTE = torch.arange(256)
# Byte -> its two levels, the first in the high half, as one 64-bit word: by far the fastest lookup torch has.
_PAIRS = torch.stack([LEVELS[_BYTE >> 4], LEVELS[_BYTE & 15]], dim=1).view(torch.int64).view(-1)
_MIDDLES = (LEVELS[1:] + LEVELS[:-1]) / 2
_SCALES_BLOCK = 256
CHUNK = 1 << 18  # weights expanded at once: the float32 in between stays in the processor's cache


@dataclass(frozen=True)
class Quantized:
    """A tensor in few bits. B blocks of `block` values; the last one is padded.

    codes  uint8, [B block / 2] for nf4 (two codes a byte, the first in the high half), [B, block] for int8
    scale  float32 [B], or for double quantization Quantized [B] of (scale - mean)
    zero   uint8 [B], for int8
    mean   float32 [], for double quantization
    """

    kind: Kind
    shape: tuple[int, ...]
    block: int
    codes: torch.Tensor
    scale: torch.Tensor | Quantized
    zero: torch.Tensor | None = None
    mean: torch.Tensor | None = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything stored, by name; those of quantized scales have the prefix `scale_`."""
        own = {"codes": self.codes, "scale": self.scale, "zero": self.zero, "mean": self.mean}
        out = {name: value for name, value in own.items() if isinstance(value, torch.Tensor)}
        if isinstance(self.scale, Quantized):
            out |= {f"scale_{name}": value for name, value in self.scale.tensors().items()}
        return out

    @property
    def bits_per_weight(self) -> float:
        """Bits stored for each weight, scales and zero points included."""
        return 8 * sum(value.nbytes for value in self.tensors().values()) / torch.Size(self.shape).numel()

    def scales(self) -> torch.Tensor:
        """The scale of every block, float32 [B]."""
        if isinstance(self.scale, Quantized):
            assert self.mean is not None
            return self.scale.dequantize(torch.float32) + self.mean
        return self.scale

    def dequantize(self, dtype: torch.dtype) -> torch.Tensor:
        """The tensor again, computed in float32 and rounded once to `dtype`."""
        scales = self.scales()[:, None]
        out = torch.empty(len(scales), self.block, dtype=dtype, device=self.codes.device)
        step = max(1, CHUNK // self.block) if self.codes.device.type == "cpu" else len(scales)
        pairs = _PAIRS.to(self.codes.device)
        codes = self.codes.view(len(scales), -1)
        for start in range(0, len(scales), step):
            part = slice(start, start + step)
            if self.zero is None:
                words = pairs.index_select(0, codes[part].reshape(-1).to(torch.int32))
                values = words.view(torch.float32).view(-1, self.block)
            else:
                values = codes[part].to(torch.float32) - self.zero[part, None]
            torch.mul(values, scales[part], out=out[part])
        return out.view(-1)[: torch.Size(self.shape).numel()].view(self.shape)


def quantize(weight: torch.Tensor, kind: Kind = "nf4", block: int = 64, double: bool = True) -> Quantized:
    """`weight` in 4 (nf4) or 8 (int8) bits. `double` concerns nf4 alone.

    Every value goes to the nearest code, so |w - w'| is at most 0.152 scale for nf4 (half the widest
    gap, between its two lowest levels) and scale / 2 for int8, plus what double quantization moves the scale.
    """
    flat = weight.detach().reshape(-1)
    flat = F.pad(flat, (0, -len(flat) % block)).view(-1, block)
    step = max(1, CHUNK // block)
    parts = [flat[start : start + step] for start in range(0, len(flat), step)]
    shape = tuple(weight.shape)
    if kind == "int8":
        codes, scales, zeros = zip(*(_affine(part.to(torch.float32)) for part in parts), strict=True)
        return Quantized("int8", shape, block, torch.cat(codes), torch.cat(scales), torch.cat(zeros))
    packed, scales = zip(*(_normal_float(part.to(torch.float32)) for part in parts), strict=True)
    scale = torch.cat(scales)
    if not double:
        return Quantized("nf4", shape, block, torch.cat(packed), scale)
    mean = scale.mean()
    return Quantized("nf4", shape, block, torch.cat(packed), quantize(scale - mean, "int8", _SCALES_BLOCK), mean=mean)


def _normal_float(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """values [b, block] -> packed codes [b block / 2] and scales [b]."""
    scale = values.abs().amax(1)
    shares = values / torch.where(scale == 0, 1.0, scale)[:, None]
    codes = torch.bucketize(shares, _MIDDLES.to(values.device), out_int32=True).to(torch.uint8).view(-1, 2)
    return codes[:, 0] << 4 | codes[:, 1], scale


def _affine(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """values [b, block] -> codes [b, block], scales [b] and zero points [b]. Zero is always exact."""
    low, high = values.amin(1).clamp_max_(0), values.amax(1).clamp_min_(0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, 1.0, scale)
    zero = (-low / scale).round_()
    codes = (values / scale[:, None]).add_(zero[:, None]).round_().clamp_(0, 255)
    return codes.to(torch.uint8), scale, zero.to(torch.uint8)


class _QuantProduct(torch.autograd.Function):
    """x W^T with W expanded for the product and again for the gradient, never kept between them."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Quantized) -> torch.Tensor:
        ctx.weight = weight
        return F.linear(x, weight.dequantize(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grad,) = grads
        return grad @ ctx.weight.dequantize(grad.dtype), None


class QuantLinear(nn.Module):
    """A linear layer whose frozen weight is stored quantized, in buffers.

    The product is computed in the type of its input. Do not cast the module to another float type:
    its scales are float32.
    """

    def __init__(self, linear: nn.Module, kind: Kind, block: int, double: bool) -> None:
        super().__init__()
        weight = weight_of(linear)
        self.out_features, self.in_features = weight.shape
        self.transposed = is_transposed(linear)  # where it was
        self.compute_dtype = weight.dtype
        self.kind, self.block = kind, block
        for name, value in quantize(weight, kind, block, double).tensors().items():
            self.register_buffer(name, value)
        self.bias: nn.Parameter | None = linear.bias  # type: ignore[assignment]

    @property
    def quantized(self) -> Quantized:
        """The weight as stored, [out, in]."""
        held = dict(self.named_buffers())
        shape = (self.out_features, self.in_features)
        if "scale" in held:
            return Quantized(self.kind, shape, self.block, held["codes"], held["scale"], held.get("zero"))
        inner = Quantized("int8", (-(-shape[0] * shape[1] // self.block),), _SCALES_BLOCK,
                          held["scale_codes"], held["scale_scale"], held["scale_zero"])  # fmt: skip
        return Quantized(self.kind, shape, self.block, held["codes"], inner, mean=held["mean"])

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weight [out, in] in `dtype`, by default the type the layer had before."""
        return self.quantized.dequantize(dtype or self.compute_dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _QuantProduct.apply(x, self.quantized)  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.kind}, block={self.block}"


def quantizable(model: nn.Module, skip: Sequence[str] = ("lm_head",)) -> dict[str, Any]:
    """The linear layers of `model` that `quantize_linears` replaces, all in its decoder: name -> layer."""
    found = {
        name: module
        for name, module in text_modules(model)
        if is_plain(module) and name not in skip and name.rpartition(".")[2] not in skip
    }
    passed = read_past(model, found)
    return {name: module for name, module in found.items() if name not in passed}


def quantize_linears(
    model: nn.Module, kind: Kind = "nf4", block: int = 64, double: bool = True, skip: Sequence[str] = ("lm_head",)
) -> int:
    """Replace every linear layer of `model` by a QuantLinear, in place, and return how many.

    A layer whose name, or last part of it, is in `skip` stays as it is: the head decides every token,
    and often shares its weight with the embedding.
    """
    chosen = quantizable(model, skip)
    for name, module in chosen.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, QuantLinear(module, kind, block, double))
    return len(chosen)


@torch.no_grad()
def dequantize_linears(model: nn.Module) -> None:
    """Replace every quantized layer of `model` by a plain one with the weight it stands for, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantLinear):
            plain = layer_of(module.dequantize(), module.bias, transposed=module.transposed)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, plain)


def stored_bytes(count: int, kind: Kind = "nf4", block: int = 64, double: bool = True) -> int:
    """Bytes that `quantize` stores for `count` weights."""
    blocks = -(-count // block)
    if kind == "int8":
        return blocks * (block + 5)
    if not double:
        return blocks * (block // 2 + 4)
    return blocks * block // 2 + stored_bytes(blocks, "int8", _SCALES_BLOCK) + 4
