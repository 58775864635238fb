"""The estimate of a run's memory beside its measured peak, on twelve runs that differ in model, tune kind, method, type and tokens a pass.

    python bench/memory.py [--only NAME] [--threads 2]

Each run is `luthier train` in a process of its own, with one epoch, so that the largest pass is met, and few held-out rows: what it
said beforehand (`estimated_memory_bytes`) and what the process took at its peak (`peak_memory_bytes`, VmHWM), both of result.json. The
runs are on the first Alpaca rows and on pairs of hh_rlhf_harmless (../shared/data). SmolLM2-135M has its weights; the two others are made
here with random weights and its tokenizer: `qwen3` (norms of queries and keys, 62 million weights) and `neox` (biases, layer norms and
GELU, which no function of Luthier's replaces; 51 million).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import beside

ROWS = 64
STEPS = ["--train.epochs", "1", "--eval.rows", "8", "--eval.samples", "8", "--eval.max_new_tokens", "16"]
# model, tune kind, method, type, tokens a pass, and what else
RUNS = [
    ("smollm2-135m", "lora", "sft", "float32", 1024, ()),
    ("smollm2-135m", "lora", "sft", "bfloat16", 1024, ()),
    ("smollm2-135m", "lora", "sft", "float32", 256, ()),
    ("smollm2-135m", "lora", "sft", "bfloat16", 1024, ("--train.recompute", "blocks")),
    ("smollm2-135m", "qlora", "sft", "bfloat16", 512, ()),
    ("smollm2-135m", "full", "sft", "bfloat16", 512, ()),
    ("smollm2-135m", "lora", "dpo", "float32", 512, ()),
    ("qwen3", "full", "sft", "float32", 1024, ()),
    ("qwen3", "lora", "dpo", "bfloat16", 2048, ()),
    ("qwen3", "lora", "grpo", "float32", 512, ("--reward", "length:32", "--rollout.samples", "4", "--rollout.max_new_tokens", "32")),
    ("neox", "lora", "sft", "float32", 1024, ()),
    ("neox", "last:4", "sft", "bfloat16", 2048, ("--train.optimizer", "adamw8bit")),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="NAME", help="only runs whose line has this in it")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    native = beside.has_bfloat16("cpu")
    print(f"{'run':44} {'estimate':>9} {'peak':>9} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data(folder)
        models = {"smollm2-135m": "smollm2-135m", "qwen3": made("qwen3", folder), "neox": made("neox", folder)}
        for model, tune, method, dtype, tokens, more in RUNS:
            name = " ".join([model, tune, method, dtype, str(tokens), *more[:2]])
            if options.only not in name or (dtype == "bfloat16" and not native):
                continue
            rows = folder / ("pairs.jsonl" if method == "dpo" else "rows.jsonl")
            command = ["train", rows, "--model", models[model], "--tune", tune, "--method", method, "--dtype", dtype]
            command += ["--train.tokens", tokens, "--threads", options.threads, *STEPS, *more]
            command += ["--out", folder / "run", "--json"]
            show(name, command)
            subprocess.run(["rm", "-r", str(folder / "run")], check=False, capture_output=True)


def show(name: str, command: list[Any]) -> None:
    """Run it, and print its line of the table."""
    done = subprocess.run(
        [sys.executable, "-m", "luthier", *map(str, command)], capture_output=True, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode:
        print(f"{name:44} failed: {done.stderr.strip().splitlines()[-1]}", flush=True)
        return
    found = json.loads(done.stdout)
    guess, peak = found["estimated_memory_bytes"], found["peak_memory_bytes"]
    print(f"{name:44} {guess / 1e9:6.2f} GB {peak / 1e9:6.2f} GB {guess / peak:6.2f}", flush=True)


def data(folder: Path) -> None:
    """The rows and pairs of all runs."""
    alpaca = json.loads(gzip.decompress((beside.DATA / "alpaca" / "alpaca_data.json.gz").read_bytes()))[:ROWS]
    rows = [{"prompt": f"{r['instruction']}\n{r['input']}".strip(), "completion": r["output"]} for r in alpaca]
    pairs = next((beside.DATA / "hh_rlhf_harmless").glob("*.jsonl.gz"))
    with gzip.open(pairs, "rt", encoding="utf-8") as lines:
        kept = list(islice(lines, ROWS))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "pairs.jsonl").write_text("".join(kept), encoding="utf-8")


def made(name: str, folder: Path) -> Path:
    """A folder with a model of random weights and SmolLM2's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig, Qwen3Config

    from luthier.model.hub.sources import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("smollm2-135m").folder)
    shape = {"vocab_size": len(tokenizer), "hidden_size": 512, "num_hidden_layers": 12, "max_position_embeddings": 4096}
    if name == "qwen3":
        config: Any = Qwen3Config(
            **shape, intermediate_size=1408, num_attention_heads=8, num_key_value_heads=4, head_dim=64, tie_word_embeddings=True
        )  # fmt: skip
    else:
        config = GPTNeoXConfig(**(shape | {"num_hidden_layers": 8}), intermediate_size=2048, num_attention_heads=8,
                               tie_word_embeddings=True)  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return folder / name


if __name__ == "__main__":
    main()
