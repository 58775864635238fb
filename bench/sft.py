"""Supervised tuning, Luthier beside TRL + PEFT: the same rows, model, adapter and tokens.

    python bench/sft.py [--rows 128] [--batch 16] [--threads 2] [--repeat 1]

Rows: the first of the Alpaca data (../shared/data/alpaca), each as the Alpaca prompt and its output, LoRA
rank 16 on all linear layers, no dropout, learning rate 1e-3, one epoch. Each setting runs in a process of its
own, one after the other. tokens/s counts the tokens of the rows (prompt, output and EOS, no padding, a
shared prefix once per row) over the time of all optimizer steps but the first; peak memory is the process's.
TRL runs in float32, in bfloat16 and packed, at batch sizes 4 and 16; its best counts.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ALPACA = Path(__file__).resolve().parents[2] / "shared" / "data" / "alpaca" / "alpaca_data.json.gz"
TASK = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
TASK_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TRL_SETTINGS = ["trl float32 4", "trl float32 16", "trl bfloat16 16", "trl packed 4"]
OURS = ["luthier float32", "luthier bfloat16"]


def rows(count: int) -> list[tuple[str, str]]:
    """(prompt, output) of the first rows, in Alpaca's layout."""
    out = []
    for row in json.loads(gzip.decompress(ALPACA.read_bytes()))[:count]:
        task = TASK_INPUT if row["input"] else TASK
        middle = f"\n\n### Input:\n{row['input']}" if row["input"] else ""
        out.append((f"{task}\n\n### Instruction:\n{row['instruction']}{middle}\n\n### Response:\n", row["output"]))
    return out


def trl(options: argparse.Namespace, dtype: str, batch: int, packed: bool) -> dict[str, Any]:
    """One epoch of TRL's SFTTrainer with PEFT."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.marks: list[float] = []

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.marks.append(time.perf_counter())

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            self.marks.append(time.perf_counter())

    class InOrder(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, dtype))
    data = [{"prompt": p, "completion": c} for p, c in rows(options.rows)]
    clock = Clock()
    settings = SFTConfig(
        output_dir=tempfile.mkdtemp(), report_to="none", use_cpu=True, bf16=dtype == "bfloat16", disable_tqdm=True,
        per_device_train_batch_size=batch, gradient_accumulation_steps=max(1, options.batch // batch), num_train_epochs=1,
        gradient_checkpointing=False, learning_rate=1e-3, logging_steps=1, save_strategy="no", max_length=1024,
        shuffle_dataset=False, packing=packed, completion_only_loss=True, lr_scheduler_type="constant",
    )  # fmt: skip
    trainer = InOrder(
        model=model, args=settings, train_dataset=Dataset.from_list(data), processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=LINEAR), callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    total = count_tokens(tokenizer, options.rows)
    seconds = clock.marks[-1] - clock.marks[1]
    return {"seconds": seconds, "tokens": total * (len(clock.marks) - 2) / (len(clock.marks) - 1), "losses": losses}


def luthier(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """The same with Luthier's parts."""
    import torch

    from luthier.core.config import LoraConfig, QuantConfig, TrainConfig
    from luthier.core.types import Chat, Message
    from luthier.methods.likelihood import likelihood
    from luthier.model import load, tune
    from luthier.model.forward import forward
    from luthier.text.encode import encode
    from luthier.text.template import load_template
    from luthier.text.tokenizer import Tokenizer
    from luthier.text.weigh import RULES
    from luthier.train.loop import State, train
    from luthier.train.optim import Optimizer
    from luthier.train.steps import OfflineSteps, Packing

    loaded = load.load(Path(options.model), device=torch.device("cpu"), dtype=getattr(torch, dtype))
    tokenizer = Tokenizer(loaded.tokenizer)
    chats = [Chat((Message("user", p), Message("assistant", c))) for p, c in rows(options.rows)]
    from luthier.core.config import TextConfig

    trees = encode(chats, load_template("plain", tokenizer), tokenizer, TextConfig()).trees
    torch.manual_seed(0)
    tuned = tune.prepare(loaded.model, "lora", LoraConfig(rank=16, alpha=32), QuantConfig())
    config = TrainConfig(schedule="constant", warmup=0.0)
    packing = Packing(options.tokens, 128 if dtype == "bfloat16" else 1)
    steps = OfflineSteps(trees, options.batch, len(trees), RULES["token"], packing, seed=0)
    state = State(tuned.model, Optimizer(tuned.parameters, config, {}))
    run = train(state, steps, likelihood, forward, config, lr=1e-3, seed=0, device=torch.device("cpu"))
    reports = list(run)
    first = first_loss(trees, tuned.model, options)
    return {
        "seconds": sum(r.seconds for r in reports[1:]), "tokens": sum(r.tokens for r in reports[1:]),
        "losses": [r.loss for r in reports], "check": first,
    }  # fmt: skip


def first_loss(trees: Any, model: Any, options: argparse.Namespace) -> float:
    """The loss of the first `batch` rows in file order under the untouched model, which TRL's first step shows too."""
    import torch

    from luthier.model.forward import forward
    from luthier.model.lora import enable
    from luthier.text.weigh import RULES
    from luthier.train.steps import Packing, make_step

    enable(model, False)
    step = make_step(trees[: options.batch], RULES["token"], Packing(options.tokens))
    with torch.no_grad():
        return float(sum(-(b.weight * forward(model, b).logp).sum() for b in step.micro))


def count_tokens(tokenizer: Any, count: int) -> int:
    """Tokens of the rows, with one EOS each."""
    return sum(len(tokenizer(p)["input_ids"]) + len(tokenizer(c)["input_ids"]) + 1 for p, c in rows(count))


def child(options: argparse.Namespace) -> None:
    """Run one setting in this process and print its figures."""
    import torch

    torch.set_num_threads(options.threads)
    name, *rest = options.child.split()
    if name == "luthier":
        found = luthier(options, rest[0])
    else:
        packed = rest[0] == "packed"
        found = trl(options, "float32" if packed else rest[0], int(rest[1]), packed)
    status = Path("/proc/self/status").read_text()  # not getrusage: a child can inherit its parent's peak there
    found["peak"] = 1024 * int(status.split("VmHWM:")[1].split()[0])
    print("RESULT " + json.dumps(found))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """The median of several processes of one setting."""
    found = []
    for _ in range(options.repeat):
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--child", name, "--model", options.model],
            capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads)},
        )  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            print(f"{name:20} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
            return None
        found.append(json.loads(lines[0][7:]))
    found.sort(key=lambda f: f["tokens"] / f["seconds"])
    chosen = found[len(found) // 2]
    chosen["rate"] = statistics.median(f["tokens"] / f["seconds"] for f in found)
    first = chosen.get("check", chosen["losses"][0])
    print(
        f"{name:20} {chosen['rate']:8.1f} tokens/s   peak {chosen['peak'] / 1e9:5.2f} GB   first loss {first:.5f}   "
        f"last {chosen['losses'][-1]:.4f}",
        flush=True,
    )
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16, help="rows per optimizer step")
    parser.add_argument("--tokens", type=int, default=512, help="Luthier: tokens per forward pass")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--only", help="run only settings whose name starts so")
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    from luthier.model.load import cpu_has_bfloat16
    from luthier.model.sources import resolve

    options.model = options.model or str(resolve("smollm2-135m").folder)
    native = cpu_has_bfloat16()
    print(
        f"{options.rows} rows, {options.batch} a step, {options.threads} threads, bfloat16 {'native' if native else 'emulated'}"
    )
    names = [n for n in [*TRL_SETTINGS, *OURS] if native or "bfloat16" not in n]
    found = {n: measure(n, options) for n in names if n.startswith(options.only or "")}
    theirs = [f for n, f in found.items() if n.startswith("trl") and f]
    ours = [f for n, f in found.items() if n.startswith("luthier") and f]
    if theirs and ours:
        best, mine = (max(group, key=lambda f: f["rate"]) for group in (theirs, ours))
        print(f"speed {mine['rate'] / best['rate']:.2f} x TRL's best   memory {mine['peak'] / best['peak']:.2f} of it")


if __name__ == "__main__":
    main()
