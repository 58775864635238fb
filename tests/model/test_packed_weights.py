"""Packed weights give the same products, follow the adapters, and leave the model as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from luthier.config.model import LoraConfig
from luthier.model import memory
from luthier.model.adapt.lora_layer import LoraLinear
from luthier.model.layers import packed_weights


class Net(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide = nn.Linear(256, 512, dtype=dtype)
        self.small = nn.Linear(512, 8, dtype=dtype)
        self.adapted = LoraLinear(nn.Linear(8, 16, bias=False, dtype=dtype), LoraConfig(rank=2, alpha=4))
        nn.init.normal_(self.adapted.B)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.adapted(self.small(self.wide(x)))


def test_same_values_and_nothing_left_behind() -> None:
    net, x = Net(), torch.randn(5, 256)
    with torch.no_grad():
        plain = net(x)
        with packed_weights.packed(net):
            assert "forward" in vars(net.wide)
            assert "forward" in vars(net.adapted)
            assert "forward" not in vars(net.small)  # too small to gain
            inside = net(x)
            with packed_weights.packed(net):  # under way: no second copy, and the first stays
                assert torch.equal(net(x), inside)
            assert torch.equal(net(x), inside)
        assert torch.allclose(plain, inside, atol=1e-5)
        assert torch.equal(net(x), plain)
    assert not any("forward" in vars(m) for m in net.modules())


@pytest.mark.parametrize("real", [True, False])
def test_in_bfloat16_adapters_stay_beside_the_weight(real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added in, their updates would be rounded away."""
    if not real:
        monkeypatch.setattr(packed_weights, "reorder", lambda weight: weight)
        monkeypatch.setattr(packed_weights, "product", nn.functional.linear)
    elif not packed_weights.works(torch.bfloat16):
        pytest.skip("this processor has no bfloat16 products in oneDNN")
    net, x = Net(torch.bfloat16), torch.randn(2, 5, 256).bfloat16()
    with torch.no_grad():
        plain = net(x)
        with packed_weights.packed(net):
            assert {"forward"} <= vars(net.wide).keys() & vars(net.adapted).keys()
            inside = net(x)
    assert float((inside - plain).abs().max()) <= 2e-2 * float(plain.abs().max())
    if not real:
        assert torch.equal(inside, plain)


@pytest.mark.parametrize("why", ["no memory", "another type", "no such product"])
def test_without_effect_where_it_cannot_be(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    if why == "no memory":
        monkeypatch.setattr(memory, "available", lambda device: 1000)
    elif why == "another type":
        net = net.double()
    else:
        monkeypatch.setattr(packed_weights, "reorder", lambda weight: weight.missing_operation)
    with packed_weights.packed(net):
        assert not any("forward" in vars(m) for m in net.modules())
