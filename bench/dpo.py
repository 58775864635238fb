"""DPO, Luthier beside TRL + PEFT: the same pairs, model, adapter, order and tokens.

    python bench/dpo.py [--rows 48] [--batch 4] [--threads 2] [--repeat 1] [--only trl luthier]

Pairs: the first usable of ../shared/data/hh_rlhf_harmless as plain text, LoRA rank 16 on all linear layers, no
dropout, beta 0.1, learning rate 1e-4, one epoch. Each setting runs in a process of its own, one after the other.
pairs/s counts the pairs of all optimizer steps but the first over the time of those steps and their share of the
time that references took before the steps, on a GPU less Luthier's first batch, in which the attention kernel is
compiled; peak memory is the process's. TRL runs in float32 and bfloat16, with the
reference in every step and precomputed; its best counts. The first loss is log 2 for both by definition, so the
first log-probability of the chosen answers, whose tokens both must agree on, is compared as well.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import beside
import preferences

SETTINGS = [
    *("trl float32", "trl float32 precomputed", "trl bfloat16", "trl bfloat16 precomputed"),
    *("luthier float32", "luthier bfloat16"),
]
RATE = 1e-4


def trl(options: argparse.Namespace, dtype: str, precomputed: bool) -> dict[str, Any]:
    """One epoch of TRL's DPOTrainer with PEFT."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class Timed(beside.in_order(DPOTrainer)):  # type: ignore[misc]
        spent = 0.0

        def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            done = super()._precompute_ref_logps(*args, **kwargs)
            type(self).spent += time.perf_counter() - began
            return done

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    clock = beside.clock()
    shared = beside.trainer_settings(dtype, options.batch, options.device)
    trainer = Timed(
        model=AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, dtype)),
        args=DPOConfig(**shared, learning_rate=RATE, beta=0.1, precompute_ref_log_probs=precomputed),
        train_dataset=preferences.rows(preferences.pairs(options.rows, tokenizer)), processing_class=tokenizer,
        peft_config=LoraConfig(r=beside.RANK, lora_alpha=beside.ALPHA, target_modules=beside.LINEAR), callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    first = {"loss": lines[0]["loss"], "log p": lines[0]["logps/chosen"]}
    timed = beside.timed(clock.marks, options.rows, options.batch, Timed.spent)
    return {**timed, "first": first, "last": lines[-1]["loss"]}


def luthier(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """The same with Luthier's parts, put together as `luthier train --method dpo` does."""
    from functools import partial
    from pathlib import Path

    import torch

    from luthier.config.model import LoraConfig, QuantConfig
    from luthier.config.training import PreferenceConfig, TrainConfig
    from luthier.methods.preference import dpo
    from luthier.model import load
    from luthier.model.adapt import tune
    from luthier.model.forward import forward
    from luthier.training import annotate
    from luthier.training.loop import State, train
    from luthier.training.optim import Optimizer
    from luthier.training.steps import Packing

    device = torch.device(options.device)
    loaded = load.load(Path(options.model), device=device, dtype=getattr(torch, dtype))
    trees = preferences.trees(preferences.pairs(options.rows, loaded.tokenizer), loaded.tokenizer)
    torch.manual_seed(0)
    tuned = tune.prepare(loaded.model, "lora", LoraConfig(rank=beside.RANK, alpha=beside.ALPHA), QuantConfig())
    packing = Packing(options.tokens, 128 if dtype == "bfloat16" else 1)

    def score(part: Any) -> Any:
        return annotate.answer_logps(forward, tuned.model, part, packing, device, "reference", bool)

    if options.device == "cuda":
        score(trees[: options.batch])  # the attention kernel is compiled, which is left out as the first step is
    began = time.perf_counter()
    trees = annotate.reference(trees, score)
    spent = time.perf_counter() - began

    config = TrainConfig(schedule="constant", warmup=0.0)
    state = State(tuned.model, Optimizer(tuned.parameters, config, {}))
    steps = preferences.FileOrder(trees, options.batch, packing)
    loss = partial(dpo, settings=PreferenceConfig())
    marks, reports = [time.perf_counter()], []
    for report in train(state, steps, loss, forward, config, lr=RATE, seed=0, device=device):
        marks.append(time.perf_counter())
        reports.append(report)
    first = {"loss": reports[0].loss, "log p": reports[0].metrics["chosen_logp"]}
    timed = beside.timed(marks, options.rows, options.batch, spent)
    return {**timed, "first": first, "last": reports[-1].loss}


def one(options: argparse.Namespace, name: str) -> dict[str, Any]:
    who, dtype, *more = name.split()
    return luthier(options, dtype) if who == "luthier" else trl(options, dtype, bool(more))


if __name__ == "__main__":
    options = beside.parser(__doc__, rows=48, batch=4, tokens=1024).parse_args()
    beside.compare(options, __file__, SETTINGS, one, "pairs")
