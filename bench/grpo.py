"""One GRPO step, Luthier beside TRL + PEFT: 8 prompts, 8 samples each, 64 new tokens.

    python bench/grpo.py [--steps 3] [--threads 2] [--only NAME]

The same prompts, model (smollm2-135m), LoRA rank 16 on all linear layers, temperature 1, no divergence term, and a
reward that costs nothing (the share of letters). Each setting runs in a process of its own, one after the other.
Seconds are the median of the steps after the first, sampling and learning together; peak memory is the process's.
TRL runs in float32 and in bfloat16; its better one counts. Samples differ, being random; both make 64 x 64 tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from rollout import prompts

SETTINGS = ["trl float32", "trl bfloat16", "luthier float32", "luthier bfloat16"]
PROMPTS, SAMPLES, TOKENS = 8, 8, 64
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def letters(text: str) -> float:
    """The reward: share of characters that are letters."""
    return sum(c.isalpha() for c in text) / max(1, len(text))


def trl(folder: str, steps: int, dtype: str) -> list[float]:
    """Seconds of each of TRL's steps."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            marks.append(time.perf_counter())

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            marks.append(time.perf_counter())

    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = [tokenizer.decode(ids) for ids in prompts(tokenizer, PROMPTS)]
    settings = GRPOConfig(
        output_dir=tempfile.mkdtemp(), report_to="none", use_cpu=True, bf16=dtype == "bfloat16", disable_tqdm=True,
        per_device_train_batch_size=PROMPTS * SAMPLES, num_generations=SAMPLES, max_completion_length=TOKENS,
        max_steps=steps, gradient_checkpointing=False, learning_rate=1e-4, logging_steps=1, save_strategy="no", beta=0.0,
        generation_kwargs={"min_new_tokens": TOKENS}, mask_truncated_completions=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)), args=settings,
        reward_funcs=lambda completions, **_: [letters(c) for c in completions],
        train_dataset=Dataset.from_list([{"prompt": text} for text in asked * steps]), processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=LINEAR), callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    return [b - a for a, b in pairwise(marks)]


def luthier(folder: str, steps: int, dtype: str) -> list[float]:
    """Seconds of each of Luthier's steps, the same parts put together as `luthier train --method grpo` does."""
    import torch

    from luthier.core.config import LoraConfig, PolicyConfig, QuantConfig, TrainConfig
    from luthier.core.types import Needs
    from luthier.methods.policy import grpo
    from luthier.model import load, sources, tune
    from luthier.model.forward import forward
    from luthier.model.generate import generate
    from luthier.model.sample import Sampling
    from luthier.train import annotate
    from luthier.train.loop import State, train
    from luthier.train.optim import Optimizer
    from luthier.train.rollout import Asked, Players, Rollouts, with_defaults
    from luthier.train.steps import Packing

    device = torch.device("cpu")
    loaded = load.load(sources.resolve(folder), device=device, dtype=getattr(torch, dtype))
    tokenizer = loaded.tokenizer
    asked = [Asked(tuple(ids), row) for row, ids in enumerate(prompts(tokenizer, PROMPTS))]
    tuned = tune.prepare(loaded.model, "lora", LoraConfig(rank=16, alpha=32), QuantConfig())
    packing = Packing(1024, 128 if dtype == "bfloat16" else 1)
    config = TrainConfig(batch=PROMPTS, lr=1e-4, steps=steps)

    def answers(rows: Any, seed: int) -> Any:
        sampling = Sampling(temperature=1.0, max_new_tokens=TOKENS, n=SAMPLES, seed=seed % 2**31)
        out = generate(tuned.model, [a.ids for a in rows], sampling, tokenizer.decode, batch=PROMPTS * SAMPLES)
        return [out[i * SAMPLES : (i + 1) * SAMPLES] for i in range(len(rows))]

    def rewards(rows: Any, drawn: Any) -> Any:
        return [[letters(sample.text) for sample in group] for group in drawn], {}

    def policy(trees: Any) -> Any:
        tuned.model.eval()
        return annotate.per_token(lambda b: forward(tuned.model, b).logp, trees, packing, device, lambda: False)

    settings = with_defaults(PolicyConfig(), critic=False)
    players = Players(answers, rewards, policy, policy)
    source = Rollouts(asked, players, settings, PROMPTS, steps, TOKENS, packing, seed=0)
    state = State(tuned.model, Optimizer(tuned.parameters, config))
    needs = Needs(entropy=True)
    seconds = []
    reports = train(
        state, source, lambda b, o: grpo(b, o, settings), lambda m, b: forward(m, b, needs), config,
        lr=1e-4, seed=0, device=device,
    )  # fmt: skip
    began = time.perf_counter()
    for _ in reports:
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=SETTINGS, help="run this setting in this process and print its JSON")
    options = parser.parse_args()
    if options.only:
        import torch

        from luthier.model.sources import resolve

        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        who, dtype = options.only.split()
        folder = str(resolve(options.model).folder)
        seconds = (trl if who == "trl" else luthier)(folder, options.steps, dtype)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": statistics.median(seconds[1:] or seconds), "peak": peak}))
        return
    results = {}
    for name in SETTINGS:
        command = [sys.executable, __file__, "--only", name, "--steps", str(options.steps)]
        command += ["--threads", str(options.threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run([*command, "--model", options.model], capture_output=True, text=True, env=environment)
        if done.returncode:
            print(f"{name:<18} failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        results[name] = json.loads(done.stdout.strip().splitlines()[-1])
        found = results[name]
        print(f"{name:<18} {found['seconds']:8.1f} s a step   peak {found['peak'] / 1e9:5.2f} GB", flush=True)
    theirs = min((r for n, r in results.items() if n.startswith("trl")), key=lambda r: r["seconds"])
    ours = min((r for n, r in results.items() if n.startswith("luthier")), key=lambda r: r["seconds"])
    speed, memory = theirs["seconds"] / ours["seconds"], ours["peak"] / theirs["peak"]
    print(f"Luthier is {speed:.2f} times as fast, with {memory:.2f} of the memory")


if __name__ == "__main__":
    main()
