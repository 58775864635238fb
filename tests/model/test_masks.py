"""Nodes that see themselves whole, as encoders do, beside causal ones; labels that are not the tokens; positions on axes."""

from __future__ import annotations

import random

import pytest
import torch

from conftest import gradient, random_tree, separate_logp, tiny_model
from luthier.core.types.batch import Needs
from luthier.core.types.trees import Node, TokenTree
from luthier.model.forward import forward, hidden_states
from luthier.model.layers import plan
from luthier.model.layers.attention import register
from luthier.model.layers.scoring import Local, Scoring
from luthier.text.pack import pack


def masked_text(draw, length, vocabulary=512, **more):
    """A text as a masked language model learns it: some tokens hidden, whose own ids are the labels."""
    labels = tuple(draw.randrange(vocabulary) for _ in range(length))
    hidden = tuple(draw.random() < 0.3 for _ in labels)
    ids = tuple(0 if hide else label for hide, label in zip(hidden, labels, strict=True))
    return Node(ids, hidden, labels=labels, mask="full", **more)


def ones(trees):
    return [[1.0] * tree.trained for tree in trees]


def whole(model, node):
    """log p of a full node's labels, its text run alone under a mask of transformers' that hides nothing."""
    ids = torch.tensor([node.ids])
    nothing = torch.zeros(1, 1, len(node.ids), len(node.ids), dtype=model.dtype)
    logp = model(ids, attention_mask=nothing).logits[0].log_softmax(-1)
    return torch.stack([logp[i, node.labels[i]] for i, learned in enumerate(node.trained) if learned])


@pytest.mark.parametrize("longest", [20, 300])
def test_full_nodes_beside_causal_ones_are_each_as_alone(longest):
    """In value and gradient; also where a node takes several blocks of queries."""
    draw = random.Random(longest)
    masked = [TokenTree((masked_text(draw, n),), row=n) for n in (longest, 9, 17)]
    causal = [random_tree(draw, children=c, row=c) for c in (0, 2)]
    ours, theirs = (tiny_model(attention, dtype=torch.float64) for attention in ("luthier", "eager"))
    trees = [masked[0], causal[0], masked[1], causal[1], masked[2]]
    packed = forward(ours, pack(trees, ones(trees), pad_to=8)).logp
    apart = torch.cat(
        [whole(theirs, t.nodes[0]) if t.nodes[0].mask == "full" else separate_logp(theirs, t) for t in trees]
    )
    torch.testing.assert_close(packed, apart, atol=2e-6, rtol=1e-6)  # transformers' softmax is in float32
    for logp in (packed, apart):
        (logp * torch.arange(len(logp))).sum().backward()
    assert float((gradient(ours) - gradient(theirs)).norm() / gradient(theirs).norm()) < 1e-6


def test_an_answer_sees_its_full_prompt_whole_and_itself_causally():
    """A prefix language model: transformers is given the same mask, token by token."""
    tree = TokenTree((Node((5, 6, 7, 8), (False,) * 4, mask="full"), Node((9, 10, 11), (True,) * 3, 0)))
    see = torch.ones(7, 7).tril()
    see[:4, :4] = 1
    mask = torch.where(see > 0, 0.0, -torch.inf)[None, None]
    logits = tiny_model("eager")(torch.tensor([[5, 6, 7, 8, 9, 10, 11]]), attention_mask=mask).logits[0]
    wanted = logits.log_softmax(-1)[[3, 4, 5], [9, 10, 11]]
    found = forward(tiny_model(), pack([tree], ones([tree]))).logp
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_encoders_of_transformers_pack_too(kind):
    """States and [CLS] vectors of packed texts are those that the encoder gives each alone, its window included."""
    from transformers import AutoConfig, AutoModel

    register()
    size = {
        "vocab_size": 90,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    }
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    more = {} if kind == "bert" else {"local_attention": 8, "global_attn_every_n_layers": 2, **tokens}
    torch.manual_seed(0)
    theirs, ours = (
        AutoModel.from_config(AutoConfig.for_model(kind, **size, **more), attn_implementation=attention).eval()
        for attention in ("eager", "luthier")
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    ours.load_state_dict(theirs.state_dict())
    draw = random.Random(1)
    nodes = [masked_text(draw, n, 90) for n in (30, 7, 21)]
    batch = pack([TokenTree((node,)) for node in nodes], [[1.0] * sum(node.trained) for node in nodes])
    with torch.no_grad():
        apart = [theirs(torch.tensor([node.ids])).last_hidden_state[0] for node in nodes]
        torch.testing.assert_close(hidden_states(ours, batch), torch.cat(apart), atol=1e-5, rtol=1e-5)
        first = forward(ours, batch, Needs(logp=False, embed="first")).embed
    torch.testing.assert_close(first, torch.stack([states[0] for states in apart]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("local", [None, Local(4)])
@pytest.mark.medium
def test_the_block_sparse_rule_sees_what_the_groups_see(local):
    """The rule that a GPU's kernel takes, run uncompiled on the CPU."""
    from torch.nn.attention.flex_attention import flex_attention

    draw = random.Random(11)
    answer = Node((1, 2, 3), (True,) * 3, 0)
    trees = [random_tree(draw, children=2), TokenTree((masked_text(draw, 13), answer, answer)), random_tree(draw)]
    batch = pack(trees, ones(trees), pad_to=16)
    tree = plan.TreePlan(batch, torch.device("cpu"))
    q, k, v = (torch.randn(1, heads, len(batch.tokens), 16) for heads in (4, 2, 2))
    ours = tree.attend(0, q, k, v, Scoring(0.25, local))
    theirs = flex_attention(q, k, v, block_mask=tree.block_mask(local), scale=0.25, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_teachers_choice_is_learned_in_the_place_of_the_token():
    tree = TokenTree((Node((5, 6, 7), (False, True, True), labels=(0, 40, 50)),))
    model = tiny_model("eager")
    logp = model(torch.tensor([[5, 6, 7]])).logits[0].log_softmax(-1)
    found = forward(tiny_model(), pack([tree], ones([tree]))).logp
    torch.testing.assert_close(found, torch.stack([logp[0, 40], logp[1, 50]]), atol=1e-5, rtol=1e-5)


def test_windows_are_measured_by_tokens_whatever_their_positions():
    ids = tuple(range(5, 25))
    plain, far = Node(ids, (True,) * 20), Node(ids, (True,) * 20, positions=(tuple(range(0, 60, 3)),))
    plans = [plan.TreePlan(pack([TokenTree((n,))], [[1.0] * 20]), torch.device("cpu")) for n in (plain, far)]
    q, k, v = (torch.randn(1, 2, 20, 8) for _ in range(3))
    one, other = (tree.attend(0, q, k, v, Scoring(0.3, Local(4))) for tree in plans)
    assert torch.equal(one, other)


def vision_and_text(kind):
    """The text part of a tiny Qwen2-VL, whose rotary positions have three axes."""
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLTextModel

    register()
    torch.manual_seed(0)
    config = Qwen2VLTextConfig(
        vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}, attn_implementation=kind,
    )  # fmt: skip
    model = Qwen2VLTextModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    return model


def test_positions_on_three_axes_are_those_of_qwen2_vl():
    """With equal axes they are plain ones; with a picture's, packed trees are as the model alone has them."""
    ours, theirs = vision_and_text("luthier"), vision_and_text("eager")
    text = tuple(range(3, 12))
    equal = Node(text, (False,) * 9, positions=(tuple(range(9)),) * 3)
    plain = Node(text, (False,) * 9)
    grid = ((0, 1, 2, 2, 2, 2, 4, 5, 6), (0, 1, 2, 2, 3, 3, 4, 5, 6), (0, 1, 2, 3, 2, 3, 4, 5, 6))
    trees = [TokenTree((node,)) for node in (equal, plain, Node(text, (False,) * 9, positions=grid))]
    with torch.no_grad():
        alone = theirs(torch.tensor([text])).last_hidden_state[0]
        pictured = theirs(torch.tensor([text]), position_ids=torch.tensor(grid)[:, None]).last_hidden_state[0]
        found = hidden_states(ours, pack(trees, ones(trees)))
        one_axis = hidden_states(ours, pack(trees[1:2], ones(trees[1:2])))
    torch.testing.assert_close(found, torch.cat([alone, alone, pictured]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one_axis, alone, atol=1e-5, rtol=1e-5)
    assert float((alone - pictured).abs().max()) > 0.01
