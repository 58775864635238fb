"""Benchmarks, Luthier beside lm-evaluation-harness: the same documents, prompts, model and type of number.

    python bench/evals.py [--documents 32] [--tasks arc_challenge:25,hellaswag:10,mmlu:5] [--threads 2]

Documents: the first of each benchmark in ../shared/data, with so many examples before them. The harness's `hf` model
class gets the very strings that Luthier scores, at batch sizes 8, 16 and 'auto', in float32 and, where the processor
has it, bfloat16; its best counts. Each setting runs in a process of its own, one after the other. The time is that of
making tokens and scoring them; loading the model is not in it. Peak memory is the process's, loading included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import beside


def material(options: argparse.Namespace) -> Any:
    """The task, its first documents, and how many examples."""
    from luthier.evals.benchmarks.files import from_folder
    from luthier.evals.benchmarks.tasks import TASKS

    name, _, shots = options.task.partition(":")
    found = from_folder(TASKS[name], beside.DATA, int(shots))
    return TASKS[name], replace(found, documents=found.documents[: options.documents]), int(shots)


def harness(options: argparse.Namespace, dtype: str, batch: str) -> dict[str, Any]:
    """lm-evaluation-harness's own model class on our strings."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from luthier.evals.benchmarks.prompts import Shots, prompt

    task, found, shots = material(options)
    draws = Shots(task, found, shots)
    parts = [prompt(task, document, draws.draw(document), None).pairs for document in found.documents]
    model = HFLM(pretrained=options.model, device=options.device, dtype=dtype, batch_size=batch)
    requests = [Instance("loglikelihood", {}, pair, i) for part in parts for i, pair in enumerate(part)]
    began = time.perf_counter()
    answers = model.loglikelihood(requests, disable_tqdm=True)
    return {"seconds": time.perf_counter() - began, "logp": [value for value, _ in answers]}


def luthier(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """The same with Luthier, prompts made on the way."""
    from luthier.evals.benchmarks.evaluation import BenchmarkOptions, engine
    from luthier.evals.benchmarks.measure import measure
    from luthier.runs.open import open_model

    task, found, shots = material(options)
    opened = open_model(options.model, device=options.device, dtype=dtype)
    ours = engine(opened, BenchmarkOptions(tokens=options.tokens))
    began = time.perf_counter()
    records = list(measure(task, found, ours, shots=shots))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "logp": [v for r in sorted(records, key=lambda r: r["doc"]) for v in r["logp"]]}


def child(options: argparse.Namespace) -> None:
    """Run one setting in this process and print its figures. 'auto' tries sizes until memory runs out, so the
    process may not take more than there is."""
    import psutil
    import torch

    torch.set_num_threads(options.threads)
    if options.child.endswith("auto") and options.device == "cpu":
        room = psutil.virtual_memory().available + psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
    name, *rest = options.child.split()
    found = luthier(options, *rest) if name == "luthier" else harness(options, *rest)
    print("RESULT " + json.dumps(found | {"peak": beside.peak(options.device)}))


def run(name: str, options: argparse.Namespace, task: str) -> dict[str, Any] | None:
    """One setting in a process of its own; None when it failed."""
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--child", name, "--task", task, "--model", options.model],
        capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)},
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        print(f"  {name:24} failed ({done.returncode}): {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    found: dict[str, Any] = json.loads(lines[0][7:])
    found["rate"] = options.documents / found["seconds"]
    print(f"  {name:24} {found['rate']:8.3f} documents/s   peak {found['peak'] / 1e9:5.2f} GB", flush=True)
    return found


def compare(task: str, options: argparse.Namespace) -> None:
    """Every setting on one task, and ours beside the harness's best."""
    dtypes = ["float32", "bfloat16"] if beside.has_bfloat16(options.device) else ["float32"]
    theirs = {f"lm-eval {d} {b}": None for d in dtypes for b in options.batches.split(",")}
    found = {name: run(name, options, task) for name in [*theirs, *(f"luthier {dtype}" for dtype in dtypes)]}
    best = max((f for n, f in found.items() if n in theirs and f), key=lambda f: f["rate"], default=None)
    mine = max((f for n, f in found.items() if n not in theirs and f), key=lambda f: f["rate"], default=None)
    if not best or not mine:
        return
    print(
        f"  {mine['rate'] / best['rate']:.2f} x lm-eval's best, {mine['peak'] / best['peak']:.2f} of its memory", end=""
    )
    exact = [f for n, f in found.items() if "float32" in n and f]
    largest = max(abs(a - b) for f in exact for a, b in zip(f["logp"], exact[-1]["logp"], strict=True))
    print(f"; log-likelihoods in float32 differ by at most {largest:.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--tasks", default="arc_challenge:25,hellaswag:10,mmlu:5", help="NAME:SHOTS, with commas")
    parser.add_argument("--batches", default="8,16,auto", help="batch sizes of lm-eval")
    parser.add_argument("--tokens", type=int, default=2048, help="Luthier: tokens per forward pass")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    from luthier.model.hub.sources import resolve

    options.model = options.model or str(resolve("smollm2-135m").folder)
    for task in options.tasks.split(","):
        print(f"{task.replace(':', ', ')} shots, {options.documents} documents, {beside.where(options)}", flush=True)
        compare(task, options)


if __name__ == "__main__":
    main()
