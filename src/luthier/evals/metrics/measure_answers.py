"""Generated answers -> scores per item -> the table before | after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from luthier.config.rewards import RewardConfig
from luthier.core.errors import unknown
from luthier.core.types.run_result import Metric
from luthier.evals.metrics import user_metrics
from luthier.evals.metrics.answer_metrics import METRICS, USER_METRIC
from luthier.evals.metrics.labels import commonest
from luthier.evals.stats.paired import Question, before_after, paired

Scores = dict[str, list[float]]
ROW_KEYS = ("before", "after", "difference", "low", "high", "n", "p", "corrected", "verdict")  # of a row of `table`

# What methods report of each held-out example: name -> (title, unit, best value, higher is better).
METHOD_FIGURES: dict[str, tuple[str, str, float | None, bool | None]] = {
    "accuracy": ("better answer preferred", "%", 1.0, True),
    "margin": ("margin", "", None, True),
    "chosen_logp": ("log p of better answers", "", None, True),
    "rejected_logp": ("log p of worse answers", "", None, None),
}


def score(
    samples: Sequence[str], references: Sequence[str], prompts: Sequence[str], metrics: Sequence[str],
    ended: Sequence[str] = (), limits: RewardConfig | None = None,
) -> Scores:  # fmt: skip
    """Every metric of every answer: name -> one number per item, in the order given. `ended` says how each answer ended
    (`generate.Sample`), where that is known; `limits` are those of metrics of the user's.

    Raises InputError for a name that is not in METRICS ('auto' is made definite by `chosen_metrics`), and as `user_metrics.score`.
    """
    assert len(samples) == len(references) == len(prompts)
    scores: Scores = {}
    for name in metrics:
        if name.startswith(USER_METRIC):
            scores[name] = user_metrics.score(name, samples, references, prompts, ended, limits or RewardConfig())
            continue
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
    """One row per metric of `before`, as `compare.before_after` makes them: paired by item, corrected for all the rows."""
    return before_after(questions(before, after), seed)


def questions(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> list[Question]:
    """What is asked of every metric of `before`."""
    return [paired(name, before[name], after[name], about_metric(name)) for name in before]


def about_metric(name: str) -> dict[str, Any]:
    """What people call a metric of answers, its unit, best value and direction."""
    if name.startswith(USER_METRIC):
        return user_metrics.about(name)
    metric = METRICS[name]
    return _about(metric.title, metric.unit, metric.top, metric.higher_is_better)


def means(scores: Scores) -> list[dict[str, Any]]:
    """Rows like those of `table` before there is anything to compare with: only `before`, a plain mean."""
    out = []
    for name, items in scores.items():
        about = about_metric(name)
        out.append({"name": name, "title": about["title"], "unit": about["unit"], "before": sum(items) / len(items)})
    return out


def about_item(name: str) -> dict[str, Any]:
    """The same of what a method reports (ITEMS), or of a reward or judge by name."""
    return _about(*(METHOD_FIGURES.get(name) or (name.replace("/", ": "), "", None, True)))


def about_loss(units: Sequence[int]) -> dict[str, Any]:
    """The same of the held-out loss per unit (token, or 1)."""
    return _about("loss" if set(units) == {1} else "loss per token", "", None, False)


def loss_question(before: Sequence[float], after: Sequence[float], units: Sequence[int]) -> Question:
    """The held-out loss per unit, from the summed loss and the units of each item."""
    return paired("loss", before, after, about_loss(units), units)


def _about(title: str, unit: str, top: float | None, higher_is_better: bool | None) -> dict[str, Any]:
    return {"title": title, "unit": unit, "top": top, "higher_is_better": higher_is_better}


def with_baseline(rows: Sequence[dict[str, Any]], references: Sequence[str]) -> list[dict[str, Any]]:
    """The rows, that of the accuracy with its `baseline`: the `answer` that is right most often, and its `share`."""
    answer, share = commonest(references)
    return [
        row | {"baseline": {"answer": answer, "share": share}} if row["name"] == "accuracy" and answer else row
        for row in rows
    ]


def as_json(rows: Sequence[Mapping[str, Any]]) -> dict[str, Metric]:
    """The `metrics` of `--json`: name -> before, after, difference, low, high, n, p, corrected, verdict; of the accuracy of labels
    the `baseline` too."""
    return {
        row["name"]: cast(Metric, {key: row[key] for key in (*ROW_KEYS, "baseline") if key in row or key in ROW_KEYS})
        for row in rows
    }
