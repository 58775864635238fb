"""Layers whose weight a model reads itself take no adapter and are not quantized; all others are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.errors import InputError
from luthier.core.types.trees import Node, TokenTree
from luthier.model import load
from luthier.model.adapt import adapters, lora, quantize, tune
from luthier.model.adapt.read_past import read_past
from luthier.model.adapt.targets import linears
from luthier.model.forward import forward
from luthier.text.pack import pack
from sentences import sentence
from tiny_architectures import make

TREE = TokenTree((Node((5, 6, 7, 8), (False, True, True, True)),))


def bring(folder: Path, name: str, shape: torch.Size) -> None:
    """Put weights for one more layer into the adapter of a folder."""
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors[f"base_model.model.{name}.lora_A.weight"] = torch.zeros(2, shape[1])
    tensors[f"base_model.model.{name}.lora_B.weight"] = torch.zeros(shape[0], 2)
    save_file(tensors, file)


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
    some = tune.prepare(
        model, "lora", LoraConfig(rank=2, targets=("*.layers.0.*",)), QuantConfig()
    )  # a glob passes over them
    assert not any(name in key.split(".") for key in some.parameters for name in names)
    adapters.save(tmp_path, some.model, kind, LoraConfig(rank=2))
    bring(tmp_path, min(passed), model.get_submodule(min(passed)).weight.shape)
    lora.detach(model)
    with pytest.raises(
        InputError, match=sentence("adapter that the model reads past", where=str(tmp_path), name=min(passed))
    ):
        adapters.apply(model, tmp_path)
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
