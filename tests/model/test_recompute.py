"""Blocks computed again in the backward pass: the same gradients to the bit, whatever learns and whoever plays."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from conftest import random_tree, tiny_model
from luthier.config.model import LoraConfig, QuantConfig
from luthier.core import seeds
from luthier.core.types.batch import Batch, Needs
from luthier.model.adapt import heads, roles, tune
from luthier.model.forward import forward
from luthier.model.layers import attention
from luthier.model.layers.fuse import counted, fuse
from luthier.model.layers.recompute import blocks, recompute_blocks
from luthier.text.pack import pack
from mixtures import mixture

KINDS: dict[str, tuple[str, LoraConfig]] = {
    "full": ("full", LoraConfig()),
    "head": ("head", LoraConfig()),
    "last:1": ("last:1", LoraConfig()),
    "lora": ("lora", LoraConfig(rank=4)),
    "dropout": ("lora", LoraConfig(rank=4, dropout=0.3)),
    "dora": ("lora", LoraConfig(rank=4, dora=True)),
    "qlora": ("qlora", LoraConfig(rank=4)),
}


def batch(seed: int = 0, vocabulary: int = 512) -> Batch:
    """Trees with branches in one row, so that attention goes by the plan of the packed tree."""
    draw = random.Random(seed)
    trees = [random_tree(draw, children=n, row=n, prefix=(1, 2, 3, 4, 5), vocabulary=vocabulary) for n in (0, 2, 3)]
    return pack(trees, [[1.0] * sum(sum(node.trained) for node in tree.nodes) for tree in trees])


def ready(name: str, dtype: torch.dtype = torch.float32) -> tune.Tuned:
    model = tiny_model(dtype=dtype).train()
    assert fuse(model) == 7  # two norms and an MLP in each block, and the last norm
    kind, lora = KINDS[name]
    tuned = tune.prepare(model, kind, lora, QuantConfig(block=16))
    if tune.is_adapter(kind):
        with torch.no_grad():
            for key, parameter in tuned.parameters.items():
                if key.endswith(".B"):
                    parameter.normal_(0, 0.1)
    return tuned


def learned(tuned: tune.Tuned) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    seeds.seed_torch(3, "dropout")
    out = forward(tuned.model, batch())
    out.logp.sum().backward()
    return out.logp.detach(), {n: p.grad for n, p in tuned.parameters.items() if p.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_the_same_bits(name: str, dtype: torch.dtype) -> None:
    kept, again = ready(name, dtype), ready(name, dtype)
    assert recompute_blocks(again.model) == 2
    (logp, wanted), (logp_again, got) = learned(kept), learned(again)
    assert torch.equal(logp, logp_again)
    assert wanted.keys() == got.keys() and wanted
    assert all(torch.equal(wanted[key], got[key]) for key in wanted)
    assert name == "head" or any(
        bool(grad.abs().sum()) for key, grad in got.items() if "layers.0" in key or "last" in name
    )


def test_of_a_block_only_its_input_is_kept() -> None:
    def bytes_kept(tuned: tune.Tuned) -> int:
        own = {p.untyped_storage()._cdata for p in tuned.model.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage()._cdata not in own:
                kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with counted(keep):
            forward(tuned.model, batch())
        return sum(tensor.nbytes for tensor in kept.values())

    kept, again = ready("lora"), ready("lora")
    recompute_blocks(again.model)
    assert bytes_kept(again) < 0.25 * bytes_kept(kept)  # the last norm and the head alone


def test_the_gradient_is_of_who_played_in_the_forward_pass() -> None:
    """A critic's values are learned after the actor has taken its place again."""

    def gradients(again: bool) -> dict[str, torch.Tensor]:
        tuned = ready("lora")
        critic = roles.role(tuned.model, learn=True)
        heads.attach(tuned.model, {"value": 1})
        critic.whole["value"] = heads.on(tuned.model)["value"]
        heads.detach(tuned.model, ("value",))
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in critic.parameters_by_name.values():
                parameter.normal_(0, 0.1)
        if again:
            recompute_blocks(tuned.model)
        actor = forward(tuned.model, batch()).logp.sum()
        with roles.playing(tuned.model, critic):
            values = forward(tuned.model, batch(), Needs(logp=False, value=True)).value
        assert values is not None
        (actor + values.square().sum()).backward()
        named: dict[str, Any] = {f"critic.{n}": p for n, p in critic.parameters_by_name.items()} | tuned.parameters
        return {name: p.grad for name, p in named.items()}

    wanted, got = gradients(again=False), gradients(again=True)
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert bool(got["critic.model.layers.0.mlp.up_proj.A"].abs().sum())


def test_without_gradient_nothing_changes() -> None:
    kept, again = ready("lora"), ready("lora")
    recompute_blocks(again.model)
    with torch.no_grad():
        assert torch.equal(forward(kept.model, batch()).logp, forward(again.model, batch()).logp)


def test_blocks_are_those_of_the_decoder() -> None:
    assert list(blocks(tiny_model())) == ["layers.0", "layers.1"]


def test_experts_have_the_adapters_that_they_had_too() -> None:
    """Those of stacked weights stand among the parameters of a module."""

    def gradients(again: bool) -> dict[str, torch.Tensor | None]:
        torch.manual_seed(1)
        tuned = tune.prepare(
            mixture(attention_of=attention.NAME).train(), "lora", LoraConfig(rank=4), QuantConfig(block=16)
        )
        with torch.no_grad():
            for parameter in tuned.parameters.values():
                parameter.normal_(0, 0.1)
        if again:
            recompute_blocks(tuned.model)
        total = forward(tuned.model, batch(vocabulary=64)).logp.sum()
        with roles.playing(tuned.model, roles.Role({}, {})):
            total.backward()
        return {name: parameter.grad for name, parameter in tuned.parameters.items()}

    wanted, got = gradients(again=False), gradients(again=True)
    assert any("experts" in name for name in wanted)
    for name, grad in wanted.items():
        again = got[name]
        assert (grad is None) == (again is None)
        assert grad is None or again is None or torch.equal(grad, again)
