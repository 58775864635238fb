"""What each tune kind opens, and nothing else."""

from __future__ import annotations

import pytest
import torch

from conftest import tiny_model
from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.errors import InputError
from luthier.model.adapt import tune
from sentences import sentence

KINDS = ["full", "head", "last:1", "layers:*.mlp.*", "lora", "qlora"]
IDS = torch.arange(1, 13)[None]


def prepare(kind, model=None):
    return tune.prepare(
        model or tiny_model("sdpa", hidden_size=64, intermediate_size=128), kind, LoraConfig(rank=4), QuantConfig()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_named_learns(kind):
    tuned = prepare(kind)
    tuned.model(IDS).logits.log_softmax(-1)[..., 3].sum().backward()
    learned = {name for name, p in tuned.model.named_parameters() if p.grad is not None}
    assert learned == set(tuned.parameters)
    names = " ".join(learned)
    if kind == "head":
        assert learned == {"lm_head.weight"}
    elif kind == "last:1":
        assert "layers.1." in names
        assert "layers.0." not in names
        assert "embed" not in names
    elif kind == "layers:*.mlp.*":
        assert learned
        assert all(".mlp." in name for name in learned)
    elif kind in ("lora", "qlora"):
        assert all(name.endswith((".A", ".B")) for name in learned)
        assert len(learned) == 2 * 14
    else:
        assert "embed_tokens" in names


def test_a_tied_head_gets_a_weight_of_its_own():
    tuned = prepare("head")
    embedding = tuned.model.get_input_embeddings().weight
    assert tuned.parameters["lm_head.weight"] is not embedding
    assert torch.equal(tuned.parameters["lm_head.weight"], embedding)
    assert not embedding.requires_grad
    assert tuned.model.config.tie_word_embeddings is False


def test_counts():
    assert prepare("full").trainable == sum(
        p.numel() for p in tiny_model(hidden_size=64, intermediate_size=128).parameters()
    )
    per_layer = 4 * ((64 + 64) * 2 + (64 + 32) * 2 + (64 + 128) * 3)
    assert prepare("lora").trainable == 2 * per_layer == prepare("qlora").trainable


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("lorra", sentence("unknown name", fix="did you mean 'lora'?")),
        ("last:0", sentence("kind needs a number")),
        ("last:x", sentence("kind needs a number")),
        ("last:9", sentence("too few blocks", blocks=2, given=9)),
        ("layers:", sentence("kind needs a pattern")),
        ("layers:nothing", sentence("no weight matches")),
        ("last", sentence("kind needs a number")),
    ],
)
def test_bad_kinds_are_refused(kind, words):
    with pytest.raises(InputError, match=words):
        prepare(kind)


def test_the_rule_for_learning_rates():
    assert tune.peak_rate("full", 2000) == pytest.approx(5e-5)
    assert tune.peak_rate("lora", 2000) == pytest.approx(5e-4)
    assert tune.peak_rate("lora", 576) > tune.peak_rate("lora", 2000)
