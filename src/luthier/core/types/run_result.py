"""What a run came to: result.json, what `luthier train --json` prints, and `luthier.train(...).result` (docs/run.md).

A result is a plain object of JSON with these keys; those of earlier versions lack some. Keys beside these are left alone.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, Required

from pydantic import Field
from typing_extensions import TypedDict

from luthier.core.errors import InputError
from luthier.core.foreign.forms import Count, Number, Share

Figure = Number | None
Seconds = Annotated[Number, Field(ge=0)]


class Baseline(TypedDict):
    answer: str
    share: Share


class Metric(TypedDict, total=False):
    """A number before and after, the difference with its interval, and the verdict."""

    before: Required[Number]
    after: Required[Number]
    difference: Required[Number]
    low: Required[Figure]
    high: Required[Figure]
    n: Required[Count]
    p: Figure
    corrected: Figure
    verdict: str
    baseline: Baseline | None
    metric: str


class Divergence(TypedDict):
    value: Number
    low: Figure
    high: Figure
    n: NotRequired[Count]


class ForgettingFigures(TypedDict, total=False):
    drift: Number
    low: Figure
    high: Figure
    n: Count
    tokens: Count
    size: str
    sentence: str
    kl: dict[str, Divergence] | None
    benchmarks: dict[str, Metric] | None
    answers: dict[str, Metric] | None
    general: Metric | dict[str, Any] | None


class SelectedStep(TypedDict):
    """The step whose weights were kept, and why."""

    step: Count
    why: str


class DataCounts(TypedDict, total=False):
    """Rows, and what was lost of them; beside these what `luthier data` says of how they were read."""

    rows: Count
    held_out: Count
    replay: Count
    skipped: Count
    dropped: dict[str, Count]
    cut: Count
    cut_tokens: Count


class RunFinding(TypedDict):
    """What is told of the answers before all else (see `evals.detectors`)."""

    text: str
    name: NotRequired[str]
    answers: NotRequired[Count]
    category: NotRequired[str]


class Losses(TypedDict):
    """Of the first step, the last, and the held-out rows."""

    first: Figure
    last: Figure
    eval: Figure


class RewardModelFigures(TypedDict):
    pairs: Count
    calibration_error: Figure
    length_correlation: Figure


class JudgeConfirmation(TypedDict):
    """Whether the judge saw the reward rise too."""

    confirmed: bool | None
    sentence: str


class RunResult(TypedDict, total=False):
    """result.json: all of it for a finished run of this version."""

    run: str
    seconds: Seconds
    steps: Count
    tokens: Count
    tokens_per_second: Figure
    example_tokens: Count
    peak_memory_bytes: Count
    estimated_memory_bytes: Count
    trainable: Count
    parameters: Count
    loss: Losses
    kept: SelectedStep
    kl_per_answer: Number  # of methods that learn from rewards
    metrics: dict[str, Metric]
    forgetting: ForgettingFigures | None
    data: DataCounts
    equal_rewards: Share  # of methods that learn from rewards
    judge: JudgeConfirmation  # where there is one
    reward_model: RewardModelFigures  # of reward models
    findings: list[RunFinding]


ON_A_PAGE = (
    "run", "seconds", "steps", "tokens", "peak_memory_bytes", "trainable", "parameters", "kept", "metrics", "forgetting",
)  # fmt: skip


def require_page(result: RunResult, where: object, fix: str) -> None:
    """Raise InputError unless the result has all that the page of a run shows."""
    if missing := [name for name in ON_A_PAGE if name not in result]:
        raise InputError(f"'{missing[0]}' is missing", where=where, fix=fix)
