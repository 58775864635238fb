"""What the comparisons with TRL share: the adapter, a clock, a process for each setting, and the ratios.

A setting is a name such as `trl bfloat16` or `luthier float32`; `one(options, name)` runs it and returns

    seconds, count    what was timed, and how many units (tokens, pairs) it made
    first             figures of the first step by name, which all float32 settings must agree on to 1e-3
    last              the last loss
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA = 16, 32
CLOSE = 1e-3

One = Callable[[argparse.Namespace, str], dict[str, Any]]


def parser(about: str | None, *, rows: int, batch: int, tokens: int) -> argparse.ArgumentParser:
    """The options that all comparisons have."""
    out = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--rows", type=int, default=rows)
    out.add_argument("--batch", type=int, default=batch, help="rows per optimizer step")
    out.add_argument("--tokens", type=int, default=tokens, help="Luthier: tokens per forward pass")
    out.add_argument("--threads", type=int, default=2)
    out.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    out.add_argument("--repeat", type=int, default=1, help="processes of each setting; their median counts")
    out.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="run only settings whose name starts so")
    out.add_argument("--model", default="smollm2-135m")
    out.add_argument("--child", help=argparse.SUPPRESS)
    return out


def compare(options: argparse.Namespace, script: str, settings: Sequence[str], one: One, unit: str) -> None:
    """Run every setting in a process of its own, one after the other, and print the figures and ratios.

    In that process itself (`--child`), run the one setting and print its figures as JSON.
    """
    if options.child:
        _child(options, one)
        return
    from luthier.model.hub.sources import resolve

    options.model = str(resolve(options.model).folder)
    native = has_bfloat16(options.device)
    print(
        f"{options.rows} rows, {options.batch} a step, {where(options)}, "
        f"bfloat16 {'native' if native else 'emulated: left out'}"
    )
    chosen = [n for n in settings if n.startswith(tuple(options.only)) and (native or "bfloat16" not in n)]
    found = {name: done for name in chosen if (done := _measure(options, script, name, unit))}
    _ratios(found)


def _child(options: argparse.Namespace, one: One) -> None:
    import torch

    torch.set_num_threads(options.threads)
    found = one(options, options.child)
    print("RESULT " + json.dumps(found | {"peak": peak(options.device)}))


def peak(device: str) -> int:
    """Most bytes so far: of torch's allocations on a GPU, of the process on the processor."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()  # not getrusage: a child can inherit its parent's peak there
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 itself."""
    import torch

    from luthier.model.load import pick_dtype

    return pick_dtype("auto", torch.device(device)) == torch.bfloat16


def where(options: argparse.Namespace) -> str:
    """The device in words."""
    import torch

    return torch.cuda.get_device_name() if options.device == "cuda" else f"{options.threads} threads"


def _measure(options: argparse.Namespace, script: str, name: str, unit: str) -> dict[str, Any] | None:
    """The median of several processes of one setting, printed; None when it fails."""
    found = []
    for _ in range(options.repeat):
        done = subprocess.run(
            [sys.executable, script, *sys.argv[1:], "--child", name, "--model", options.model],
            capture_output=True, text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(options.threads), "TRL_EXPERIMENTAL_SILENCE": "1"},
        )  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if not lines:
            print(f"{name:28} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
            return None
        found.append(json.loads(lines[0][7:]))
    found.sort(key=lambda f: f["count"] / f["seconds"])
    chosen: dict[str, Any] = found[len(found) // 2]
    chosen["rate"] = statistics.median(f["count"] / f["seconds"] for f in found)
    first = "   ".join(f"first {key} {value:.5f}" for key, value in chosen["first"].items())
    print(
        f"{name:28} {chosen['rate']:9.3f} {unit}/s   peak {chosen['peak'] / 1e9:5.2f} GB   {first}   last loss {chosen['last']:.4f}",
        flush=True,
    )
    return chosen


def _ratios(found: dict[str, dict[str, Any]]) -> None:
    """Luthier's best beside TRL's best, and whether their first figures agree in float32."""
    theirs = {n: f for n, f in found.items() if n.startswith("trl")}
    ours = {n: f for n, f in found.items() if n.startswith("luthier")}
    if not theirs or not ours:
        return
    best, mine = (max(group.values(), key=lambda f: f["rate"]) for group in (theirs, ours))
    print(f"speed {mine['rate'] / best['rate']:.2f} x TRL's best   memory {mine['peak'] / best['peak']:.2f} of it")
    exact = [[f for n, f in group.items() if "bfloat16" not in n] for group in (theirs, ours)]
    if all(exact) and exact[1][0]["first"]:
        pairs = [(t["first"], exact[1][0]["first"]) for t in exact[0]]
        apart = max(abs(a[key] - b[key]) / max(1.0, abs(a[key])) for a, b in pairs for key in a.keys() & b.keys())
        print(f"first figures in float32 differ by {apart:.1e}" + ("" if apart < CLOSE else f": MORE THAN {CLOSE:g}"))


def clock() -> Any:
    """A callback of transformers' Trainer that keeps when each step began, and when training ended: `marks`."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.marks: list[float] = []

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.marks.append(time.perf_counter())

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            self.marks.append(time.perf_counter())

    return Clock()


def in_order(trainer: type) -> type:
    """The trainer, taking rows in the order of the file."""

    class InOrder(trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
            from torch.utils.data import SequentialSampler

            return SequentialSampler(self.train_dataset)

    return InOrder


def trainer_settings(dtype: str, batch: int, device: str) -> dict[str, Any]:
    """Arguments of every TRL trainer: one epoch, nothing kept, a constant rate."""
    import tempfile

    return {
        "output_dir": tempfile.mkdtemp(), "report_to": "none", "use_cpu": device == "cpu", "bf16": dtype == "bfloat16",
        "disable_tqdm": True, "per_device_train_batch_size": batch, "num_train_epochs": 1, "gradient_checkpointing": False,
        "logging_steps": 1, "save_strategy": "no", "max_length": 1024, "lr_scheduler_type": "constant",
    }  # fmt: skip


def timed(marks: Sequence[float], count: int, batch: int, before: float = 0.0) -> dict[str, float]:
    """Seconds and rows of all steps but the first, with these rows' share of what was done `before` the steps."""
    share = (count - min(batch, count)) / count
    if len(marks) < 3:  # a single step, for a quick look
        return {"seconds": marks[-1] - marks[0] + before, "count": count}
    return {"seconds": marks[-1] - marks[1] + before * share, "count": count * share}
