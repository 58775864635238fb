"""Packed weights give the same products, follow the adapters, and leave the model as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from luthier.core.config import LoraConfig
from luthier.model import memory, packed
from luthier.model.lora import LoraLinear


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide = nn.Linear(256, 512)
        self.small = nn.Linear(512, 8)
        self.adapted = LoraLinear(nn.Linear(8, 16, bias=False), LoraConfig(rank=2, alpha=4))
        nn.init.normal_(self.adapted.B)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.adapted(self.small(self.wide(x)))


def test_same_values_and_nothing_left_behind() -> None:
    net, x = Net(), torch.randn(5, 256)
    with torch.no_grad():
        plain = net(x)
        with packed.packed(net):
            assert "forward" in vars(net.wide)
            assert "forward" in vars(net.adapted)
            assert "forward" not in vars(net.small)  # too small to gain
            inside = net(x)
            with packed.packed(net):  # under way: no second copy, and the first stays
                assert torch.equal(net(x), inside)
            assert torch.equal(net(x), inside)
        assert torch.allclose(plain, inside, atol=1e-5)
        assert torch.equal(net(x), plain)
    assert not any("forward" in vars(m) for m in net.modules())


@pytest.mark.parametrize("why", ["no memory", "another type", "no such product"])
def test_without_effect_where_it_cannot_be(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    if why == "no memory":
        monkeypatch.setattr(memory, "available", lambda device: 1000)
    elif why == "another type":
        net = net.double()
    else:
        monkeypatch.setattr(packed, "_reorder", lambda weight: weight.missing_operation)
    with packed.packed(net):
        assert not any("forward" in vars(m) for m in net.modules())
