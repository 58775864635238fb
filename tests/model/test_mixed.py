"""A layer with several adapters gives each token what the layer with that token's adapter alone gives it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from luthier.config.model import LoraConfig
from luthier.model.adapt.lora_layer import LoraLinear
from luthier.model.adapt.mixed import MixedLinear, TokenAdapters
from luthier.model.adapt.quantize import QuantLinear

SHAPES = [LoraConfig(rank=4, alpha=4), LoraConfig(rank=7, alpha=21), LoraConfig(rank=2, alpha=3, dora=True)]
WHICH = [0, 1, 2, 3, 3, 1, 0, 2]  # of each token; 0 is the layer as it stands


def layer_with_adapters(base: nn.Module, shapes: list[LoraConfig]) -> list[LoraLinear]:
    out = []
    for shape in shapes:
        out.append(LoraLinear(base, shape).eval())
        nn.init.normal_(out[-1].B, std=0.2)
    return out


@pytest.mark.parametrize("kind", ["float64", "float32", "bfloat16", "nf4"])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_each_token_goes_through_its_own_adapter(kind: str, bias: bool) -> None:
    dtype = torch.float32 if kind == "nf4" else getattr(torch, kind)
    base: nn.Module = nn.Linear(128, 48, bias=bias, dtype=dtype)
    if kind == "nf4":
        base = QuantLinear(base, "nf4", 64, True)
    adapters = layer_with_adapters(base, SHAPES[:2] if kind == "nf4" else SHAPES)
    which = [min(i, len(adapters)) for i in WHICH]
    tokens = TokenAdapters(own=False)
    layer = MixedLinear(base, [None, *adapters], tokens)
    x = torch.randn(1, len(which), 128, dtype=dtype)
    tokens.assign(which, x.device)
    found = layer(x)[0]
    wanted = [(adapters[i - 1] if i else base)(x)[0, place] for place, i in enumerate(which)]
    tolerance = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 3e-2, "nf4": 1e-5}[kind]
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).abs().max()) <= tolerance * float(other.abs().max())


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_tokens_without_an_adapter_keep_their_bits_beside_others(bias: bool) -> None:
    base = nn.Linear(128, 48, bias=bias)
    tokens = TokenAdapters(own=False)
    layer = MixedLinear(base, [None, *layer_with_adapters(base, SHAPES)], tokens)
    x = torch.randn(1, len(WHICH), 128)
    tokens.assign([0] * len(WHICH), x.device)
    assert tokens.which is None, "nothing is computed where nobody has one"
    plain = layer(x)
    assert torch.equal(plain, base(x))
    tokens.assign(WHICH, x.device)
    bare = [place for place, i in enumerate(WHICH) if i == 0]
    assert torch.equal(layer(x)[:, bare], plain[:, bare])
