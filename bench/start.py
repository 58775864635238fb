"""What there is to wait for before the first step: tokens and packed rows, a later load of the model, and the help.

    python bench/start.py [--limit N] [--times 5] [--threads 2]

Rows: all of ../shared/data/alpaca, read, tokenized and packed into the micro-batches of one epoch, as `luthier train`
does with its default settings. The load is that of smollm2-135m, fetched and converted before. The help is
`luthier --help` in a process of its own. Prints medians of --times.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from luthier.config.resolve import resolve
from luthier.config.run import RunConfig
from luthier.core.stop import Stop
from luthier.model import load
from luthier.model.hub.sources import resolve as find
from luthier.model.memory import CPU_TOKENS
from luthier.runs.rows import read_examples
from luthier.runs.tokenizer_and_template import open_text_format
from luthier.text.loss_weights import RULES
from luthier.training.method_table import METHODS
from luthier.training.steps import OfflineSteps, Packing
from luthier.tune.prepare import encode_all

ALPACA = Path(__file__).resolve().parents[2] / "shared" / "data" / "alpaca" / "alpaca_data.json.gz"
CPU = torch.device("cpu")


def rows(config: RunConfig) -> None:
    """Files -> the batches of every step of one epoch."""
    examples = read_examples(config, METHODS[config.method].example)
    trees = encode_all(examples, open_text_format(config), config, Stop()).train
    packing = Packing(config.train.tokens or CPU_TOKENS)
    steps = OfflineSteps(trees, config.train.batch, len(trees), RULES[config.train.weigh], packing, config.seed)
    for index in range(len(steps)):
        steps.step(index)


def model(name: str) -> None:
    load.load(find(name, download=False), device=CPU, dtype=load.pick_dtype("auto", CPU))


def first_help() -> None:
    subprocess.run([sys.executable, "-m", "luthier", "--help"], check=True, stdout=subprocess.DEVNULL)


def median(work: Callable[[], None], times: int) -> float:
    """Seconds of the median of so many runs."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="only the first rows, for a quick look")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = resolve({"data.path": [str(ALPACA)], "data.limit": options.limit})
    find(config.model)
    count = f"{options.limit:,}" if options.limit else "all"
    print(f"{options.threads} threads, medians of {options.times}", flush=True)
    work = {
        f"{count} Alpaca rows read, tokenized and packed": partial(rows, config),
        f"{config.model} loaded": partial(model, config.model),
        "luthier --help": first_help,
    }
    for name, what in work.items():
        print(f"{name:45} {median(what, options.times):7.2f} s", flush=True)


if __name__ == "__main__":
    main()
