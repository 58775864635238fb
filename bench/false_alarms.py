"""How often the error detectors speak up on answers that are mostly right: false alarms, and faults of the data.

    python bench/false_alarms.py [--rows 300] [--show CATEGORY]

Of each set of ../shared/data, shuffled with seed 1 (rules were set on seed 0), the first rows are looked at and the rest
is what the task is learned from. An answer is given once without a reference, as a row of data is, and once with itself
as the reference, which is all that an answer can do right. Prints the table of docs/errors.md: the share flagged without
a reference.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from luthier.evals.detectors.answer import GivenAnswer
from luthier.evals.detectors.table import CATEGORIES, detect
from luthier.evals.detectors.task import Task

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
Rows = list[tuple[str, str]]


def medquad() -> Rows:
    with gzip.open(DATA / "medquad" / "medquad.jsonl.gz", "rt", encoding="utf-8") as file:
        return [(row["question"], row["answer"]) for row in map(json.loads, file)]


def banking77() -> Rows:
    with (DATA / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def rasbt_instruct() -> Rows:
    return _instructions(json.loads((DATA / "rasbt_instruct" / "instruction-data.json").read_text(encoding="utf-8")))


def alpaca() -> Rows:
    with gzip.open(DATA / "alpaca" / "alpaca_data.json.gz", "rt", encoding="utf-8") as file:
        return _instructions(json.load(file))


def gsm8k() -> Rows:
    with gzip.open(DATA / "gsm8k" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        return [(row["question"], row["answer"]) for row in map(json.loads, file)]


SETS: dict[str, Callable[[], Rows]] = {
    "medquad": medquad,
    "rasbt_instruct": rasbt_instruct,
    "banking77": banking77,
    "alpaca": alpaca,
    "gsm8k": gsm8k,
}


def _instructions(rows: list[dict[str, str]]) -> Rows:
    return [("\n\n".join(filter(None, (row["instruction"], row["input"]))), row["output"]) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--show", choices=list(CATEGORIES))
    options = parser.parse_args()
    flagged: dict[str, Counter[str]] = {}
    for name, read in SETS.items():
        rows = read()
        random.Random(1).shuffle(rows)
        task = Task.learn(*map(list, zip(*rows[options.rows :], strict=True)))
        counts: Counter[str] = Counter()
        itself: Counter[str] = Counter()
        for prompt, answer in rows[: options.rows]:
            for finding in detect(GivenAnswer(prompt, answer), task):
                counts[finding.category] += 1
                if finding.category == options.show:
                    print(f"{name}: {finding.why}\n    {prompt[-100:]!r}\n    {answer[-200:]!r}")
            itself.update(finding.category for finding in detect(GivenAnswer(prompt, answer, answer), task))
        flagged[name] = counts
        print(f"{name}: as its own reference {dict(itself) or 'nothing'}")
    print("| category | " + " | ".join(SETS) + " |\n|---" + "|---" * len(SETS) + "|")
    for category in CATEGORIES:
        shares = [f"{counts[category] / options.rows:.1%}".replace("%", " %") for counts in flagged.values()]
        print(f"| `{category}` | " + " | ".join(shares) + " |")


if __name__ == "__main__":
    main()
