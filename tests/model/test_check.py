"""The check at load: exact architectures pass, others are refused by name, whatever it is that differs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from luthier.core.errors import InputError
from luthier.model import check, checked, load
from luthier.model.layers import experts, fuse
from luthier.model.layers.attention import register
from luthier.model.layers.prefix import hidden_after
from sentences import sentence

SHAPE = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "head_dim": 16, "pad_token_id": 0,
}  # fmt: skip
QWEN2_MOE = {"num_experts": 2, "num_experts_per_tok": 1, "use_sliding_window": True, "max_window_layers": 2}
WINDOW = {"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]}


def made(kind: str, seed: int = 0, **changes):
    """A random model of an architecture, with weights large enough that what is wrong shows."""
    register()
    torch.manual_seed(seed)
    config = CONFIG_MAPPING[kind](**(SHAPE | changes))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="luthier").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2) if parameter.dim() > 1 else parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model


def verdict(model) -> str:
    wanted = check.expected(model)
    fuse.fuse(model)
    check.check(model, wanted)
    return "exact"


PACKED = "log-probabilities of packed rows are up to … from those of transformers"


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}),
        ("qwen3", {}),
        ("mistral", {"sliding_window": 64}),
        ("gemma3_text", WINDOW),
        ("granite", {"logits_scaling": 3.0, "residual_multiplier": 0.7, "attention_multiplier": 0.2}),
        ("cohere2", WINDOW | {"logit_scale": 0.25}),
        ("gemma2", WINDOW | {"query_pre_attn_scalar": 16}),
        ("gpt_oss", WINDOW | {"num_local_experts": 2, "num_experts_per_tok": 1}),
        ("qwen2_moe", {"sliding_window": 64} | QWEN2_MOE),
        (
            "phimoe",
            {"sliding_window": 64, "num_local_experts": 2, "num_experts_per_tok": 1},
        ),  # whose attention is not told its window
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_exact_architectures_pass(kind, changes) -> None:
    model = made(kind, **changes)
    config = model.config.to_dict()
    assert verdict(model) == "exact"
    assert model.config.to_dict() == config  # windows and attention are as they were
    assert model.config._attn_implementation == "luthier"


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        (
            "xglm",
            {"d_model": 32, "attention_heads": 4, "num_layers": 2, "ffn_dim": 64},
            "log-probabilities of packed rows are up to",
        ),
        (
            "openai-gpt",
            {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 256},
            "log-probabilities of packed rows are up to",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_others_are_refused_by_name_in_one_line(kind, changes, why) -> None:
    with pytest.raises(InputError) as caught:
        verdict(made(kind, **changes))
    assert f"does not compute models of type '{kind}' exactly: {why}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("window", [64, 255, 256])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("phimoe", {"num_local_experts": 2, "num_experts_per_tok": 1}),
        ("qwen2_moe", QWEN2_MOE),
    ],
    ids=["phimoe", "qwen2_moe"],
)
def test_a_window_that_is_passed_over_matters_where_rows_can_outgrow_it(kind, changes, window, monkeypatch) -> None:
    """A window of 64 tokens hides nothing of a path of 16: the check narrows it. No row of 256 tokens is longer than one of 256."""
    model = made(kind, sliding_window=window, **changes)
    for layer in model.model.layers:
        original = layer.self_attn.forward

        def forward(*args, own=original, part=layer.self_attn, attention_mask=None, tree=None, **named):
            if tree is None:
                return own(*args, attention_mask=attention_mask, **named)
            with monkeypatch.context() as told:  # Luthier's own call is told of no window, neither here nor there
                told.setitem(vars(part), "sliding_window", None)
                return own(*args, attention_mask=None, tree=tree, **named)

        layer.self_attn.forward = forward
    if window == 256:
        assert verdict(model) == "exact"
        return
    with pytest.raises(InputError, match=sentence("model not computed exactly", why=PACKED)):
        verdict(model)


def test_a_wrong_fusion_is_seen(monkeypatch) -> None:
    """The reference is taken before norms and gates are replaced."""
    monkeypatch.setattr(fuse, "agrees", lambda module, forward: True)
    model = made("gemma3_text", **WINDOW)
    model.model.norm.variance_epsilon = 1e-6  # as if Gemma's norm, which adds 1 to its weight, were Llama's
    with pytest.raises(InputError, match=sentence("model not computed exactly", why=PACKED)):
        verdict(model)


def test_what_is_wrong_only_when_text_is_read_piece_by_piece_is_refused_too() -> None:
    """DiffLlama's layers attend twice: what each remembers would be the second's."""
    with pytest.raises(
        InputError,
        match=sentence("model not computed exactly", why="log-probabilities of text that is read piece by piece …"),
    ):
        verdict(made("diffllama"))


def test_16_bits_pass() -> None:
    assert verdict(made("llama").to(torch.bfloat16)) == "exact"


MIXTURES = {
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": 64},
    "gpt_oss": {"num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": 64, "layer_types": ["sliding_attention"] * 4},
}  # fmt: skip


def mixture(kind: str, seed: int):
    """A mixture in bfloat16, of four layers whose routers rounding turns round."""
    model = made(kind, seed=seed, num_hidden_layers=4, **MIXTURES[kind]).to(torch.bfloat16)
    experts.install(model)
    return model


@pytest.mark.medium
@pytest.mark.parametrize("kind", MIXTURES)
def test_no_mixture_is_refused_for_what_rounding_makes_of_its_routers(kind) -> None:
    far = []
    for seed in range(8):
        model = mixture(kind, seed)
        wanted = check.expected(model)
        check.check(model, wanted)
        unlike = check.computed(model, None)[0]  # its experts chosen anew
        far.append(float((unlike - wanted.logp).abs().max() / wanted.logp.std()))
    assert max(far) > 0.3  # a token that goes to other experts is as far off as a fault


@pytest.mark.medium
@pytest.mark.parametrize("fault", ["a window that is passed over", "rows that see each other"])
@pytest.mark.parametrize("kind", MIXTURES)
def test_a_fault_is_seen_in_every_mixture_in_16_bits(kind, fault, monkeypatch) -> None:
    for seed in range(8):
        model = mixture(kind, seed)
        wanted = check.expected(model)

        def wrong(model, batch, *others, own=hidden_after):
            if fault == "rows that see each other":
                return own(model, dataclasses.replace(batch, node_parent=(-1, 0, 1)), *others)
            with monkeypatch.context() as wide:
                for part in (*model.modules(), model.config):
                    if isinstance(vars(part).get("sliding_window"), int):
                        wide.setitem(vars(part), "sliding_window", 64)
                return own(model, batch, *others)

        monkeypatch.setattr(check, "hidden_after", wrong)
        with pytest.raises(InputError, match=sentence("model not computed exactly", why=PACKED)):
            check.check(model, wanted)
        monkeypatch.undo()


def test_a_kind_of_model_is_checked_once_in_a_process(tiny_folder: Path, tmp_path: Path, monkeypatch) -> None:
    asked = []
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    monkeypatch.setattr(load, "CHECKED", set())
    checked.forget()
    monkeypatch.setattr(check, "expected", lambda model, own=check.expected: asked.append(1) or own(model))
    for _ in range(2):
        load.load(tiny_folder, device=torch.device("cpu"), dtype=torch.float32)
    load.load(tiny_folder, device=torch.device("cpu"), dtype=torch.float32, attention="sdpa")
    assert len(asked) == 1


def test_weights_that_give_no_numbers_are_not_laid_to_the_architecture():
    model = made("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(InputError, match=sentence("model computes no numbers")):
        verdict(model)
