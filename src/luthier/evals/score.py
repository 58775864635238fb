"""Generated answers -> scores per item -> the table before | after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.core.errors import unknown
from luthier.evals.intervals import Interval, difference, ratio_difference
from luthier.evals.metrics import METRICS

Scores = dict[str, list[float]]


def score(samples: Sequence[str], references: Sequence[str], prompts: Sequence[str], metrics: Sequence[str]) -> Scores:
    """Every metric of every answer: name -> one number per item, in the order given.

    Raises InputError for a name that is not in METRICS ('auto' is made definite by `metrics.choose`).
    """
    assert len(samples) == len(references) == len(prompts)
    scores: Scores = {}
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS, where="--eval.metrics")
        function = METRICS[name].function
        scores[name] = [function(*item) for item in zip(samples, references, prompts, strict=True)]
    return scores


def table(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], seed: int = 0
) -> list[dict[str, Any]]:
    """One row per metric of `before`: name, title, unit, top, higher_is_better, before, after, difference, low, high, n.

    `low` and `high` bound the difference at 95 %, paired by item; None with fewer than six items.
    """
    return [row(name, difference(before[name], after[name], seed=seed)) for name in before]


def row(name: str, interval: Interval) -> dict[str, Any]:
    """One row of `table`, for a metric by name."""
    metric = METRICS[name]
    return {
        "name": name,
        "title": metric.title,
        "unit": metric.unit,
        "top": metric.top,
        "higher_is_better": metric.higher_is_better,
        **interval.as_dict(),
    }


def as_json(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The `metrics` of `--json`: name -> before, after, difference, low, high, n."""
    keys = ("before", "after", "difference", "low", "high", "n")
    return {row["name"]: {key: row[key] for key in keys} for row in rows}


def loss_row(before: Sequence[float], after: Sequence[float], tokens: Sequence[int], seed: int = 0) -> dict[str, Any]:
    """The row of the held-out loss in nats per token, from the summed loss and the tokens of each item."""
    interval = ratio_difference(before, after, tokens, seed=seed)
    about = {"name": "loss", "title": "loss per token", "unit": "", "top": None, "higher_is_better": False}
    return {**about, **interval.as_dict()}
