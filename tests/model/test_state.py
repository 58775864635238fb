"""Layers with a state in packed trees: it branches at nodes, and no text sees what stands before it in the row."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch

from conftest import gradient, random_tree, separate_logp
from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.types.trees import Node, TokenTree
from luthier.generate.generate import generate
from luthier.generate.sampling import Sampling
from luthier.model.adapt import tune
from luthier.model.forward import forward
from luthier.model.layers import plan
from luthier.model.layers.attention import register
from luthier.model.layers.state import carry, stateful
from luthier.text.pack import pack
from tiny_architectures import VOCABULARY, spread, tiny_config

ONE = {"falcon_h1": {"lm_head_multiplier": 1.0}}


def hybrid(kind, attention, dtype=torch.float32, **changes):
    from transformers import AutoModelForCausalLM

    register()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        tiny_config(kind, **ONE.get(kind, {}), **changes), attn_implementation=attention
    ).to(dtype)
    spread(model)
    return model.eval()


def trees():
    """A deep tree, three that begin alike, one of its own; longer than the convolutions and the chunks of the recurrences."""
    draw = random.Random(0)
    ids = lambda n: tuple(draw.randrange(10, VOCABULARY) for _ in range(n))  # noqa: E731
    learned = lambda n, parent: Node(ids(n), (True,) * n, parent)  # noqa: E731
    deep = TokenTree((learned(25, -1), learned(2, 0), learned(40, 1), learned(1, 1), learned(9, 0)))
    prefix = ids(14)
    alike = [random_tree(draw, vocabulary=VOCABULARY, prefix=prefix, children=c, row=c) for c in (0, 2, 3)]
    return [deep, *alike, random_tree(draw, vocabulary=VOCABULARY, longest=70)]


@pytest.mark.parametrize("kind", ["qwen3_next", "lfm2", "falcon_h1", "granitemoehybrid"])
@pytest.mark.medium
def test_packed_trees_are_their_separate_sequences(kind):
    """Gated delta net, short convolution, Mamba 2 beside and in the place of attention: log p to 1e-5, gradients too."""
    ours, theirs = hybrid(kind, "luthier"), hybrid(kind, "eager")
    assert carry(ours) == len(stateful(theirs)) > 0
    rows = trees()
    packed = forward(ours, pack(rows, [[1.0] * tree.trained for tree in rows], pad_to=16)).logp
    apart = torch.cat([separate_logp(theirs, tree) for tree in rows])
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=1e-5)
    weight = torch.linspace(-1, 1, len(packed))
    for logp in (packed, apart):
        (logp * weight).sum().backward()
    assert float((gradient(ours) - gradient(theirs)).norm() / gradient(theirs).norm()) < 1e-4


def test_without_it_packed_texts_see_each_other():
    """What `carry` is for: the layers of transformers take a packed row for one text."""
    model, rows = hybrid("lfm2", "luthier"), trees()
    batch = pack(rows, [[1.0] * tree.trained for tree in rows])
    with torch.no_grad():
        wrong = forward(model, batch).logp
        carry(model)
        right = forward(model, batch).logp
    assert float((wrong - right).abs().max()) > 0.1


def test_a_model_is_as_before_where_no_tree_is_given():
    model = hybrid("lfm2", "eager")
    ids = torch.randint(10, VOCABULARY, (2, 9))
    with torch.no_grad():
        before = model(ids).logits
        carry(model)
        assert torch.equal(model(ids).logits, before)


def test_a_state_branches_at_nodes_by_hand():
    """A layer that adds up what it has read, as integers: every token's sum is that of its path."""
    tree = TokenTree((Node((1, 2), (False,) * 2), Node((10, 20), (True,) * 2, 0), Node((100,), (True,), 0)))
    batch = pack([tree, TokenTree((Node((7, 7, 7), (False, False, True)),))], [[1.0] * 3, [1.0]], pad_to=10)
    row = plan.TreePlan(batch, torch.device("cpu"))
    sums = row.mix(0, partial(torch.cumsum, dim=1), batch.tokens[None, :, None])
    assert sums[0, :8, 0].tolist() == [1, 3, 13, 33, 103, 7, 14, 21]
    lengths = [at.shape for at in row.unfolding.rows]
    assert sum(rows * length for rows, length in lengths) <= plan.WASTE * (4 + 3 + 3 + 2)


@pytest.mark.parametrize("kind", ["qwen3_next", "lfm2", "falcon_h1", "granitemoehybrid"])
@pytest.mark.parametrize("more", [(0, 0, 0), (1, 3, 1)], ids=["the same prompt", "one token more"])
def test_an_answer_does_not_depend_on_others_that_begin_alike(kind, more):
    """Layers that read a single token write into their state in place: what prompts share must not be written to."""
    model = hybrid(kind, "luthier")
    carry(model)
    draw = random.Random(1)
    begin = [draw.randrange(10, VOCABULARY) for _ in range(20)]
    prompts = [begin + [draw.randrange(10, VOCABULARY) for _ in range(n)] for n in more]
    sampling = Sampling(max_new_tokens=8, temperature=0.0)
    together = generate(model, prompts, sampling, lambda ids: "")
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = generate(model, [prompt], sampling, lambda ids: "")
        assert found.ids == alone.ids
        torch.testing.assert_close(torch.tensor(found.logp), torch.tensor(alone.logp), atol=1e-4, rtol=0)


STEPS = [
    ("nemotron_h", {"time_step_min": 0.3}),  # which has no upper limit
    ("mamba2", {"time_step_limit": (0.01, 0.1)}),
    ("falcon_h1", {"time_step_limit": (0.3, 0.6), "ssm_multipliers": [0.5, 0.7, 0.8, 1.2, 1.5]}),
    ("granitemoehybrid", {"time_step_limit": (0.1, 0.6)}),
]


@pytest.mark.parametrize(("kind", "changes"), STEPS, ids=[kind for kind, _ in STEPS])
def test_limited_time_steps_are_limited_token_by_token_too(kind, changes):
    """transformers limits them where it reads many tokens, and forgets that when it generates: there its own answers are not
    those of its own forward pass."""
    ours, theirs = hybrid(kind, "luthier", **changes), hybrid(kind, "eager", **changes)
    carry(ours)
    prompt = [20, 31, 42, 53, 64, 75]
    (answer,) = generate(ours, [prompt], Sampling(max_new_tokens=12, temperature=0.0), lambda ids: "")
    with torch.no_grad():
        logp = theirs(torch.tensor([[*prompt, *answer.ids]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    assert list(answer.ids) == logp.argmax(-1).tolist()
    torch.testing.assert_close(torch.tensor(answer.logp), logp.max(-1).values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["lora", "qlora"])
@pytest.mark.parametrize("architecture", ["granitemoehybrid", "falcon_h1"])
def test_an_adapter_on_the_last_projection_learns(architecture, kind):
    """While it trains, Mamba 2 would take the projection's weight from below what stands in its place."""
    model = hybrid(architecture, "luthier")
    carry(model)
    learns = tune.prepare(model, kind, LoraConfig(rank=4, targets=("out_proj",)), QuantConfig(block=16)).parameters
    with torch.no_grad():
        for parameter in learns.values():
            parameter.normal_(0, 0.1)
    rows = trees()
    batch = pack(rows, [[1.0] * tree.trained for tree in rows])
    measured = forward(model.eval(), batch).logp
    while_training = forward(model.train(), batch).logp
    while_training.sum().backward()
    assert torch.equal(measured, while_training)
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in learns.values())
    assert all(module.training for module in stateful(model))
