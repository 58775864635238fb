"""Experts computed here against transformers' own loop over them, and what is made on the way."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from luthier.config.model import LoraConfig, QuantConfig
from luthier.model.adapt import base, lora, stacks, tune
from luthier.model.adapt.quantize import quantize
from luthier.model.layers import experts
from mixtures import FAMILIES, mixture

IDS = torch.randint(3, 64, (2, 15), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_gradients_are_those_of_transformers(family) -> None:
    """Of every weight, the router's too; experts without a token have a gradient of zero."""
    theirs, ours = mixture(family, torch.float64), mixture(family, torch.float64)
    experts.install(ours)
    results = []
    for model in (theirs, ours):
        logits = model(IDS).logits
        logits.log_softmax(-1)[..., 7].sum().backward()
        results.append(logits.detach())
    torch.testing.assert_close(results[1], results[0], atol=1e-12, rtol=1e-10)
    for (name, one), other in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        wanted = torch.zeros_like(one) if one.grad is None else one.grad
        found = torch.zeros_like(one) if other.grad is None else other.grad
        torch.testing.assert_close(found, wanted, atol=1e-11, rtol=1e-8, msg=name)


def test_an_expert_that_no_token_chooses_costs_nothing() -> None:
    """One token takes two of the four experts."""
    model = mixture()
    experts.install(model)
    with experts.watched() as chosen:
        model(IDS[:1, :1]).logits.sum().backward()
    for layer, (taken, count) in zip(model.model.layers, chosen, strict=True):
        assert count == 4
        assert taken.shape == (1, 2)
        learned = layer.mlp.experts.down_proj.grad.flatten(1).abs().amax(1) > 0
        assert learned.nonzero().flatten().tolist() == sorted(taken.flatten().tolist())


class Largest(TorchDispatchMode):
    """Notes the most numbers that any tensor has which is made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            made = isinstance(tensor, torch.Tensor) and not any(_same(tensor, arg) for arg in args)
            self.most = max(self.most, tensor.numel() if made else 0)
        return out


def _same(tensor: torch.Tensor, arg: object) -> bool:
    return isinstance(arg, torch.Tensor) and arg.untyped_storage()._cdata == tensor.untyped_storage()._cdata


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_nothing_of_the_size_of_a_stack_is_made(kind) -> None:
    """PEFT makes W + s B A of all experts for each pass. Here 32 experts, of which each token takes two."""
    model = mixture(num_experts=32, num_local_experts=32)
    tuned = tune.prepare(model, kind, LoraConfig(rank=2, targets=("gate_up_proj", "down_proj")), QuantConfig(block=16))
    assert all("experts" in name for name in tuned.parameters)
    stack = 32 * 2 * 24 * 32
    with Largest() as noted:
        model(IDS).logits.sum().backward()
    assert 0 < noted.most <= stack // 8


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
def test_each_expert_is_quantized_by_itself(family, kind) -> None:
    """What an expert is expanded to is what it would be alone; the model computes with that, and it comes back as a parameter."""
    model = mixture(family)
    before = {
        name: getattr(module, name.rpartition(".")[2]).detach().clone() for name, module in stacks.stacks(model).items()
    }
    base.quantize_base(model, QuantConfig(kind=kind, block=16))
    assert not any(name.endswith("experts.down_proj") for name, _ in model.named_parameters())
    logits = model(IDS).logits
    base.dequantize_base(model)
    for name, weight in before.items():
        alone = torch.stack([quantize(expert, kind, 16).dequantize(torch.float32) for expert in weight])
        assert torch.equal(model.get_parameter(name), alone)
        assert not torch.equal(alone, weight)
    torch.testing.assert_close(model(IDS).logits, logits, atol=1e-5, rtol=1e-5)


def test_in_bfloat16_adapters_learn_in_float32() -> None:
    model = mixture(dtype=torch.bfloat16).requires_grad_(False)
    found = lora.attach(model, LoraConfig(rank=4, targets=("down_proj",)))
    for adapter in found.values():
        torch.nn.init.normal_(adapter.B, std=0.1)
    logits = model(IDS).logits
    logits.float().log_softmax(-1)[..., 5].sum().backward()
    assert logits.dtype == torch.bfloat16
    for adapter in found.values():
        assert adapter.A.grad.dtype == adapter.B.grad.dtype == torch.float32
        assert float(adapter.A.grad.abs().max()) > 0
