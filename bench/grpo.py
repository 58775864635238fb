"""GRPO, Luthier beside TRL + PEFT: 8 prompts a step, 8 samples each, 64 new tokens.

    python bench/grpo.py [--rows 24] [--threads 2] [--repeat 1] [--only trl luthier] [--device cuda]

The same prompts, model, LoRA rank 16 on all linear layers, temperature 1, no divergence term, and a reward that costs
nothing (the share of letters). Each setting runs in a process of its own, one after the other. prompts/s counts the prompts
of all steps but the first, sampling and learning together; peak memory is the process's. TRL runs in float32 and bfloat16; its best
counts. Samples differ, being random; both make 64 x 64 tokens a step.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import beside
from rollout import prompts

SETTINGS = ["trl float32", "trl bfloat16", "luthier float32", "luthier bfloat16"]
SAMPLES, TOKENS, RATE = 8, 64, 1e-4


def letters(text: str) -> float:
    """The reward: share of characters that are letters."""
    return sum(c.isalpha() for c in text) / max(1, len(text))


def trl(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Steps of TRL's GRPOTrainer with PEFT."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    asked = [tokenizer.decode(ids) for ids in prompts(tokenizer, options.batch)]
    clock = beside.clock()
    shared = beside.trainer_settings(dtype, options.batch * SAMPLES, options.device)
    del shared["max_length"]
    settings = GRPOConfig(
        **shared, num_generations=SAMPLES, max_completion_length=TOKENS, max_steps=options.rows // options.batch,
        learning_rate=RATE, beta=0.0, generation_kwargs={"min_new_tokens": TOKENS}, mask_truncated_completions=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, dtype)), args=settings,
        reward_funcs=lambda completions, **_: [letters(c) for c in completions],
        train_dataset=Dataset.from_list([{"prompt": text} for text in asked] * (options.rows // options.batch)),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=beside.RANK, lora_alpha=beside.ALPHA, target_modules=beside.LINEAR), callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return {**beside.timed(clock.marks, options.rows, options.batch), "first": {}, "last": losses[-1]}


def luthier(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """The same with Luthier's parts, put together as `luthier train --method grpo` does."""
    from pathlib import Path

    import torch

    from luthier.config.model import LoraConfig, QuantConfig
    from luthier.config.rewards import PolicyConfig
    from luthier.config.training import TrainConfig
    from luthier.core.types.batch import Needs
    from luthier.generate.generate import generate
    from luthier.generate.sampling import Sampling
    from luthier.methods.policy import grpo
    from luthier.model import load
    from luthier.model.adapt import roles, tune
    from luthier.model.forward import forward
    from luthier.training import annotate
    from luthier.training.loop import State, train
    from luthier.training.optim import Optimizer
    from luthier.training.rollout import RolloutModels, RolloutPrompt, Rollouts, with_defaults
    from luthier.training.steps import Packing

    device = torch.device(options.device)
    loaded = load.load(Path(options.model), device=device, dtype=getattr(torch, dtype))
    tokenizer = loaded.tokenizer
    asked = [RolloutPrompt(tuple(ids), row) for row, ids in enumerate(prompts(tokenizer, options.batch))]
    tuned = tune.prepare(loaded.model, "lora", LoraConfig(rank=beside.RANK, alpha=beside.ALPHA), QuantConfig())
    packing = Packing(options.tokens, 128 if dtype == "bfloat16" else 1)
    steps = options.rows // options.batch
    config = TrainConfig(batch=options.batch, steps=steps)

    def answers(rows: Any, seed: int) -> Any:
        sampling = Sampling(temperature=1.0, max_new_tokens=TOKENS, n=SAMPLES, seed=seed % 2**31)
        out = generate(tuned.model, [a.ids for a in rows], sampling, tokenizer.decode, batch=options.batch * SAMPLES)
        return [out[i * SAMPLES : (i + 1) * SAMPLES] for i in range(len(rows))]

    def rewards(rows: Any, drawn: Any) -> Any:
        return [[letters(sample.text) for sample in group] for group in drawn], {}

    def policy(trees: Any) -> Any:
        tuned.model.eval()
        return annotate.per_token(lambda b: forward(tuned.model, b).logp, trees, packing, device, lambda: False)

    def reference(trees: Any) -> Any:
        with roles.playing(tuned.model, roles.Role({}, {})):  # the base alone
            return policy(trees)

    settings = with_defaults(PolicyConfig(), critic=False)
    players = RolloutModels(answers, rewards, None if dtype == "float32" else policy, reference)
    source = Rollouts(asked, players, settings, options.batch, steps, TOKENS, packing, seed=0)
    state = State(tuned.model, Optimizer(tuned.parameters, config, {}))
    needs = Needs(entropy=True)
    reports = train(
        state, source, lambda b, o: grpo(b, o, settings), lambda m, b: forward(m, b, needs), config,
        lr=RATE, seed=0, device=device,
    )  # fmt: skip
    marks, losses = [time.perf_counter()], []
    for report in reports:
        marks.append(time.perf_counter())
        losses.append(report.loss)
    return {**beside.timed(marks, options.rows, options.batch), "first": {}, "last": losses[-1]}


def one(options: argparse.Namespace, name: str) -> dict[str, Any]:
    who, dtype = name.split()
    return (luthier if who == "luthier" else trl)(options, dtype)


if __name__ == "__main__":
    options = beside.parser(__doc__, rows=24, batch=8, tokens=1024).parse_args()
    beside.compare(options, __file__, SETTINGS, one, "prompts")
