"""Weights are loaded file by file, without a second copy of them: the peak of a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = """
import sys, torch
from pathlib import Path
from luthier.model import load, memory
from luthier.model.hub.sources import Source
import transformers.models.llama.modeling_llama
torch.set_num_threads(1)
before = memory.peak()
model = load.load(Path(sys.argv[1]), device=torch.device("cpu"), dtype=getattr(torch, sys.argv[2])).model
print(memory.peak() - before, sum(p.nbytes for p in model.parameters()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is counted otherwise elsewhere")
@pytest.mark.parametrize(
    ("stored", "loaded"), [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "float32")]
)
def test_a_gigabyte_in_six_files_takes_little_more(stored, loaded, tmp_path: Path, tiny_tokenizer) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    blocks = 42 if stored == "bfloat16" else 21
    config = LlamaConfig(
        vocab_size=512, hidden_size=1024, intermediate_size=2816, num_hidden_layers=blocks, num_attention_heads=16,
        num_key_value_heads=8, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, stored))
    model.save_pretrained(tmp_path, max_shard_size="200MB")
    tiny_tokenizer.save_pretrained(tmp_path)
    del model
    assert len(list(tmp_path.glob("*.safetensors"))) >= 5
    ran = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path, loaded], capture_output=True, text=True, check=True)
    peak, weights = map(int, ran.stdout.split())
    assert weights > 900_000_000
    assert peak <= 1.15 * weights
