"""Adapters against PEFT: the same outputs, gradients and files; merging; what is refused."""

from __future__ import annotations

import pytest
import torch

from conftest import tiny_model
from luthier.config.model import LoraConfig
from luthier.core.errors import InputError
from luthier.model.adapt import adapters, lora, quantize, roles, targets
from sentences import sentence

VARIANTS = {
    "lora": {},
    "rslora": {"rslora": True},
    "dora": {"dora": True},
    "pissa": {"init": "pissa"},
    "some": {"targets": ("q_proj", "*.1.mlp.*")},
}


def adapted(config: LoraConfig, seed: int = 1):
    """A model with adapters that have learned something."""
    model = tiny_model("sdpa").requires_grad_(False)
    torch.manual_seed(seed)
    lora.attach(model, config)
    with torch.no_grad():
        for _, adapter in lora.adapters(model):
            adapter.B.add_(torch.randn_like(adapter.B) * 0.1)
            if adapter.magnitude is not None:
                adapter.magnitude.mul_(1.1)
    return model


IDS = torch.arange(1, 25).reshape(2, 12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_peft_reads_our_files_and_gives_the_same_logits(variant, tmp_path):
    from peft import PeftModel

    config = LoraConfig(rank=4, alpha=6, **VARIANTS[variant])
    model = adapted(config)
    adapters.save(tmp_path, model, "tiny", config)
    theirs = PeftModel.from_pretrained(tiny_model("sdpa"), tmp_path)
    torch.testing.assert_close(model(IDS).logits, theirs(IDS).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_we_read_our_files_and_merging_keeps_the_model(variant, tmp_path):
    config = LoraConfig(rank=4, alpha=6, **VARIANTS[variant])
    model = adapted(config)
    adapters.save(tmp_path, model, "tiny", config)
    again = tiny_model("sdpa")
    count = adapters.apply(again, tmp_path)
    assert count == len(list(lora.adapters(model))) == len(list(lora.adapters(again)))
    wanted = model(IDS).logits
    torch.testing.assert_close(again(IDS).logits, wanted, atol=1e-5, rtol=1e-5)
    lora.merge(model)
    assert not list(lora.adapters(model))
    torch.testing.assert_close(model(IDS).logits, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["lora", "rslora", "dora"])
def test_gradients_equal_those_of_peft(variant):
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    theirs = get_peft_model(
        tiny_model("sdpa", dtype=torch.float64),
        PeftConfig(r=4, lora_alpha=6, target_modules=names, use_rslora=variant == "rslora", use_dora=variant == "dora"),
    ).double()
    ours = tiny_model("sdpa", dtype=torch.float64).requires_grad_(False)
    found = lora.attach(ours, LoraConfig(rank=4, alpha=6, rslora=variant == "rslora", dora=variant == "dora"))
    torch.manual_seed(2)
    with torch.no_grad():
        for name, adapter in found.items():
            layer = theirs.get_submodule(f"base_model.model.{name}")
            adapter.B.normal_(0, 0.1)
            layer.lora_A["default"].weight.copy_(adapter.A)
            layer.lora_B["default"].weight.copy_(adapter.B)
    for model in (ours, theirs):
        model(IDS).logits.log_softmax(-1)[..., 7].sum().backward()
    for name, adapter in found.items():
        layer = theirs.get_submodule(f"base_model.model.{name}")
        torch.testing.assert_close(adapter.A.grad, layer.lora_A["default"].weight.grad, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(adapter.B.grad, layer.lora_B["default"].weight.grad, rtol=1e-6, atol=1e-9)
        if variant == "dora":
            magnitude = layer.lora_magnitude_vector["default"].weight.grad
            torch.testing.assert_close(adapter.magnitude.grad, magnitude.flatten(), rtol=1e-6, atol=1e-9)


def test_pissa_starts_where_peft_starts():
    """W' and s B0 A0 as PEFT's pissa init; the sum is the model as it was."""
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    plain = tiny_model("sdpa")
    ours = tiny_model("sdpa").requires_grad_(False)
    found = lora.attach(ours, LoraConfig(rank=4, alpha=4, init="pissa"))
    theirs = get_peft_model(
        tiny_model("sdpa"), PeftConfig(r=4, lora_alpha=4, target_modules=["q_proj"], init_lora_weights="pissa")
    )
    name = "model.layers.0.self_attn.q_proj"
    layer = theirs.get_submodule(f"base_model.model.{name}")
    product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(found[name].B @ found[name].A, product, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[name].base.weight, layer.base_layer.weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours(IDS).logits, plain(IDS).logits, atol=1e-4, rtol=1e-4)


def test_pissa_of_a_higher_rank_than_a_layer_has():
    plain, ours = tiny_model("sdpa"), tiny_model("sdpa").requires_grad_(False)
    found = lora.attach(ours, LoraConfig(rank=48, alpha=48, init="pissa"))
    assert min(min(layer.B.shape[0], layer.A.shape[1]) for layer in found.values()) < 48
    torch.testing.assert_close(ours(IDS).logits, plain(IDS).logits, atol=1e-4, rtol=1e-4)


def test_a_model_without_linear_layers_is_refused():
    model = tiny_model("sdpa")
    for name, layer in list(targets.linears(model).items()):
        model.set_submodule(name, torch.nn.Identity())
        assert isinstance(layer, torch.nn.Linear)
    with pytest.raises(InputError, match=sentence("no layer for an adapter")):
        lora.attach(model, LoraConfig())


def test_a_fresh_adapter_changes_nothing_and_can_be_switched_off():
    plain, model = tiny_model("sdpa"), tiny_model("sdpa").requires_grad_(False)
    lora.attach(model, LoraConfig(rank=4))
    torch.testing.assert_close(model(IDS).logits, plain(IDS).logits)
    trained = adapted(LoraConfig(rank=4))
    assert not torch.allclose(trained(IDS).logits, plain(IDS).logits, atol=1e-3)
    logits = trained(IDS).logits
    with roles.playing(trained, roles.Role({}, {})):
        assert torch.equal(trained(IDS).logits, plain(IDS).logits)
    assert torch.equal(trained(IDS).logits, logits)
    lora.detach(trained)
    assert torch.equal(trained(IDS).logits, plain(IDS).logits)


def test_dropout_acts_in_training_only():
    model = adapted(LoraConfig(rank=4, dropout=0.5))
    first, second = model(IDS).logits, model(IDS).logits
    assert torch.equal(first, second)
    model.train()
    assert not torch.equal(model(IDS).logits, model(IDS).logits)


def test_an_adapter_of_another_model_is_refused_whole(tmp_path):
    """vllm#34186: an adapter whose names do not match is applied to nothing and the base is served in silence."""
    config = LoraConfig(rank=4)
    adapters.save(tmp_path, adapted(config), "tiny", config)
    other = tiny_model("sdpa", num_hidden_layers=1)
    with pytest.raises(
        InputError,
        match=sentence("adapter of another model", name="…layers.1.…", fault="this model does not have"),
    ):
        adapters.apply(other, tmp_path)
    assert not list(lora.adapters(other))


def test_an_adapter_of_another_width_is_refused(tmp_path):
    config = LoraConfig(rank=4)
    adapters.save(tmp_path, adapted(config), "tiny", config)
    with pytest.raises(InputError, match=sentence("adapter of another shape")):
        adapters.apply(tiny_model("sdpa", hidden_size=64), tmp_path)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("q_prj", sentence("no layer matches", fix="did you mean 'q_proj'?")),
        ("lm_head", sentence("cannot take an adapter")),
        ("embed_tokens", sentence("cannot take an adapter")),
    ],
)
def test_targets_that_match_nothing_are_refused(target, words):
    """peft#2777 #2018, transformers#45127: an adapter on a tied head or embedding is lost in silence."""
    with pytest.raises(InputError, match=words):
        lora.attach(tiny_model("sdpa"), LoraConfig(targets=(target,)))


def test_a_rank_of_experts_needs_experts():
    model = tiny_model()
    with pytest.raises(InputError, match=sentence("no experts to adapt")):
        lora.attach(model, LoraConfig(rank=2, expert_rank=1))
    assert not list(lora.adapters(model))


def test_targets_are_names_globs_or_regular_expressions_as_peft_takes_them():
    """Both lists are what PEFT's own matching gives on the same names."""
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    for target in (r".*layers\.1\..*(q|v)_proj", "self_attn.q_proj", "q_proj"):
        theirs = get_peft_model(tiny_model("sdpa"), PeftConfig(target_modules=target if "*" in target else [target]))
        assert set(targets.chosen(tiny_model("sdpa"), (target,))) == set(theirs.targeted_module_names)
    with pytest.raises(InputError, match=sentence("no layer matches", target="nothing_here")):
        targets.chosen(tiny_model("sdpa"), ("q_proj", "nothing_here"))
    with pytest.raises(InputError, match=sentence("no layer matches", target=".*(x|y)_proj")):
        targets.chosen(tiny_model("sdpa"), ("q_proj", ".*(x|y)_proj"))
    with pytest.raises(
        InputError, match=sentence("names in one target", example="--lora.targets q_proj --lora.targets v_proj")
    ):
        targets.chosen(tiny_model("sdpa"), ("q_proj,v_proj",))


@pytest.mark.parametrize(
    ("name", "fault"),
    [("adapter_config.json", "no adapter settings"), ("adapter_model.safetensors", "no adapter weights")],
)
def test_a_folder_without_an_adapter_says_what_is_missing(tmp_path, name, fault):
    config = LoraConfig(rank=4)
    adapters.save(tmp_path, adapted(config), "tiny", config)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=sentence(fault)):
        adapters.apply(tiny_model("sdpa"), tmp_path)


def test_merging_in_bfloat16_rounds_once():
    model = adapted(LoraConfig(rank=4)).to(torch.bfloat16)
    adapter = dict(lora.adapters(model))["model.layers.0.self_attn.q_proj"]
    adapter.A.data, adapter.B.data = adapter.A.data.float(), adapter.B.data.float()
    wanted = (adapter.base.weight.float() + adapter.scale * adapter.B @ adapter.A).to(torch.bfloat16)
    lora.merge(model)
    assert torch.equal(model.model.layers[0].self_attn.q_proj.weight, wanted)


def test_a_role_is_a_copy_that_learns_on_its_own():
    """Playing another part changes what the model says for the block, and gradients go to the part that played."""
    model = adapted(LoraConfig(rank=4))
    part = roles.role(model, learn=True)
    before = model(IDS).logits.detach()
    with torch.no_grad():
        for parameter in part.parameters_by_name.values():
            parameter.mul_(2)
    with roles.playing(model, part):
        loud = model(IDS).logits
    assert not torch.allclose(loud, before, atol=1e-3)
    assert torch.equal(model(IDS).logits, before)
    loud.sum().backward()
    assert all(p.grad is not None for p in part.parameters_by_name.values())
    assert all(p.grad is None for _, layer in lora.adapters(model) for p in (layer.A, layer.B))


@pytest.mark.parametrize("quantized", [False, True])
def test_casting_once_changes_nothing(quantized):
    """In bfloat16 the products take A and B rounded, whoever rounds them; gradients arrive in float32."""
    model = tiny_model("sdpa", dtype=torch.bfloat16).requires_grad_(False)
    if quantized:
        quantize.quantize_linears(model, block=16)
    torch.manual_seed(1)
    found = lora.attach(model, LoraConfig(rank=4))
    for layer in found.values():
        torch.nn.init.normal_(layer.B, std=0.1)

    def results():
        logits = model(IDS).logits
        logits.float().log_softmax(-1)[..., 5].sum().backward()
        grads = [p.grad for layer in found.values() for p in (layer.A, layer.B)]
        model.zero_grad()
        return logits.detach(), grads

    logits, grads = results()
    with lora.cast_once(model):
        assert all(layer.cast and layer.cast[0].dtype == torch.bfloat16 for layer in found.values())
        again, same = results()
    assert torch.equal(again, logits)
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(grads, same, strict=True))
    assert all(layer.cast is None for layer in found.values())
    with torch.no_grad():
        found["model.layers.0.mlp.up_proj"].B.mul_(2)
    with lora.cast_once(model):
        assert not torch.equal(model(IDS).logits, logits)
