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
    for entry in question_items:
        question = entry.question
        if question.higher_is_better is None or not entry.items or not entry.ranked:
            continue
        first_model, *others = question.values
        weights = 1.0 if question.weights is None else question.weights
        base = question.values[first_model].mean(axis=0) / weights
        for model in others:
            values = question.values[model].mean(axis=0) / weights
            gain = (values - base) * (1 if question.higher_is_better else -1)
            for found, size in ((worse, -gain), (better, gain)):
                places = [int(i) for i in (-size).argsort(kind="stable")[:most] if size[i] > 0]
                found += [_changed_item(entry, i, model, first_model, float(base[i]), float(values[i])) for i in places]
    return worse, better


def _changed_item(
    question_items: QuestionItems, i: int, model: str, first_model: str, before: float, after: float
) -> dict[str, Any]:
    item = question_items.items[i]
    return {
        "question": question_items.question.name, "model": model, "against": first_model, "before": before, "after": after,
        "place": item.place, "prompt": item.prompt, "reference": item.reference,
        "texts": {name: item.texts[name] for name in (first_model, model) if name in item.texts},
    }  # fmt: skip
