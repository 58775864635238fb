"""Generated answers -> scores per item -> the table before | after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.core.errors import unknown
from luthier.evals.intervals import Interval, difference, ratio_difference
from luthier.evals.metrics import METRICS

Scores = dict[str, list[float]]

# What methods report of each held-out example: name -> (title, unit, best value, higher is better).
ITEMS: dict[str, tuple[str, str, float | None, bool | None]] = {
    "accuracy": ("better answer preferred", "%", 1.0, True),
    "margin": ("margin", "", None, True),
    "chosen_logp": ("log p of better answers", "", None, True),
    "rejected_logp": ("log p of worse answers", "", None, None),
}


def score(
    samples: Sequence[str], references: Sequence[str], prompts: Sequence[str], metrics: Sequence[str],
    ended: Sequence[str] = (),
) -> Scores:  # fmt: skip
    """Every metric of every answer: name -> one number per item, in the order given. `ended` says how each answer ended
    (`generate.Sample`), where that is known.

    Raises InputError for a name that is not in METRICS ('auto' is made definite by `metrics.choose`).
    """
    assert len(samples) == len(references) == len(prompts)
    scores: Scores = {}
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS, where="--eval.metrics")
        metric = METRICS[name]
        if metric.whole and samples:
            scores[name] = metric.whole(samples, references)
        else:
            scores[name] = [metric.function(*item) for item in zip(samples, references, prompts, strict=True)]
        if metric.finished and ended:
            scores[name] = [x * (how != "length") for x, how in zip(scores[name], ended, strict=True)]
    return scores


def table(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], seed: int = 0
) -> list[dict[str, Any]]:
    """One row per metric of `before`: name, title, unit, top, higher_is_better, before, after, difference, low, high, n.

    `low` and `high` bound the difference at 95 %, paired by item; None with fewer than six items.
    """
    return [metric_row(name, difference(before[name], after[name], seed=seed)) for name in before]


def metric_row(name: str, interval: Interval) -> dict[str, Any]:
    """One row of `table`, for a metric of answers."""
    metric = METRICS[name]
    return _row(name, (metric.title, metric.unit, metric.top, metric.higher_is_better), interval)


def means(scores: Scores) -> list[dict[str, Any]]:
    """Rows like those of `table` before there is anything to compare with: only `before`, a plain mean."""
    return [
        {"name": name, "title": METRICS[name].title, "unit": METRICS[name].unit, "before": sum(items) / len(items)}
        for name, items in scores.items()
    ]


def row(name: str, interval: Interval) -> dict[str, Any]:
    """A row like those of `table` for what a method reports (ITEMS), or a reward or judge by name."""
    return _row(name, ITEMS.get(name) or (name.replace("/", ": "), "", None, True), interval)


def _row(name: str, about: tuple[str, str, float | None, bool | None], interval: Interval) -> dict[str, Any]:
    keys = ("title", "unit", "top", "higher_is_better")
    return {"name": name, **dict(zip(keys, about, strict=True)), **interval.as_dict()}


def as_json(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The `metrics` of `--json`: name -> before, after, difference, low, high, n."""
    keys = ("before", "after", "difference", "low", "high", "n")
    return {row["name"]: {key: row[key] for key in keys} for row in rows}


def loss_row(before: Sequence[float], after: Sequence[float], units: Sequence[int], seed: int = 0) -> dict[str, Any]:
    """The row of the held-out loss per unit, from the summed loss and the units (tokens, or 1) of each item."""
    interval = ratio_difference(before, after, units, seed=seed)
    title = "loss" if set(units) == {1} else "loss per token"
    about = {"name": "loss", "title": title, "unit": "", "top": None, "higher_is_better": False}
    return {**about, **interval.as_dict()}
