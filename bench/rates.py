"""Which learning rate and schedule suits ppo and grpo: trials on three tasks, with seeds.

    python bench/rates.py [--out runs/rates] [--tasks length intent learned] [--methods ppo grpo] [--factors 0.1 0.25 0.5]
                          [--schedules constant cosine] [--seeds 0 1 2] [--steps 10] [--more policy.kl=0.01]

    length   the answer's closeness to 40 characters, as 0.1 closeness - 1      prompts: rasbt_instruct
    intent   the right intent (`exact`), after a little supervised tuning       prompts: banking77
    learned  a reward model's score, trained on rankings                        prompts: rasbt_instruct

A factor is the share of the learning rate that supervised tuning has by default. A step learns from 32 answers: 8 prompts of 4
for grpo and ppo alike; ppo has its usual kl of 0.05, grpo none. Gains are of held-out prompts whose answers are drawn at temperature 1,
after less before, divided by the deviation of their rewards before: so the tasks can be compared. Each trial is a run of
`luthier train` in --out; one that is there is not run again. The table is printed after every trial, so it can be stopped at any time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev, stdev

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DEMONSTRATIONS = DATA / "rasbt_instruct" / "instruction-data.json"
RANKINGS = DATA / "alpaca_eval_pref" / "alpaca_eval_pref_train.jsonl.gz"
INTENTS = DATA / "banking77"
QUIET = ["--no-eval.forgetting", "--eval.samples", "0", "--eval.rows", "16"]
PROMPTS, ANSWERS, HELD_OUT = 8, 4, 150


def closeness(answers: Sequence[str]) -> list[float]:
    """The reward of `length`: -0.9 for 40 characters, falling evenly to -1 at 0 and 80."""
    return [0.1 * max(0.0, 1 - abs(len(answer) - 40) / 40) - 1 for answer in answers]


def luthier(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "luthier", "train", *arguments], check=True)


def prepared(out: Path, name: str, *arguments: str) -> str:
    """A run that trials start from; made once."""
    if not (out / name / "result.json").exists():
        luthier(*arguments, "--out", str(out / name), *QUIET)
    return str(out / name)


def of_length(out: Path) -> list[str]:
    return [str(DEMONSTRATIONS), "--reward", f"python:{__file__}:closeness", "--rollout.max_new_tokens", "24"]


def of_intent(out: Path) -> list[str]:
    train, test = str(INTENTS / "train.csv"), ["--data.eval", str(INTENTS / "test.csv")]
    start = prepared(
        out, "intent-sft", train, *test, "--text.template", "plain", "--train.steps", "60", "--train.lr", "1e-3"
    )
    return [train, *test, "--model", start, "--reward", "exact", "--rollout.max_new_tokens", "18"]


def of_learned(out: Path) -> list[str]:
    start = prepared(out, "learned-sft", str(DEMONSTRATIONS), "--train.steps", "36")
    reward = prepared(
        out, "learned-reward", str(RANKINGS), "--method", "reward", "--model", start, "--data.limit", "2500",
        "--text.max_length", "96", "--train.steps", "24", "--train.batch", "4",
    )  # fmt: skip
    return [
        str(DEMONSTRATIONS), "--model", start, "--reward", f"model:{reward}", "--rollout.max_new_tokens", "32",
    ]  # fmt: skip


TASKS = {"length": of_length, "intent": of_intent, "learned": of_learned}


def trial(options: argparse.Namespace, task: str, method: str, factor: float, schedule: str, seed: int) -> Path:
    """Run one, unless it is there."""
    more = "-".join(["", *options.more]).replace("=", "")
    out = options.out / task / f"{method}{more}-{factor:g}-{schedule}-{options.steps}-seed{seed}"
    if (out / "result.json").exists():
        return out
    common = TASKS[task](options.out)
    tokens = common[common.index("--rollout.max_new_tokens") + 1]
    luthier(
        *common, "--method", method, "--out", str(out), "--train.lr", f"{factor * 1.32e-3:g}", "--train.schedule", schedule,
        "--train.steps", str(options.steps), "--train.batch", str(PROMPTS), "--rollout.samples", str(ANSWERS),
        "--seed", str(seed), "--eval.temperature", "1", "--eval.samples", str(HELD_OUT), "--eval.rows", "16",
        "--eval.max_new_tokens", tokens, "--no-eval.forgetting", "--train.checkpoint", "1000", "--data.holdout", str(HELD_OUT / 1100),
        *itertools.chain.from_iterable((f"--{name}", value) for name, _, value in (m.partition("=") for m in options.more)),
    )  # fmt: skip
    return out


def gain(run: Path) -> dict[str, float]:
    """Of one trial, on its held-out prompts: the reward's gain in deviations of the rewards before and the gain's standard error, the
    change of the share of answers that ended, and KL per answer, of the answers of the last rollout."""
    before, after = (
        [
            record
            for record in map(json.loads, (run / "evals" / f"{stage}.jsonl").read_text().splitlines())
            if "answer" in record
        ]
        for stage in ("before", "after")
    )
    old, new = ([record["rewards"]["reward"] for record in side] for side in (before, after))
    moved = [b - a for a, b in zip(old, new, strict=True)]
    ended = [fmean(record["ended"] == "stop" for record in side) for side in (before, after)]
    return {
        "gain": fmean(moved) / pstdev(old), "error": stdev(moved) / len(moved) ** 0.5 / pstdev(old), "n": len(moved),
        "kl": json.loads((run / "result.json").read_text())["kl_per_answer"], "ended": ended[1] - ended[0],
    }  # fmt: skip


def table(runs: dict[tuple[str, str, float, str], list[Path]]) -> None:
    """A line for each setting; gains with their standard errors and KL by seed."""
    print(
        "\n| task | method | share of sft's rate | schedule | gain, by seed | KL, by seed | change of the share ended |"
    )
    print("|---|---|---|---|---|---|---|")
    for (task, method, factor, schedule), made in sorted(runs.items()):
        found = [gain(run) for run in made]
        gains = ", ".join(f"{f['gain']:+.2f} ({f['error']:.2f})" for f in found)
        kls = ", ".join(f"{f['kl']:.1f}" for f in found)
        print(
            f"| {task} | `{method}` | {factor:g} | {schedule} | {gains} | {kls} | {fmean(f['ended'] for f in found):+.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/rates"))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--methods", nargs="+", default=["ppo", "grpo"])
    parser.add_argument("--factors", nargs="+", type=float, default=[0.1, 0.25, 0.5])
    parser.add_argument("--schedules", nargs="+", default=["constant", "cosine"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--more", nargs="*", default=[], metavar="NAME=VALUE", help="further settings of the trials")
    options = parser.parse_args()
    runs: dict[tuple[str, str, float, str], list[Path]] = {}
    grid = itertools.product(options.seeds, options.tasks, options.methods, options.factors, options.schedules)
    for seed, task, method, factor, schedule in grid:
        runs.setdefault((task, method, factor, schedule), []).append(
            trial(options, task, method, factor, schedule, seed)
        )
        table(runs)


if __name__ == "__main__":
    main()
