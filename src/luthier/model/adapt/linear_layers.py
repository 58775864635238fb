"""Linear layers as architectures have them: y = x W^T + b with a weight that lies as W [out, in], or as W^T in the Conv1D of GPT-2."""

from __future__ import annotations

import torch
from torch import nn


def is_linear(module: nn.Module) -> bool:
    """Whether a layer gives products and no more: a router that gives choices too, as those of Llama 4 and Phi, is none."""
    return type(module).forward is nn.Linear.forward if isinstance(module, nn.Linear) else is_transposed(module)


def is_plain(module: nn.Module) -> bool:
    """Whether a layer is one of these itself, and nothing that is derived from it."""
    return type(module) is nn.Linear or (is_transposed(module) and type(module).__name__ == "Conv1D")


def is_transposed(module: nn.Module) -> bool:
    """Whether the weight of a linear layer lies as [in, out]."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def weight_of(layer: nn.Module) -> torch.Tensor:
    """The weight of a linear layer as [out, in], in the layer's own memory."""
    weight: torch.Tensor = layer.weight  # type: ignore[assignment]
    return weight.T if is_transposed(layer) else weight


def layer_of(weight: torch.Tensor, bias: torch.Tensor | None, *, transposed: bool) -> nn.Module:
    """A frozen layer with the weight [out, in] and a copy of the bias, which lies `transposed` where its architecture has it so."""
    out_features, in_features = weight.shape
    layer: nn.Module
    with torch.device("meta"):
        if transposed:
            from transformers.pytorch_utils import Conv1D

            layer = Conv1D(out_features, in_features)
        else:
            layer = nn.Linear(in_features, out_features, bias=bias is not None)
    layer.weight = nn.Parameter(weight.T.contiguous() if transposed else weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer
