"""Which items changed most between two models: where to look when a table says better or worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.evals.stats.paired import Question


@dataclass(frozen=True)
class Item:
    """What a column of a question's values is about: its place, and what was asked, wanted and answered, where there is
    text. `texts` is by model; of several runs, the first one's."""

    place: str
    prompt: str = ""
    reference: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class QuestionItems:
    """A question with its items. `ranked`: its values say which items changed most; those of one whole set, such as macro-F1's, do not,
    and where answers are right or wrong no other metric does. `baseline` is what always saying one answer reaches."""

    question: Question
    items: Sequence[Item]
    ranked: bool = True
    baseline: Mapping[str, Any] | None = None


def changes(question_items: Sequence[QuestionItems], most: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(regressions, gains): for each model against the first, up to `most` items of each question that changed most,
    the worst first. Questions in which neither is better have none."""
    worse: list[dict[str, Any]] = []
    better: list[dict[str, Any]] = []
    for one in question_items:
        question = one.question
        if question.higher_is_better is None or not one.items or not one.ranked:
            continue
        against, *others = question.values
        weights = 1.0 if question.weights is None else question.weights
        base = question.values[against].mean(axis=0) / weights
        for model in others:
            values = question.values[model].mean(axis=0) / weights
            gain = (values - base) * (1 if question.higher_is_better else -1)
            for found, size in ((worse, -gain), (better, gain)):
                places = [int(i) for i in (-size).argsort(kind="stable")[:most] if size[i] > 0]
                found += [_change(one, i, model, against, float(base[i]), float(values[i])) for i in places]
    return worse, better


def _change(asked: QuestionItems, i: int, model: str, against: str, before: float, after: float) -> dict[str, Any]:
    item = asked.items[i]
    return {
        "question": asked.question.name, "model": model, "against": against, "before": before, "after": after,
        "place": item.place, "prompt": item.prompt, "reference": item.reference,
        "texts": {name: item.texts[name] for name in (against, model) if name in item.texts},
    }  # fmt: skip
