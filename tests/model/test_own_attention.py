"""Decoders that write their attention out themselves, or hand nothing down to it. Their log-probabilities, answers and gradients are
held against transformers in `test_architectures`."""

from __future__ import annotations

import copy

import pytest
import torch
from survey import separate, survey, trees
from transformers import AutoModelForCausalLM
from transformers.models.bloom.modeling_bloom import build_alibi_tensor

from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.errors import InputError
from luthier.core.types.trees import Node, TokenTree
from luthier.model.adapt import adapters, lora, tune
from luthier.model.forward import forward
from luthier.model.layers.attention import register
from luthier.model.layers.own_attention import hand_down, know, slopes
from luthier.model.layers.recompute import recompute_blocks
from luthier.model.load import load
from luthier.text.pack import pack
from sentences import sentence
from tiny_architectures import make, spread, tiny_config

KINDS = ["stablelm", "gpt_neo", "falcon", "bloom", "mpt", "modernbert-decoder"]
IDS = torch.randint(10, 300, (2, 12), generator=torch.Generator().manual_seed(0))


def made(kind: str, attention: str = "luthier", **changes):
    """A tiny random model, ready for packed rows where its attention is Luthier's."""
    register()
    config = tiny_config(kind, **changes)
    know(config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    spread(model)
    if attention == "luthier":
        hand_down(model)
    return model


def packed(model) -> torch.Tensor:
    rows = trees(300)
    return forward(model, pack(rows, [[1.0] * tree.trained for tree in rows])).logp


@pytest.mark.parametrize(
    "changes",
    [
        {"new_decoder_architecture": True, "num_kv_heads": 2},  # Falcon 40B: keys for groups of heads, two norms
        {"multi_query": False, "parallel_attn": False, "num_kv_heads": 4},  # Falcon RW without its alibi
    ],
    ids=["40b", "rw"],
)
def test_every_falcon_is_as_transformers_has_it(changes, tmp_path, tiny_tokenizer) -> None:
    found = survey(make("falcon", tmp_path / "falcon", tiny_tokenizer, **changes))
    assert found.exact, found


def test_a_falcon_that_transformers_computes_in_two_ways_is_refused(tmp_path, tiny_tokenizer) -> None:
    folder = make("falcon", tmp_path / "falcon", tiny_tokenizer, alibi=True)
    plain, fused = (
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention).eval()(IDS).logits
        for attention in ("eager", "sdpa")
    )
    assert float((plain - fused).detach().abs().max()) > 0.1  # for as long as this holds
    with pytest.raises(InputError, match=sentence("Falcon's alibi")):
        load(folder, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("heads", [1, 4, 6, 12, 16])
def test_slopes_are_those_of_bloom(heads) -> None:
    wanted = build_alibi_tensor(torch.ones(1, 2, dtype=torch.int64), heads, torch.float32)[:, 0, 1]
    torch.testing.assert_close(slopes(heads), wanted, rtol=1e-6, atol=0)


@pytest.mark.medium
def test_lines_of_far_positions_are_straight_in_16_bits() -> None:
    """Positions from 256 on are not all numbers of bfloat16: alone they would be rounded to multiples of 2, 4 and 8."""
    changes = {"num_hidden_layers": 1, "seq_length": 2048, "n_head": 8}
    row = torch.randint(10, 300, (1200,), generator=torch.Generator().manual_seed(1)).tolist()
    tree = TokenTree((Node(tuple(row), (False,) * 1100 + (True,) * 100),))
    batch = pack([tree], [[1.0] * 100])
    with torch.no_grad():
        ours = forward(made("bloom", **changes).to(torch.bfloat16), batch).logp
        wide, narrow = (
            separate(made("bloom", "eager", **changes).to(dtype), tree)[-100:]
            for dtype in (torch.float32, torch.bfloat16)
        )
    assert float((ours - wide).abs().mean()) <= float((narrow - wide).abs().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_blocks_are_of_the_same_tree(kind) -> None:
    """The tree of a pass is gone from everywhere but the arguments when its blocks are computed again: another pass came since."""
    kept, again = made(kind), made(kind)
    assert recompute_blocks(again) > 0
    for model in (kept, again):
        first = packed(model)
        with torch.no_grad():
            model_row = trees(200)[:1]
            forward(model, pack(model_row, [[1.0] * model_row[0].trained]))
        first.sum().backward()
    for (name, wanted), found in zip(kept.named_parameters(), again.parameters(), strict=True):
        assert (wanted.grad is None) is (found.grad is None), name
        assert wanted.grad is None or torch.equal(wanted.grad, found.grad), name


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_tree_a_model_is_transformers_own(kind) -> None:
    ours, theirs = made(kind, "eager"), made(kind, "eager")
    hand_down(ours)
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_hands_its_own_tree_down(kind) -> None:
    model = made(kind)
    with torch.no_grad():
        wanted = packed(model)
        twin = copy.deepcopy(model)
        for parameter in model.parameters():
            parameter.zero_()
        assert torch.equal(packed(twin), wanted)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_those_of_peft_and_merge(kind, tmp_path) -> None:
    from peft import PeftModel

    config = LoraConfig(rank=4, alpha=6)
    model = made(kind).requires_grad_(False)
    found = lora.attach(model, config)
    assert any("attn" in name or "attention" in name for name in found)
    with torch.no_grad():
        before = packed(made(kind))
        for adapter in found.values():
            adapter.B.normal_(0, 0.2)
        wanted = packed(model)
        adapters.save(tmp_path, model, "tiny", config)
        theirs = PeftModel.from_pretrained(made(kind, "eager"), tmp_path)
        alone = torch.cat([separate(theirs, tree) for tree in trees(300)])
        torch.testing.assert_close(alone, wanted, atol=1e-4, rtol=0)
        assert float((wanted - before).abs().max()) > 1e-2
        lora.merge(model)
        torch.testing.assert_close(packed(model), wanted, atol=1e-4, rtol=0)


def test_what_stands_before_the_head_of_modernbert_learns_with_the_rest() -> None:
    tuned = tune.prepare(made("modernbert-decoder"), "full", LoraConfig(), QuantConfig())
    packed(tuned.model).sum().backward()
    grad = tuned.parameters["lm_head.dense.weight"].grad
    assert grad is not None and float(grad.abs().max()) > 0
    assert (
        "lm_head.dense.weight"
        not in tune.prepare(made("modernbert-decoder"), "head", LoraConfig(), QuantConfig()).parameters
    )
