"""The frozen base of qlora: its linear layers and the stacks of its experts in few bits."""

from __future__ import annotations

from torch import nn

from luthier.config.model import QuantConfig
from luthier.model.adapt.quantize import dequantize_linears, quantize_linears
from luthier.model.adapt.stacks import dequantize_stacks, quantize_stacks


def quantize_base(model: nn.Module, quant: QuantConfig) -> None:
    """Quantize every linear layer but the vocabulary head, and every stack of experts, in place."""
    quantize_linears(model, quant.kind, quant.block, quant.double)
    quantize_stacks(model, quant.kind, quant.block, quant.double)


def dequantize_base(model: nn.Module) -> None:
    """Replace what is quantized by plain weights of the same values, in place."""
    dequantize_linears(model)
    dequantize_stacks(model)
