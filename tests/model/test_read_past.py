"""Layers whose weight a model reads itself take no adapter and are not quantized; all others are."""

from __future__ import annotations

import pytest
import torch

from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.errors import InputError
from luthier.core.types.trees import Node, TokenTree
from luthier.model import load
from luthier.model.adapt import quantize, tune
from luthier.model.adapt.read_past import read_past
from luthier.model.adapt.targets import linears
from luthier.model.forward import forward
from luthier.text.pack import pack
from sentences import sentence
from tiny_architectures import make

TREE = TokenTree((Node((5, 6, 7, 8), (False, True, True, True)),))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("hunyuan_v1_moe", {"wg"}),
        ("longcat_flash", {"classifier"}),
        ("gemma3n_text", {"correction_coefs", "prediction_coefs"}),
    ],
)
@pytest.mark.medium
def test_a_model_that_reads_past_a_layer_learns(kind, names, tmp_path, tiny_tokenizer):
    model = load.load(
        make(kind, tmp_path / kind, tiny_tokenizer), device=torch.device("cpu"), dtype=torch.float32
    ).model
    passed = read_past(model, linears(model))
    assert {name.rpartition(".")[2] for name in passed} == names
    assert passed.isdisjoint(quantize.quantizable(model))
    with pytest.raises(InputError, match=sentence("weight read past an adapter", target=min(names))):
        tune.prepare(model, "lora", LoraConfig(rank=2, targets=(min(names),)), QuantConfig())
    learned = tune.prepare(model, "qlora", LoraConfig(rank=2), QuantConfig(block=16)).parameters
    assert not any(f".{name}." in key for key in learned for name in names)
    model.train()
    forward(model, pack([TREE], [[1.0] * 3])).logp.sum().backward()
    assert any(parameter.grad is not None for parameter in learned.values())


@pytest.mark.parametrize("kind", ["llama", "bloom", "qwen3_moe"])
def test_others_are_read_through_what_stands_in_their_place(kind, tmp_path, tiny_tokenizer):
    model = load.load(
        make(kind, tmp_path / kind, tiny_tokenizer), device=torch.device("cpu"), dtype=torch.float32
    ).model
    assert not read_past(model, linears(model))
