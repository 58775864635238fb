"""The load-balancing loss against transformers' own of separate sequences, and counts of what experts got."""

from __future__ import annotations

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from luthier.core.types.batch import Loss, Needs, Output
from luthier.core.types.trees import Node, TokenTree
from luthier.methods.balance import balanced
from luthier.model.forward import forward
from luthier.model.layers import experts, routing
from luthier.text.pack import pack
from mixtures import mixture

SYSTEM = tuple(range(3, 11))
A, B, C, D = (20, 21, 22), (30, 31), (40, 41, 42, 43, 44), (50, 51, 52)
CHAT = TokenTree((Node(SYSTEM + A + B, (False,) * 11 + (True,) * 2),))
PAIR = TokenTree((Node(SYSTEM + C, (False,) * 13), Node(A, (True,) * 3, 0), Node(D, (True,) * 3, 0)), pairs=((0, 1),))
TEXTS = (SYSTEM + A + B, SYSTEM + C + A, SYSTEM + C + D)
NEEDS = Needs(balance=True, load=True)


def packed(*trees: TokenTree, **settings):
    return pack(trees, [[1.0] * tree.trained for tree in trees], **settings)


def model(family: str = "qwen3_moe"):
    found = mixture(family, attention_of="luthier")
    experts.install(found)
    return found


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3"])
def test_the_loss_of_packed_trees_is_that_of_transformers_on_each_text(family) -> None:
    """A shared beginning stands once and counts for each text; what the row is padded with counts for none."""
    ours, theirs = model(family), mixture(family)
    batch = packed(CHAT, PAIR, pad_to=32)
    assert len(batch.tokens) == 32 > sum(map(len, TEXTS)) - 2 * len(SYSTEM)
    found = forward(ours, batch, NEEDS).balance
    wanted = []
    for text in TEXTS:
        logits = theirs.model(torch.tensor([text]), output_router_logits=True).router_logits
        wanted.append(load_balancing_loss_func(logits, 4, 2))
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-5, rtol=1e-5)
    found.sum().backward()
    torch.stack(wanted).sum().backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if other.grad is not None and float(other.grad.abs().max()) > 0:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_each_tree_counts_the_same_however_it_is_packed() -> None:
    ours = model()

    def total(*batches):
        loss = balanced(lambda batch, output: Loss(output.logp.sum() * 0, torch.zeros(1), torch.ones(1)), 0.5)
        found = [loss(batch, forward(ours, batch, NEEDS)) for batch in batches]
        return float(sum(one.total.detach() for one in found)), [one.metrics["router_loss"] for one in found]

    together, metrics = total(packed(CHAT, PAIR, tree_weight=0.5))
    apart, _ = total(packed(CHAT, tree_weight=0.5), packed(PAIR, tree_weight=0.5))
    chat, one, other = forward(ours, packed(CHAT, PAIR), NEEDS).balance.tolist()
    assert together == pytest.approx(0.5 * 0.5 * (chat + (one + other) / 2), rel=1e-5)
    assert apart == pytest.approx(together, rel=1e-5)
    assert metrics == [(pytest.approx(chat + (one + other) / 2, rel=1e-5), 2.0)]


def test_an_even_spread_costs_as_much_as_a_token_takes() -> None:
    """Two tokens, four experts, each taken once: 4 * 4 * (1/2 * 1/4) = 2."""
    logits = torch.tensor([[9.0, 9, 0, 0], [0, 0, 9, 9]])
    batch = packed(TokenTree((Node((5, 6), (False, True)),)))
    assert routing.balance([logits], batch, 2).tolist() == [pytest.approx(2.0)]
    assert routing.balance([logits[:1].expand(2, -1)], batch, 2).tolist() == [pytest.approx(4.0, rel=1e-3)]


def test_what_experts_got_is_counted_without_padding() -> None:
    counts = forward(model(), packed(CHAT, pad_to=32), NEEDS).load
    assert counts.shape == (2, 4)
    assert counts.sum(1).tolist() == [26, 26]
    counts = torch.tensor([[6, 2, 0, 0], [4, 4, 4, 4]])
    assert routing.figures(counts) == {
        "expert_load": [0.5, 0.25, 0.125, 0.125],
        "expert_load_max": 3.0,
        "experts_idle": 0.25,
    }


def test_a_dense_model_has_no_load() -> None:
    from conftest import tiny_model

    output: Output = forward(tiny_model(), packed(CHAT), Needs(load=True))
    assert output.load is None
