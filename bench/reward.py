"""A reward model on pairs, Luthier beside TRL + PEFT: the same pairs, model, adapter, head, order and tokens.

    python bench/reward.py [--rows 48] [--batch 4] [--threads 2] [--repeat 1] [--only trl luthier]

Pairs: the first usable of ../shared/data/hh_rlhf_harmless as plain text, LoRA rank 16 on all linear layers and a
score head that both start from the same random weights, learning rate 1e-4, one epoch. Each setting runs in a
process of its own, one after the other. pairs/s counts the pairs of all optimizer steps but the first; peak memory
is the process's. TRL runs in float32 and bfloat16; its best counts. TRL pads with a token of its own here: where
padding is the stop token, as this model has it, it reads the score one token before the stop token.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import beside
import preferences

SETTINGS = ["trl float32", "trl bfloat16", "luthier float32", "luthier bfloat16"]
RATE = 1e-4
PAD = "<|endoftext|>"


def head(width: int) -> Any:
    """The weights [1, width] that the score head starts from."""
    import torch

    return torch.randn(1, width, generator=torch.Generator().manual_seed(1)) / width**0.5


def trl(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """One epoch of TRL's RewardTrainer with PEFT."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    tokenizer.pad_token = PAD
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=1, dtype=getattr(torch, dtype))
    model.config.pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        model.score.weight.copy_(head(model.config.hidden_size))
    clock = beside.clock()
    trainer = beside.in_order(RewardTrainer)(
        model=model, args=RewardConfig(**beside.trainer_settings(dtype, options.batch, options.device), learning_rate=RATE),
        train_dataset=preferences.rows(preferences.pairs(options.rows, tokenizer)), processing_class=tokenizer,
        peft_config=LoraConfig(
            r=beside.RANK, lora_alpha=beside.ALPHA, target_modules=beside.LINEAR, task_type="SEQ_CLS",
            modules_to_save=["score"],
        ),
        callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return {**beside.timed(clock.marks, options.rows, options.batch), "first": {"loss": losses[0]}, "last": losses[-1]}


def luthier(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """The same with Luthier's parts, put together as `luthier train --method reward` does."""
    from functools import partial
    from pathlib import Path

    import torch

    from luthier.config.model import LoraConfig, QuantConfig
    from luthier.config.training import RankingConfig, TrainConfig
    from luthier.core.types.batch import Needs
    from luthier.methods.reward import reward
    from luthier.model import load
    from luthier.model.adapt import tune
    from luthier.model.forward import forward
    from luthier.training.loop import State, train
    from luthier.training.optim import Optimizer
    from luthier.training.steps import Packing

    device = torch.device(options.device)
    loaded = load.load(Path(options.model), device=device, dtype=getattr(torch, dtype))
    trees = preferences.trees(preferences.pairs(options.rows, loaded.tokenizer), loaded.tokenizer)
    torch.manual_seed(0)
    adapter = LoraConfig(rank=beside.RANK, alpha=beside.ALPHA)
    tuned = tune.prepare(loaded.model, "lora", adapter, QuantConfig(), ("score",))
    with torch.no_grad():
        tuned.parameters["score.weight"].copy_(head(loaded.config.hidden_size))
    config = TrainConfig(schedule="constant", warmup=0.0)
    state = State(tuned.model, Optimizer(tuned.parameters, config, {}))
    steps = preferences.FileOrder(trees, options.batch, Packing(options.tokens, 128 if dtype == "bfloat16" else 1))
    scores = partial(forward, needs=Needs(logp=False, score=True))
    loss = partial(reward, settings=RankingConfig())
    marks, losses = [time.perf_counter()], []
    for report in train(state, steps, loss, scores, config, lr=RATE, seed=0, device=device):
        marks.append(time.perf_counter())
        losses.append(report.loss)
    return {**beside.timed(marks, options.rows, options.batch), "first": {"loss": losses[0]}, "last": losses[-1]}


def one(options: argparse.Namespace, name: str) -> dict[str, Any]:
    who, dtype = name.split()
    return (luthier if who == "luthier" else trl)(options, dtype)


if __name__ == "__main__":
    options = beside.parser(__doc__, rows=48, batch=4, tokens=1024).parse_args()
    beside.compare(options, __file__, SETTINGS, one, "pairs")
