"""A remembered beginning changes nothing but the work; several tokens are read off one place."""

from __future__ import annotations

import pytest
import torch

from conftest import tiny_model
from luthier.core.types.trees import Node, TokenTree
from luthier.model import forward as forward_module
from luthier.model.forward import hidden_states, logp_of
from luthier.model.layers.attention import register
from luthier.model.layers.prefix import Prefix, hidden_after
from luthier.text.pack import pack

register()


def batch(root: int = 300):
    """A root over several blocks of queries, two children, a grandchild, and padding."""
    draw = torch.Generator().manual_seed(0)

    def node(count: int, parent: int) -> Node:
        found = tuple(torch.randint(512, (count,), generator=draw).tolist())
        return Node(found, (False,) * count, parent)

    tree = TokenTree((node(root, -1), node(40, 0), node(9, 1), node(130, 0)))
    return pack([tree], [()], pad_to=64, share=False)


@pytest.fixture(params=["llama", "window"])
def model(request):
    if request.param == "llama":
        return tiny_model()
    from transformers import AutoModelForCausalLM, MistralConfig

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, sliding_window=100,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation="luthier").eval()


@torch.no_grad()
def test_states_after_a_remembered_beginning_are_those_of_the_whole_row(model):
    row = batch()
    whole = hidden_states(model, row)
    first, kept = hidden_after(model, row, Prefix(), 0, 192)
    assert torch.allclose(first, whole, atol=1e-6)
    assert kept.ids == tuple(row.tokens[:192].tolist())
    for known, keep in ((192, 256), (64, 0), (128, 300)):  # inside a block of queries, between two, all of the root
        after, more = hidden_after(model, row, kept, known, keep)
        assert len(after) == len(whole) - known
        assert torch.allclose(after, whole[known:], atol=1e-5)
        if keep:
            again, _ = hidden_after(model, row, more, keep, 0)
            assert torch.allclose(again, whole[keep:], atol=1e-5)


@torch.no_grad()
def test_tokens_are_read_off_their_places(monkeypatch):
    monkeypatch.setattr(forward_module, "SLICE_BYTES", 4 * 512 * 3)  # three places at a time
    model = tiny_model()
    hidden = torch.randn(20, 32)
    place = torch.tensor([3, 3, 17, 0, 3, 19, 8, 11, 0])
    token = torch.tensor([1, 2, 500, 4, 5, 6, 7, 8, 9])
    logits = model.lm_head(hidden)
    token[5] = logits[19].argmax()
    logp, best = logp_of(model, hidden, place, token)
    assert torch.allclose(logp, logits.log_softmax(-1)[place, token], atol=1e-5)
    assert best.tolist() == (logits.argmax(-1)[place] == token).tolist()
    assert best[5]
