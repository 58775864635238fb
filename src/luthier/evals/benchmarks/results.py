"""Records -> metrics with 95 % intervals over the documents."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import exp, hypot, inf, log
from typing import Any

from luthier.evals.benchmarks.measure import Record
from luthier.evals.benchmarks.tasks import SuiteColumn, Task
from luthier.evals.stats.intervals import MIN_CHANGED, Estimate, fewest, mean_interval, ratio_interval, share_interval
from luthier.evals.stats.shares import quantile, wilson

Scores = dict[str, Estimate]


@dataclass(frozen=True)
class Metric:
    """How a metric is made of records: the mean of a field, or, with `per`, exp(-log p / that field), in bits with
    `bits`. `unit` '%' marks a share from 0 to 1 that people read as a percentage."""

    title: str
    higher_is_better: bool = True
    unit: str = "%"
    per: str = ""
    bits: bool = False


METRICS: dict[str, Metric] = {
    "acc": Metric("accuracy"),
    "acc_norm": Metric("accuracy, by length"),
    "acc_subjects": Metric("accuracy, mean of subjects"),
    "mc2": Metric("true share"),
    "exact_match": Metric("exact match"),
    "exact_match_flexible": Metric("exact match, last number"),
    "perplexity": Metric("perplexity", False, "", per="documents"),
    "token_perplexity": Metric("perplexity per token", False, "", per="tokens"),
    "word_perplexity": Metric("perplexity per word", False, "", per="words"),
    "byte_perplexity": Metric("perplexity per byte", False, "", per="bytes"),
    "bits_per_byte": Metric("bits per byte", False, "", per="bytes", bits=True),
}


def summary(task: Task, records: Sequence[Record]) -> Scores:
    """Every metric of the task; of a whole benchmark in parts also the plain mean of its parts, as `acc_subjects`."""
    scores = {name: _estimate(METRICS[name], name, records) for name in task.metrics}
    if not task.group and "group" in records[0]:
        scores["acc_subjects"] = _mean_of_groups(records)
    return scores


def by_group(task: Task, records: Sequence[Record]) -> dict[str, Scores]:
    """The metrics of each part of a benchmark that has parts."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if "group" in record:
            groups[record["group"]].append(record)
    parts = {name: summary(replace(task, group=name), groups[name]) for name in sorted(groups)}
    return parts if len(parts) > 1 else {}


def average(entries: Sequence[SuiteColumn], scores: Mapping[str, Scores]) -> Estimate:
    """The mean of a suite's metrics. The tasks are independent, so the half-widths of their intervals add as squares."""
    found = [scores[entry.task][entry.metric] for entry in entries]
    value = sum(part.value for part in found) / len(found)
    bounds = []
    for side in ("low", "high"):
        ends = [getattr(part, side) for part in found]
        if None in ends:
            return Estimate(value, None, None, sum(part.n for part in found))
        bounds.append(hypot(*(end - part.value for end, part in zip(ends, found, strict=True))) / len(found))
    return Estimate(value, value - bounds[0], value + bounds[1], sum(part.n for part in found))


def as_json(scores: Scores) -> dict[str, dict[str, Any]]:
    """name -> value, low, high, n; None for what is more than a number holds."""
    return {
        name: {key: None if value == inf else value for key, value in asdict(estimate).items()}
        for name, estimate in scores.items()
    }


def _estimate(metric: Metric, name: str, records: Sequence[Record]) -> Estimate:
    if not metric.per:
        return share_interval([record[name] for record in records])
    nats = [-record["logp"] for record in records]
    counts = [1 if metric.per == "documents" else record[metric.per] for record in records]
    found = ratio_interval(nats, counts)
    value, low, high = (
        None if number is None else number / log(2) if metric.bits else _exp(number)
        for number in (found.value, found.low, found.high)
    )
    assert value is not None
    return Estimate(value, low, high, found.n)


def _exp(number: float) -> float:
    """e to the `number`, and infinity from 700 on: a text without blanks is one word, whose perplexity no float holds."""
    return exp(number) if number < 700 else inf


def _mean_of_groups(records: Sequence[Record]) -> Estimate:
    """The plain mean over groups of their mean accuracy: item i of a group of n among G weighs 1 / (G n). Where hardly
    any is right, or wrong, the interval is that of a share of as many items as such weights are worth, 1 / sum(w²) (Kish 1965)."""
    sizes = Counter(record["group"] for record in records)
    weights = [1 / (len(sizes) * sizes[record["group"]]) for record in records]
    n, right = len(records), sum(record["acc"] for record in records)
    if n >= fewest() and min(right, n - right) < MIN_CHANGED:
        rights: Counter[str] = Counter()
        for record in records:
            rights[record["group"]] += record["acc"]
        value = sum(rights[group] / size for group, size in sizes.items()) / len(sizes)
        low, high = wilson(value, 1 / sum(weight**2 for weight in weights), quantile(0.95))
        return Estimate(value, max(0.0, low), min(1.0, high), n)
    return mean_interval([record["acc"] * n * weight for weight, record in zip(weights, records, strict=True)])
