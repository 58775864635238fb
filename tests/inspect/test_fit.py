"""What fits: the arithmetic of layers by hand, and sums of models that are a config.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, MixtralConfig, Qwen3Config

from luthier.config.model import LoraConfig, QuantConfig
from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.evals.forgetting import GENERAL_ANSWERS, compared_tokens
from luthier.inspect import fit
from luthier.inspect.fit import Room
from luthier.inspect.layer_sizes import LayerSize, model_size
from luthier.model.activations import Pass
from luthier.model.estimate import estimate, ready
from sentences import sentence

CPU = torch.device("cpu")
SETTINGS = resolve({"dtype": "float32"})
TINY: dict[str, Any] = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024,
}  # fmt: skip


def sizes(config: Any, **lora: Any) -> Any:
    made = ready(
        config, tune_kind="lora", lora=LoraConfig(**lora), quant=QuantConfig(), dtype=torch.float32, optimizer="adamw",
        device=CPU,
    )  # fmt: skip
    return model_size(made.model)


def written(config: Any, folder: Path) -> str:
    config.save_pretrained(folder)
    return str(folder)


def test_a_layer_by_hand() -> None:
    """W is 32 x 48, an adapter of rank 4 has 4 (32 + 48) weights: a fifth."""
    found = sizes(LlamaConfig(**TINY, tie_word_embeddings=True), rank=4)
    assert found.layers == (
        LayerSize("self_attn.q_proj", 32, 32, 2, 4), LayerSize("self_attn.k_proj", 32, 16, 2, 4),
        LayerSize("self_attn.v_proj", 32, 16, 2, 4), LayerSize("self_attn.o_proj", 32, 32, 2, 4),
        LayerSize("mlp.gate_proj", 32, 48, 2, 4), LayerSize("mlp.up_proj", 32, 48, 2, 4),
        LayerSize("mlp.down_proj", 48, 32, 2, 4),
    )  # fmt: skip
    gate = found.layers[4]
    assert (gate.weights, gate.adapter, gate.share) == (1536, 320, pytest.approx(320 / 1536))
    blocks = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    assert (found.embedding, found.head, found.tied, found.others) == (3200, 0, True, 5 * 32)
    assert found.parameters == found.active == blocks + 3200 + 160
    assert found.adapters == 2 * 4 * (64 + 48 + 48 + 64 + 80 + 80 + 80)


def test_a_head_of_its_own_and_layers_without_an_adapter() -> None:
    found = sizes(LlamaConfig(**TINY), rank=4, targets=("q_proj",))
    assert (found.embedding, found.head, found.tied) == (3200, 3200, False)
    assert [one.rank for one in found.layers] == [4, 0, 0, 0, 0, 0, 0]
    assert found.adapters == 2 * 4 * 64


def test_of_a_mixture_a_token_passes_through_some() -> None:
    """Two of four experts: half of the stacks' weights. The adapters on each have rank 8 / 2."""
    found = sizes(MixtralConfig(**TINY, num_local_experts=4, num_experts_per_tok=2), rank=8)
    stacks = [one for one in found.layers if "experts" in one.name]
    assert [(one.inputs, one.outputs, one.count, one.rank) for one in stacks] == [(32, 96, 8, 4), (48, 32, 8, 4)]
    assert found.parameters - found.active == 8 * (32 * 96 + 48 * 32) // 2


@pytest.mark.medium
def test_sums_are_those_of_a_run(tmp_path: Path) -> None:
    """A config.json alone, no weights: what `train` estimates before it loads, one row a pass."""
    config = LlamaConfig(**TINY)
    found = fit.fit(written(config, tmp_path), SETTINGS, Room(CPU, 10**12, "here"), (), 1)
    assert [row.tune for row in found.rows] == ["full", "head", "lora", "qlora nf4", "qlora int8"]
    assert [cell.tokens for cell in found.rows[0].cells] == [512]  # the model reads 1,024
    lora = estimate(
        config, tune_kind="lora", lora=LoraConfig(), quant=QuantConfig(), dtype=torch.float32, optimizer="adamw",
        device=CPU, tokens=512, answers=GENERAL_ANSWERS, compared=compared_tokens(),
    )  # fmt: skip
    row = found.rows[2]
    assert (row.trainable, row.stored, row.cells[0].needed) == (lora.trainable, lora.weights, lora.needed)
    full, head, plain, nf4, int8 = (one.stored for one in found.rows)
    assert nf4 < int8 < plain and full == head  # the head is its own here
    assert json.loads(json.dumps(found.as_dict()))["tune"][2]["cells"][0]["needed"] == lora.needed


@pytest.mark.medium
def test_where_it_would_not_fit_blocks_are_computed_again(tmp_path: Path) -> None:
    name = written(Qwen3Config(**TINY | {"num_hidden_layers": 8, "intermediate_size": 512}), tmp_path)
    plenty = fit.fit(name, SETTINGS, Room(torch.device("cuda"), 10**12, "a GPU"), (512,), 2).rows[2].cells[0]
    tight = fit.fit(name, SETTINGS, Room(torch.device("cuda"), plenty.needed - 1, "a GPU"), (512,), 2).rows[2].cells[0]
    assert plenty.fits and not plenty.recompute
    assert tight.fits and tight.recompute and tight.needed < plenty.needed
    nothing = fit.fit(name, SETTINGS, Room(torch.device("cuda"), 1, "a GPU"), (512,), 2)
    assert not any(cell.fits for row in nothing.rows for cell in row.cells) and not nothing.serving[0].fits


def test_several_rows_are_as_many_tokens_that_do_not_see_each_other() -> None:
    two, one = Pass.row(1000, torch.float32, CPU, 2), Pass.row(1000, torch.float32, CPU)
    assert (two.tokens, two.targets, two.attention.queries) == (2000, 2000, 2 * one.attention.queries)
    assert Pass.row(2000, torch.float32, CPU).attention.keys > two.attention.keys


@pytest.mark.parametrize(
    ("text", "count"),
    [("24GB", 24 * 10**9), ("24", 24 * 10**9), ("1.5 GiB", 3 * 2**29), ("500mb", 5 * 10**8)],
)
def test_sizes_of_memories(text: str, count: int) -> None:
    assert fit.bytes_of(text, "--gpu") == count


@pytest.mark.parametrize("text", [" ", "0", "much", "-4GB", "24XB", "1e9", "24GB and more"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=sentence("no size of a memory", where="--gpu", text=text)):
        fit.room("cpu", text, None)


def test_two_machines_at_once_are_refused() -> None:
    with pytest.raises(InputError, match=sentence("a GPU and a machine without", where="--memory")):
        fit.room("cpu", "24GB", "16GB")


def test_rows_longer_than_the_context_are_refused(tmp_path: Path) -> None:
    name = written(LlamaConfig(**TINY), tmp_path)
    with pytest.raises(InputError, match=sentence("rows longer than the context", where="--context", tokens="1,025")):
        fit.fit(name, SETTINGS, Room(CPU, 10**12, "here"), (512, 1025), 1)


def test_a_hub_name_that_is_not_here_is_not_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    asked: list[bool] = []

    def resolved(name: str, *, download: bool) -> Any:
        asked.append(download)
        raise InputError("not here", fix="fetch it")

    monkeypatch.setattr(fit.sources, "resolve", resolved)
    with pytest.raises(InputError):
        fit.configuration("owner/model-of-70b")
    assert asked == [False]


def test_without_a_place_for_adapters_the_other_ways_remain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = written(LlamaConfig(**TINY), tmp_path)
    monkeypatch.setattr("luthier.inspect.layer_sizes.everything", lambda model: [])
    found = fit.fit(name, SETTINGS, Room(torch.device("cuda"), 10**12, "a GPU"), (64,), 1)
    assert [row.tune for row in found.rows] == ["full", "head"]
    assert found.size.parameters == found.rows[0].trainable
