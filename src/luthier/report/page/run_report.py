"""What a page is told of a run: plain values, read from the run directory by `tune/write_report.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.config.run import RunConfig
from luthier.core.types.run_result import RunResult
from luthier.report.tables import Row


@dataclass(frozen=True)
class Sample:
    """A held-out prompt with its reference and the answers before and after; rewards where the method has them.
    `ended` says how the answer after ended, where that was kept."""

    row: int
    prompt: str
    reference: str
    before: str
    after: str
    rewards: tuple[float, float] | None = None
    ended: str = ""


@dataclass(frozen=True)
class RewardedAnswer:
    """An answer of a rollout with its reward; the prompt, how it `ended` and its `length` in tokens where these were kept."""

    prompt: str
    answer: str
    reward: float
    ended: str = ""
    length: int | None = None


@dataclass(frozen=True)
class Rollout:
    """The best and the worst answers of a rollout, which are numbered from 0."""

    number: int
    best: Sequence[RewardedAnswer]
    worst: Sequence[RewardedAnswer] = ()


@dataclass(frozen=True)
class ForgottenAnswer:
    """What the model answered before to a general question, what it answers now, and the nats per token that it finds the
    earlier answer less likely."""

    prompt: str
    before: str
    now: str
    drift: float


@dataclass(frozen=True)
class Category:
    """A kind of error: what it means, and the share of answers that have it before and after as a metric row."""

    title: str
    meaning: str
    row: Row


@dataclass(frozen=True)
class ErrorCounts:
    """What `luthier errors` found in `n` answers; `sound` are those in which it found nothing. `correctness_known` says
    whether anything tells if an answer is right; else sound ones say little, and stand last."""

    n: int
    sound: Category
    categories: Sequence[Category]
    correctness_known: bool = True


@dataclass(frozen=True)
class RunReport:
    """A run: its settings and result, the metric rows (`measure_answers.table`) of what it learned and of what was not to change
    (`retention`), the lines of metrics.jsonl, and what the evaluations left. `codes` are the lines of
    errors/codes.jsonl, `data_description` is data.json, `method` says in words how the run learned, `rollouts` are some
    of those of a method that learns from rewards."""

    name: str
    path: str
    config: RunConfig
    method: str
    result: RunResult
    rows: Sequence[Row] = ()
    retention: Sequence[Row] = ()
    steps: Sequence[Mapping[str, Any]] = ()
    samples: Sequence[Sample] = ()
    rollouts: Sequence[Rollout] = ()
    forgotten: Sequence[ForgottenAnswer] = ()
    errors: ErrorCounts | None = None
    codes: Sequence[Mapping[str, Any]] = ()
    lineage: Mapping[str, Any] = field(default_factory=dict)
    data_description: Mapping[str, Any] = field(default_factory=dict)

    def series(self, name: str, along: str = "step") -> list[tuple[float, float]]:
        """(value of `along`, value of `name`) of every line of metrics.jsonl that has the figure, as it was written.

        Lines of evaluations have no token count: theirs is that of their step. A name that steps and evaluations both have,
        such as `length` of rollouts in tokens and of held-out answers in characters, is the steps'.
        """
        at = {line["step"]: line.get(along) for line in self.steps if line.get(along) is not None}
        lines = [line for line in self.steps if isinstance(line.get(name), int | float)]
        lines = [line for line in lines if "loss" in line] or lines
        found = ((at.get(line["step"]), line[name]) for line in lines)
        return [(float(x), float(y)) for x, y in found if x is not None]
