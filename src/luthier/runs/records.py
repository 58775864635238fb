"""The files of a run that are read again, and the form of what stands in them (docs/run.md). Keys beside these are left alone.

A run's folder may come from somebody else, or from a disk that failed: what is in it is held against these forms first.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from annotated_types import Len
from typing_extensions import TypedDict

from luthier.core.foreign.forms import Count, Number, Share, Whole, require_form
from luthier.core.types.run_result import RunResult

MEND = "put the file back from a copy, or train again"
Texts = list[str]
Ids = list[Whole]
Span = Annotated[list[Whole], Len(2, 2)]
Figure = Number | None


class Again(TypedDict):
    samples: Texts
    paraphrases: Texts
    answers: Texts


class Rewards(TypedDict):
    reward: Number


class Row(TypedDict, total=False):
    """A line of evals/before.jsonl and after.jsonl: a held-out row, with its loss, its answer or both."""

    row: Required[Count]
    loss: Number
    units: Count
    items: dict[str, Any]
    rewards: Rewards
    again: Again


class Loss(TypedDict):
    """Of a row, or of a text of --eval.general, whose loss was measured."""

    loss: Number
    units: Count


class Answer(TypedDict, total=False):
    """Of a row that was answered."""

    prompt: Required[str]
    reference: Required[str]
    answer: Required[str]
    ended: str
    logps: list[Number]


class General(TypedDict):
    """An answer of the starting model to a general prompt."""

    general: Ids
    prompt_ids: Ids
    logp: Number
    tokens: Count


class Own(TypedDict):
    """An answer of the measured model to a general prompt."""

    own: Ids
    prompt_ids: Ids
    said: str
    ended: str


class Text(TypedDict):
    """A text of --eval.general."""

    text: Count


class Finding(TypedDict):
    category: str
    why: str
    span: Span | None


class Found(TypedDict, total=False):
    """A line of errors/records.jsonl."""

    row: Required[Count]
    prompt: Required[str]
    reference: Required[str]
    before: Required[str]
    after: Required[str]
    before_findings: Required[list[Finding]]
    after_findings: Required[list[Finding]]
    before_bad: bool
    bad: bool
    bad_means: str


class Step(TypedDict, total=False):
    """A line of metrics.jsonl: of a step, with its `loss`, or of an evaluation."""

    step: Required[Count]
    loss: Number
    reward: Number
    kl_per_answer: Number
    eval_reward: Number
    eval_judge: Number
    eval_kl_per_answer: Figure
    eval_loss: Figure
    tokens: Count
    equal_rewards: Share


class Sampled(TypedDict, total=False):
    """A line of samples.jsonl: an answer of an evaluation (`step`), or of a `rollout`, those before `among` the best alone."""

    answer: Required[str]
    prompt: str
    step: Count
    rollout: Count
    among: Literal["best", "worst"]
    row: Count
    reward: Number
    ended: str
    length: Count


class Losses(TypedDict):
    """A line of losses.jsonl."""

    step: Count
    rows: list[Annotated[list[Number], Len(3, 3)]]  # row, loss, units


class Lengths(TypedDict):
    min: Count
    median: Number
    p95: Number
    max: Count


class About(TypedDict, total=False):
    """data.json."""

    layout: Required[str]
    lengths: Lengths | None
    duplicates: Count | None
    compared: Count
    languages: dict[str, Share] | None
    looked_at: Count


FORMS: dict[str, Any] = {
    "errors/records.jsonl": Found, "metrics.jsonl": Step, "losses.jsonl": Losses, "samples.jsonl": Sampled, "data.json": About,
    "result.json": RunResult,
}  # fmt: skip
# Of a line of evals/before.jsonl and after.jsonl, by a key that it has.
MEASURED: dict[str, Any] = {"general": General, "own": Own, "text": Text, "loss": Loss, "answer": Answer, "row": Row}


def hold(name: str, value: Any, where: object) -> Any:
    """What stands in the file of this name, or on a line of it. Raises InputError when it is not of the file's form."""
    found = require_form(FORMS.get(name, dict), value, where=where, fix=MEND)
    if name in ("evals/before.jsonl", "evals/after.jsonl"):
        forms = [form for key, form in MEASURED.items() if key in found] or [Row]
        for form in forms:
            require_form(form, found, where=where, fix=MEND)
    return found
