"""Models of text and pictures, used for text alone: only their text part is computed, learned, adapted and quantized."""

from __future__ import annotations

import pytest
import torch
from survey import survey

from luthier.config.model import LoraConfig, QuantConfig
from luthier.model.adapt import tune
from luthier.model.layers.decoder import decoder, text_modules
from luthier.model.load import load
from tiny_architectures import make


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer):
    return make("mistral3", tmp_path_factory.mktemp("wrapped"), tiny_tokenizer)


@pytest.mark.medium
def test_text_is_computed_as_transformers_does(folder) -> None:
    found = survey(folder)
    assert found.refused is None
    assert found.logp < 1e-4 and found.gradient < 1e-4
    assert found.same == found.of


@pytest.mark.parametrize("kind", ["full", "lora", "qlora", "last:1", "layers:*.mlp.*"])
def test_the_tower_is_neither_learned_nor_adapted_nor_quantized(folder, kind) -> None:
    model = load(folder, device=torch.device("cpu"), dtype=torch.float32).model
    tower = {name: type(part) for name, part in model.named_modules() if "vision" in name or "projector" in name}
    assert any(part is torch.nn.Linear for part in tower.values())
    tuned = tune.prepare(model, kind, LoraConfig(rank=2), QuantConfig())
    assert all("language_model" in name or "lm_head" in name for name in tuned.parameters)
    assert {
        name: type(part) for name, part in model.named_modules() if "vision" in name or "projector" in name
    } == tower


def test_the_text_part_is_what_reads_tokens(folder) -> None:
    model = load(folder, device=torch.device("cpu"), dtype=torch.float32).model
    assert decoder(model) is model.model.language_model
    assert (
        dict(text_modules(model))["model.language_model.layers.0.mlp.up_proj"] is decoder(model).layers[0].mlp.up_proj
    )
