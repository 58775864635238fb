"""Adapters of dense families as PEFT loads them: dotted names of layers, the same log-probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from luthier.config.model import LoraConfig
from luthier.model.adapt import adapters, lora

IDS = torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(1))
FAMILIES = ["llama", "qwen2", "qwen3", "gemma3_text", "phi3", "mistral", "olmo2", "smollm3", "granite"]


def model(family: str):
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_gives_the_same(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    ours = model(family).requires_grad_(False)
    for adapter in lora.attach(ours, LoraConfig(rank=4)).values():
        torch.nn.init.normal_(adapter.B, std=0.2)
    adapters.save(tmp_path, ours, "tiny", LoraConfig())
    with torch.no_grad():
        found, plain, theirs = (
            m(IDS).logits.log_softmax(-1)
            for m in (ours, model(family), PeftModel.from_pretrained(model(family), tmp_path))
        )
    torch.testing.assert_close(theirs, found, atol=1e-5, rtol=0)
    assert float((found - plain).abs().max()) > 1e-3
