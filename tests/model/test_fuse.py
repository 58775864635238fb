"""Fused parts: the same values and gradients; what computes something else is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from conftest import gradient, tiny_model
from luthier.config.model import LoraConfig, QuantConfig
from luthier.model.adapt import lora, tune
from luthier.model.layers import fuse as fuse_module
from luthier.model.layers.fuse import fuse

IDS = torch.arange(1, 25).reshape(2, 12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_fused_model_is_the_same_model(dtype):
    plain, fused = tiny_model("sdpa", dtype=dtype), tiny_model("sdpa", dtype=dtype)
    assert fuse(fused) == 2 * 3 + 1
    for model in (plain, fused):
        model(IDS).logits.log_softmax(-1)[..., 5].sum().backward()
    torch.testing.assert_close(fused(IDS).logits, plain(IDS).logits, rtol=1e-5, atol=1e-5)
    a, b = gradient(fused), gradient(plain)
    assert float((a - b).norm() / b.norm()) < 1e-6


def test_gradients_in_float64():
    model = tiny_model("sdpa", dtype=torch.float64)
    fuse(model)
    layer = model.model.layers[0]
    x = torch.randn(2, 3, 32, dtype=torch.float64, requires_grad=True)
    weight = layer.input_layernorm.weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: layer.input_layernorm(x), (x, weight))
    assert torch.autograd.gradcheck(layer.mlp, (x,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_bfloat16_is_as_near_as_the_model_itself(dtype):
    exact = tiny_model("sdpa", dtype=torch.float64)(IDS).logits.detach()
    plain, fused = tiny_model("sdpa", dtype=dtype), tiny_model("sdpa", dtype=dtype)
    fuse(fused)
    worst = float((plain(IDS).logits.detach().double() - exact).abs().max())
    assert float((fused(IDS).logits.detach().double() - exact).abs().max()) <= 1.5 * worst + 1e-9


@pytest.mark.parametrize("kind", ["full", "lora", "dora", "dropout", "qlora"])
def test_the_gated_product_is_made_again_and_not_kept(kind, monkeypatch):
    """The gradient is that of a model which keeps it, and its memory is free before the backward pass."""
    config = LoraConfig(rank=4, dora=kind == "dora", dropout=0.5 * (kind == "dropout"))
    made, gate_of = [], fuse_module.Gate

    class Watched(gate_of):
        @staticmethod
        def forward(ctx, gate, up):
            out = gate_of.forward(ctx, gate, up)
            made.append(StorageWeakRef(out.untyped_storage()))
            return out

    monkeypatch.setattr(fuse_module, "Gate", Watched)

    def grads(fused: bool) -> torch.Tensor:
        model = tiny_model("sdpa", dtype=torch.float64)
        if fused:
            fuse(model)
        made.clear()
        torch.manual_seed(1)
        found = tune.prepare(model, kind if kind in ("full", "qlora") else "lora", config, QuantConfig())
        for _, layer in lora.adapters(model):
            torch.nn.init.normal_(layer.B, std=0.1)
        torch.manual_seed(2)
        loss = model.train()(IDS).logits.log_softmax(-1)[..., 5].sum()
        assert all(storage.expired() for storage in made) and len(made) == 2 * fused
        loss.backward()
        return torch.cat([p.grad.flatten() for p in found.parameters.values()])

    plain, ours = grads(False), grads(True)
    assert float((ours - plain).norm() / plain.norm()) < 1e-6


def test_other_formulas_are_left_alone():
    class Shifted(nn.Module):
        """Gemma's norm: (1 + w) instead of w."""

        def __init__(self):
            super().__init__()
            self.weight, self.variance_epsilon = nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon) * (1 + self.weight)

    class Gelu(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.down_proj(nn.functional.gelu(self.gate_proj(x)) * self.up_proj(x))

    assert fuse(nn.ModuleList([Shifted(), Gelu()])) == 0
