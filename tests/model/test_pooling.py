"""One vector for each leaf: the last, first or mean state of its text, shared beginnings included."""

from __future__ import annotations

import pytest
import torch

from conftest import tiny_model
from luthier.core.types.batch import Needs
from luthier.core.types.trees import Node, TokenTree
from luthier.model.forward import forward
from luthier.text.pack import pack

TEXTS = ((9, 9, 9, 9, 5, 6), (9, 9, 9, 9, 7), (3, 4))


def untrained(ids, parent=-1):
    return Node(ids, (False,) * len(ids), parent)


def states(ids):
    return tiny_model("sdpa").model(torch.tensor([ids])).last_hidden_state[0]


@pytest.mark.parametrize("pool", ["last", "first", "mean"])
def test_texts_that_share_a_beginning_have_the_vectors_they_have_alone(pool):
    """A pair is a tree of two roots; the first roots of the trees begin alike, and stand once."""
    trees = [TokenTree((untrained(TEXTS[0]), untrained(TEXTS[2]))), TokenTree((untrained(TEXTS[1]),))]
    batch = pack(trees, [[], []], pad_to=16)
    assert batch.node_parent == (-1, 0, -1, 0, -1)
    found = forward(tiny_model(), batch, Needs(logp=False, embed=pool))
    assert found.logp.shape == (0,)
    alone = [states(TEXTS[i]) for i in (0, 2, 1)]
    wanted = [{"last": s[-1], "first": s[0], "mean": s.mean(0)}[pool] for s in alone]
    torch.testing.assert_close(found.embed, torch.stack(wanted), atol=1e-5, rtol=1e-5)


def test_an_answer_is_pooled_with_its_prompt_up_to_its_last_token_trained_or_not():
    answers = [Node((8, 10), (True, False), 0), untrained((), 0)]  # an untrained newline at its end; an empty one
    batch = pack([TokenTree((untrained((5, 6, 7)), *answers))], [[1.0]])
    for pool, of in (("last", lambda s: s[-1]), ("mean", lambda s: s.mean(0))):
        found = forward(tiny_model(), batch, Needs(embed=pool)).embed
        wanted = torch.stack([of(states((5, 6, 7, 8, 10))), of(states((5, 6, 7)))])
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_vectors_carry_gradients_and_are_in_float32():
    model = tiny_model(dtype=torch.bfloat16)
    batch = pack([TokenTree((untrained((5, 6, 7)),))], [[]])
    embed = forward(model, batch, Needs(logp=False, embed="mean")).embed
    assert embed.dtype == torch.float32
    embed.sum().backward()
    assert model.model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0
