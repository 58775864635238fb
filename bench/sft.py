"""Supervised tuning, Luthier beside TRL + PEFT: the same rows, model, adapter and tokens.

    python bench/sft.py [--rows 128] [--batch 16] [--threads 2] [--repeat 1] [--only trl luthier]

Rows: the first of the Alpaca data (../shared/data/alpaca), each as the Alpaca prompt and its output, LoRA
rank 16 on all linear layers, no dropout, learning rate 1e-3, one epoch. Each setting runs in a process of its
own, one after the other. tokens/s counts the tokens of the rows (prompt, output and EOS, no padding, a
shared prefix once per row) over the time of all optimizer steps but the first; peak memory is the process's.
TRL runs in float32 and bfloat16, padded at batch sizes 4 and 16 (on a GPU at 64 too) and packed into rows of 1,024
tokens, as many a step as an eighth of --batch: about the same tokens; its best counts.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import beside

ALPACA = beside.DATA / "alpaca" / "alpaca_data.json.gz"
TASK = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
TASK_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
SETTINGS = [
    *("trl float32 4", "trl float32 16", "trl float32 packed"),
    *("trl bfloat16 4", "trl bfloat16 16", "trl bfloat16 packed"),
    *("luthier float32", "luthier bfloat16"),
]
ON_A_GPU = ["trl bfloat16 64"]
RATE = 1e-3


def rows(count: int) -> list[tuple[str, str]]:
    """(prompt, output) of the first rows, in Alpaca's layout."""
    out = []
    for row in json.loads(gzip.decompress(ALPACA.read_bytes()))[:count]:
        task = TASK_INPUT if row["input"] else TASK
        middle = f"\n\n### Input:\n{row['input']}" if row["input"] else ""
        out.append((f"{task}\n\n### Instruction:\n{row['instruction']}{middle}\n\n### Response:\n", row["output"]))
    return out


def trl(options: argparse.Namespace, dtype: str, size: str) -> dict[str, Any]:
    """One epoch of TRL's SFTTrainer with PEFT; `size` is rows a pass, or `packed`."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    data = [{"prompt": p, "completion": c} for p, c in rows(options.rows)]
    clock = beside.clock()
    packed = size == "packed"
    batch = options.batch // 8 if packed else int(size)
    settings = SFTConfig(
        **beside.trainer_settings(dtype, batch, options.device),
        gradient_accumulation_steps=1 if packed else max(1, options.batch // batch),
        learning_rate=RATE, shuffle_dataset=False, packing=packed, completion_only_loss=True,
    )  # fmt: skip
    trainer = beside.in_order(SFTTrainer)(
        model=AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, dtype)), args=settings,
        train_dataset=Dataset.from_list(data), processing_class=tokenizer,
        peft_config=LoraConfig(r=beside.RANK, lora_alpha=beside.ALPHA, target_modules=beside.LINEAR), callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    total, steps = count_tokens(tokenizer, options.rows), len(clock.marks) - 1
    first = {} if packed else {"loss": losses[0]}  # packed, the first step has other rows
    return {
        "seconds": clock.marks[-1] - clock.marks[1], "count": total * (steps - 1) / steps, "first": first, "last": losses[-1],
    }  # fmt: skip


def luthier(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """The same with Luthier's parts."""
    import torch

    from luthier.config.data import TextConfig
    from luthier.config.model import LoraConfig, QuantConfig
    from luthier.config.training import TrainConfig
    from luthier.core.types.examples import Chat, Message
    from luthier.methods.likelihood import likelihood
    from luthier.model import load
    from luthier.model.adapt import tune
    from luthier.model.forward import forward
    from luthier.text.encode import encode
    from luthier.text.loss_weights import RULES
    from luthier.text.template import load_template
    from luthier.text.tokenizer import Tokenizer
    from luthier.training.loop import State, train
    from luthier.training.optim import Optimizer
    from luthier.training.steps import OfflineSteps, Packing

    device = torch.device(options.device)
    loaded = load.load(Path(options.model), device=device, dtype=getattr(torch, dtype))
    tokenizer = Tokenizer(loaded.tokenizer)
    chats = [Chat((Message("user", p), Message("assistant", c))) for p, c in rows(options.rows)]
    trees = encode(chats, load_template("plain", tokenizer), tokenizer, TextConfig()).trees
    torch.manual_seed(0)
    adapter = LoraConfig(rank=beside.RANK, alpha=beside.ALPHA)
    tuned = tune.prepare(loaded.model, "lora", adapter, QuantConfig())
    first = first_loss(trees, tuned.model, options)
    config = TrainConfig(schedule="constant", warmup=0.0)
    packing = Packing(options.tokens, 128 if dtype == "bfloat16" else 1)
    steps = OfflineSteps(trees, options.batch, len(trees), RULES["token"], packing, seed=0)
    state = State(tuned.model, Optimizer(tuned.parameters, config, {}))
    run = train(state, steps, likelihood, forward, config, lr=RATE, seed=0, device=device)
    reports = list(run)
    return {
        "seconds": sum(r.seconds for r in reports[1:]), "count": sum(r.tokens for r in reports[1:]),
        "first": {"loss": first}, "last": reports[-1].loss,
    }  # fmt: skip


def first_loss(trees: Any, model: Any, options: argparse.Namespace) -> float:
    """The loss of the first `batch` rows in file order under the untouched model, which TRL's first step shows too."""
    import torch

    from luthier.model.forward import forward
    from luthier.text.loss_weights import RULES
    from luthier.training.steps import Packing, make_step

    step = make_step(trees[: options.batch], RULES["token"], Packing(options.tokens))
    with torch.no_grad():
        return float(sum(-(b.weight * forward(model, b).logp).sum() for b in (b.to(model.device) for b in step.micro)))


def count_tokens(tokenizer: Any, count: int) -> int:
    """Tokens of the rows, with one EOS each."""
    return sum(len(tokenizer(p)["input_ids"]) + len(tokenizer(c)["input_ids"]) + 1 for p, c in rows(count))


def one(options: argparse.Namespace, name: str) -> dict[str, Any]:
    who, dtype, *size = name.split()
    if who == "luthier":
        return luthier(options, dtype)
    return trl(options, dtype, size[0])


if __name__ == "__main__":
    options = beside.parser(__doc__, rows=128, batch=16, tokens=512).parse_args()
    settings = [*SETTINGS, *(ON_A_GPU if options.device == "cuda" else [])]
    beside.compare(options, __file__, settings, one, "tokens")
