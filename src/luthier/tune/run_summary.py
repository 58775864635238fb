"""What a run shows of itself: what is about to happen, what the model can do before it is tuned, pictures at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, variance
from typing import Any

from luthier.config.run import RunConfig
from luthier.report import plot, reward_over_divergence
from luthier.runs.folder import RunFolder
from luthier.tune import before_after
from luthier.tune.build import TrainingJob
from luthier.tune.held_out import HeldOut, Measured

TREND_ROLLOUTS = 10  # rollouts whose mean reward is compared with that of those before


def baseline_summary(
    before: Measured,
    held_out: HeldOut,
    unit: str,
    metrics: tuple[str, ...],
    config: RunConfig,
) -> dict[str, Any]:
    """What the model can do before it is tuned, for the screen."""
    means = before_after.means(held_out, before, metrics, config)
    return {
        "loss": before.loss, "unit": unit, "scores": means, "prompts": held_out.prompts, "references": held_out.references,
        "answers": before.answers,
    }  # fmt: skip


def run_summary(job: TrainingJob) -> dict[str, Any]:
    """What is about to happen, for the screen."""
    counts = job.encoded.counts
    learn = "a stream" if job.examples.stream else f"{_remaining(counts['rows'], counts['dropped'])} rows"
    held_out = _remaining(counts["held_out"], counts["held_out_dropped"])
    return {
        "run": str(job.folder.path),
        "data": f"{learn} to learn from, {held_out} held out ({job.examples.layout})",
        "model": f"{job.config.model}, template {job.texts.template.name}",
        "tune": f"{job.config.method}, {job.config.tune}",
    }


def _remaining(rows: int, dropped: Mapping[str, int]) -> str:
    """How many rows are left, of how many."""
    lost = sum(dropped.values())
    return f"{rows - lost:,} of {rows:,}" if lost else f"{rows:,}"


def rollout_figures(metrics: Mapping[str, float], rewards: Sequence[float]) -> dict[str, str]:
    """The figures of a rollout that people watch: its mean reward with the trend of the `rewards` of rollouts so far, nats per
    answer from the starting model, the share of answers that came to an end, and their length in tokens."""
    return {
        "reward": f"{metrics['reward']:z.3f} {reward_trend(rewards)}".rstrip(), "KL": f"{metrics['kl_per_answer']:z.2f}",
        "ended": f"{metrics['ended']:.0%}", "length": f"{metrics['length']:.0f}",
    }  # fmt: skip


def reward_trend(rewards: Sequence[float]) -> str:
    """An arrow up or down where the mean of the latest rewards (TREND_ROLLOUTS or fewer) differs from that of as many before by more
    than twice its standard error, else a level one; nothing where there are fewer than three of each."""
    half = min(TREND_ROLLOUTS, len(rewards) // 2)
    if half < 3:
        return ""
    before, now = rewards[-2 * half : -half], rewards[-half:]
    change, error = fmean(now) - fmean(before), sqrt((variance(now) + variance(before)) / half)
    return "→" if abs(change) <= 2 * error else "↑" if change > 0 else "↓"


def write_plots(folder: RunFolder, rows: Sequence[dict[str, Any]], unit: str) -> None:
    """The curves of training and the bars of before and after, as files of the run."""
    records = folder.records("metrics.jsonl") or []
    losses = [(r["step"], r["loss"]) for r in records if "loss" in r]
    evals = [(r["step"], r["eval_loss"]) for r in records if r.get("eval_loss") is not None]
    found = reward_over_divergence.reward_over_divergence(records, rows)
    if found.rollouts:
        title, along = "reward, the further the policy moves", "nats per answer from the starting model (KL)"
        shown = [plot.Panel(title, found.rollouts, found.held_out, "learned from", ("rollouts", "held-out"))]
        if found.judge:
            shown.append(plot.Panel(f"judging {title}", (), found.judge, "not learned from", ("", "held-out")))
        plot.panels(shown, title, folder.path / "reward.svg", along)
    if losses:
        plot.loss_curve(losses, evals, "training loss", folder.path / "loss.svg", unit)
    if rows:
        plot.before_after_bars(rows, folder.path / "table.svg")
