"""GPT-2, whose linear layers hold their weight as [in, out] (Conv1D): every tune kind, adapters as PEFT has them, merging."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.errors import InputError
from luthier.model import estimate
from luthier.model.adapt import adapters, base, lora, quantize, targets, tune
from sentences import sentence

IDS = torch.arange(1, 25).reshape(2, 12)
VARIANTS = {
    "lora": {},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "some": {"targets": ("c_attn", "mlp.c_proj")},
}
CONFIG = GPT2Config(
    n_layer=2, n_head=4, n_embd=32, vocab_size=64, n_positions=64, bos_token_id=1, eos_token_id=2, attn_pdrop=0.0,
    embd_pdrop=0.0, resid_pdrop=0.0,
)  # fmt: skip


def gpt2():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.requires_grad_(False)


def learned(model) -> None:
    """As if the adapters had learned something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for _, adapter in lora.adapters(model):
            adapter.B.add_(torch.randn_like(adapter.B) * 0.1)
            if adapter.magnitude is not None:
                adapter.magnitude.mul_(1.1)


def logp(model) -> torch.Tensor:
    return model(IDS).logits.log_softmax(-1)


def test_all_linear_means_all_layers_of_the_blocks() -> None:
    names = {name.removeprefix("transformer.h.") for name in targets.chosen(gpt2(), ["all-linear"])}
    assert names == {f"{n}.{part}" for n in (0, 1) for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.medium
def test_adapters_are_those_of_peft_and_merge(variant, tmp_path) -> None:
    from peft import PeftModel

    config = LoraConfig(rank=4, alpha=6, **VARIANTS[variant])
    model, plain = gpt2(), logp(gpt2())
    lora.attach(model, config)
    torch.testing.assert_close(logp(model), plain, atol=1e-5, rtol=0)  # a fresh adapter changes nothing
    learned(model)
    wanted = logp(model)
    assert not torch.allclose(wanted, plain, atol=1e-2)
    adapters.save(tmp_path, model, "tiny", config)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    torch.testing.assert_close(logp(PeftModel.from_pretrained(gpt2(), tmp_path)), wanted, atol=1e-5, rtol=0)
    again = gpt2()
    adapters.apply(again, tmp_path)
    torch.testing.assert_close(logp(again), wanted, atol=1e-5, rtol=0)
    lora.merge(model)
    torch.testing.assert_close(logp(model), wanted, atol=1e-5, rtol=0)
    model.save_pretrained(tmp_path / "merged")
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logp(theirs), wanted, atol=1e-5, rtol=0)


def test_gradients_equal_those_of_peft() -> None:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    names = ["c_attn", "c_proj", "c_fc"]
    theirs = get_peft_model(
        gpt2().double(), PeftConfig(r=4, lora_alpha=6, target_modules=names, fan_in_fan_out=True)
    ).double()
    ours = gpt2().double()
    found = lora.attach(ours, LoraConfig(rank=4, alpha=6))
    learned(ours)
    with torch.no_grad():
        for name, adapter in found.items():
            layer = theirs.get_submodule(f"base_model.model.{name}")
            layer.lora_A["default"].weight.copy_(adapter.A)
            layer.lora_B["default"].weight.copy_(adapter.B)
    for model in (ours, theirs):
        logp(model)[..., 7].sum().backward()
    for name, adapter in found.items():
        layer = theirs.get_submodule(f"base_model.model.{name}")
        torch.testing.assert_close(adapter.A.grad, layer.lora_A["default"].weight.grad, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(adapter.B.grad, layer.lora_B["default"].weight.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["full", "head", "last:1", "layers:*.mlp.*", "lora", "qlora"])
def test_only_what_is_named_learns(kind) -> None:
    tuned = tune.prepare(gpt2(), kind, LoraConfig(rank=4), QuantConfig())
    logp(tuned.model)[..., 3].sum().backward()
    found = {name for name, p in tuned.model.named_parameters() if p.grad is not None}
    assert found == set(tuned.parameters)
    assert (found == {"lm_head.weight"}) is (kind == "head")
    if kind in ("lora", "qlora"):
        assert len(found) == 2 * 8


def test_a_quantized_layer_comes_back_as_it_lay() -> None:
    """The blocks of NF4 are of rows [out, in], as of any other layer; merged, the model is a GPT-2 again."""
    model = gpt2()
    weights = {name: layer.weight.clone() for name, layer in targets.linears(model).items()}
    tune.prepare(model, "qlora", LoraConfig(rank=4), QuantConfig())
    learned(model)
    layer = lora.base_of(model, "transformer.h.0.mlp.c_fc")
    wanted = quantize.quantize(weights["transformer.h.0.mlp.c_fc"].T.contiguous()).dequantize(torch.float32)
    assert torch.equal(layer.dequantize(), wanted)
    before = logp(model)
    lora.merge(model)
    base.dequantize_base(model)
    assert {type(layer) for layer in targets.linears(model).values()} == {Conv1D}
    torch.testing.assert_close(logp(model), before, atol=1e-5, rtol=0)


def test_what_qlora_needs_is_estimated() -> None:
    """The same adapters; the four layers of both blocks in 4 bits in place of 32."""
    found = {
        kind: estimate.estimate(
            CONFIG, tune_kind=kind, lora=LoraConfig(rank=4), quant=QuantConfig(), dtype=torch.float32, tokens=32,
            optimizer="adamw", device=torch.device("cpu"), process=0,
        )
        for kind in ("lora", "qlora")
    }  # fmt: skip
    assert found["lora"].trainable == found["qlora"].trainable == 2 * 4 * ((32 + 96) + (32 + 32) + 2 * (32 + 128))
    saved = 2 * sum(4 * size - quantize.stored_bytes(size) for size in (32 * 96, 32 * 32, 32 * 128, 128 * 32))
    assert found["lora"].weights - found["qlora"].weights == saved - 4 * 32 * 128  # and one layer is expanded at a time


def test_names_are_shown_as_the_architecture_has_them() -> None:
    with pytest.raises(InputError, match=sentence("no weight matches")):
        tune.prepare(gpt2(), "layers:nothing", LoraConfig(rank=4), QuantConfig())
