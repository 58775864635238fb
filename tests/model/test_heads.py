"""Score and value heads: where they read, that they start at zero, and that PEFT and transformers read what is saved."""

from __future__ import annotations

import random

import pytest
import torch

from conftest import random_tree, tiny_config, tiny_model
from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.errors import InputError
from luthier.core.types.batch import LOGP, Needs
from luthier.core.types.trees import Node, TokenTree
from luthier.model.adapt import adapters, heads, lora, tune
from luthier.model.forward import forward
from luthier.text.pack import pack
from sentences import sentence

SCORE = Needs(logp=False, score=1)


def packed(trees):
    return pack(trees, [[1.0] * tree.trained for tree in trees])


@pytest.fixture
def trees():
    draw = random.Random(0)
    return [random_tree(draw, children=draw.randint(1, 3), row=i, longest=14) for i in range(4)]


def paths(trees):
    """Every answer behind its prompt, as ids."""
    return [tree.nodes[0].ids + answer.ids for tree in trees for answer in tree.nodes[1:]]


def test_a_method_gets_the_heads_it_needs():
    assert heads.widths(LOGP) == {}
    assert heads.widths(SCORE) == {"score": 1}
    assert heads.widths(Needs(value=True, entropy=True)) == {"value": 1}


@pytest.mark.parametrize(("dtype", "precise"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_new_heads_learn_from_zero_in_full_precision(dtype, precise):
    model = tiny_model(dtype=dtype)
    tuned = tune.prepare(model, "lora", LoraConfig(rank=2), QuantConfig(), {"score": 1, "value": 1})
    assert heads.on(model).keys() == {"score", "value"}
    for name in heads.NAMES:
        weight = tuned.parameters[f"{name}.weight"]
        assert weight.dtype == precise
        assert weight.shape == (1, 32)
        assert not weight.any()
    if dtype == torch.bfloat16:  # slow where the processor does not have it
        return
    batch = packed([TokenTree((Node((1, 2, 3), (False, True, True)),))])
    out = forward(model, batch, Needs(score=1, value=True))
    assert out.score.tolist() == [[0.0]]
    assert out.value.tolist() == [0.0, 0.0]
    assert out.score.dtype == out.value.dtype == precise


def test_a_head_that_is_put_is_frozen_and_read_at_the_right_places():
    """The score at the last trained token of each answer; the value at the token before each target."""
    model = tiny_model()
    weight = torch.randn(1, 32)
    for name in heads.NAMES:
        heads.put(model, name, weight)
        assert not getattr(model, name).weight.requires_grad
    root, better = (
        Node((5, 6, 7), (False,) * 3),
        Node((8, 9, 10), (True, True, False), 0),
    )  # an untrained newline at its end
    tree = TokenTree((root, better, Node((11,), (True,), 0)))
    out = forward(model, packed([tree]), Needs(score=1, value=True))
    with torch.no_grad():
        states = [
            tiny_model("sdpa").model(torch.tensor([ids])).last_hidden_state[0]
            for ids in ((5, 6, 7, 8, 9), (5, 6, 7, 11))
        ]
    wanted = [weight[0] @ states[0][4], weight[0] @ states[1][3]]
    torch.testing.assert_close(out.score.detach()[:, 0], torch.stack(wanted), atol=1e-5, rtol=1e-5)
    wanted = [weight[0] @ states[0][2], weight[0] @ states[0][3], weight[0] @ states[1][2]]
    torch.testing.assert_close(out.value.detach(), torch.stack(wanted), atol=1e-5, rtol=1e-5)


def learned(config):
    """A model with an adapter and a score head that have learned something."""
    model = tiny_model()
    tune.prepare(model, "lora", config, QuantConfig(), {"score": 1})
    torch.manual_seed(1)
    with torch.no_grad():
        for _, adapter in lora.adapters(model):
            adapter.B.add_(torch.randn_like(adapter.B) * 0.1)
        model.score.weight.normal_()
    return model


@pytest.mark.parametrize("changes", [{}, {"init": "pissa"}, {"dora": True}, {"targets": ("q_proj",)}], ids=str)
def test_peft_reads_a_reward_adapter_and_gives_the_same_scores(trees, tmp_path, changes):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    config = LoraConfig(rank=4, alpha=6, **changes)
    model = learned(config)
    adapters.save(tmp_path, model, "tiny", config)
    base = AutoModelForSequenceClassification.from_config(tiny_config(num_labels=1))
    base.model.load_state_dict(tiny_model("sdpa").model.state_dict())
    theirs = PeftModel.from_pretrained(base, tmp_path).eval()
    with torch.no_grad():
        scores = torch.cat([theirs(torch.tensor([ids])).logits for ids in paths(trees)])
        ours = forward(model, packed(trees), SCORE).score
    torch.testing.assert_close(ours, scores, atol=1e-5, rtol=1e-5)
    assert float(scores.std()) > 0.1


def test_a_head_of_three_numbers_is_that_of_a_sequence_classifier(trees):
    from transformers import AutoModelForSequenceClassification

    theirs = AutoModelForSequenceClassification.from_config(tiny_config(num_labels=3)).eval()
    theirs.model.load_state_dict(tiny_model("sdpa").model.state_dict())
    ours = tiny_model()
    heads.put(ours, "score", theirs.score.weight.detach())
    scores = torch.cat([theirs(torch.tensor([ids])).logits for ids in paths(trees)])
    found = forward(ours, packed(trees), Needs(logp=False, score=3)).score
    assert found.shape == (len(paths(trees)), 3)
    torch.testing.assert_close(found, scores, atol=1e-5, rtol=1e-5)


def test_a_head_of_another_width_is_not_gone_on_from(tmp_path):
    adapters.save(tmp_path, learned(LoraConfig(rank=4)), "tiny", LoraConfig(rank=4))
    again = tiny_model()
    tune.prepare(again, "lora", adapters.settings_of(tmp_path, LoraConfig(rank=4)), QuantConfig(), {"score": 3})
    with pytest.raises(InputError, match=sentence("head of another width", name="score", width=1, wanted=3)):
        adapters.go_on(again, tmp_path)


def test_we_read_a_reward_adapter_again(trees, tmp_path):
    config = LoraConfig(rank=4)
    model = learned(config)
    adapters.save(tmp_path, model, "tiny", config)
    again = tiny_model()
    adapters.apply(again, tmp_path)
    with torch.no_grad():
        wanted, found = (forward(m, packed(trees), SCORE).score for m in (model, again))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    assert not any(p.requires_grad for p in again.score.parameters())


def test_training_goes_on_with_the_head_of_an_adapter(tmp_path):
    config = LoraConfig(rank=4)
    model = learned(config)
    adapters.save(tmp_path, model, "tiny", config)
    again = tiny_model()
    tuned = tune.prepare(again, "lora", adapters.settings_of(tmp_path, config), QuantConfig(), {"score": 1})
    adapters.go_on(again, tmp_path)
    assert torch.equal(tuned.parameters["score.weight"], model.score.weight)
    assert tuned.parameters["score.weight"].requires_grad
