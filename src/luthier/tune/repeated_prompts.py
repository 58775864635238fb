"""Ask the held-out prompts again, and in other words: what `eval.repeat` measures before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from luthier.core.types.examples import Chat, Example, Prompt
from luthier.evals import consistency
from luthier.evals.metrics import measure_answers as score
from luthier.evals.metrics.answer_metrics import CORRECTNESS
from luthier.evals.metrics.labels import folded
from luthier.evals.stats.paired import Question, paired
from luthier.runs.held_out_rows import AskedAgain
from luthier.tune.held_out import HeldOut

PROMPTS = 32  # that are asked again, evenly spread over the held-out ones
TEMPERATURE = 1.0  # of the samples where `eval.temperature` is 0


def paraphrased(example: Example, text: str) -> Example:
    """The row with another last question."""
    assert isinstance(example, Chat | Prompt)
    *before, last = example.messages if isinstance(example, Prompt) else example.messages[:-1]
    asked = (*before, replace(last, content=text, input=""))
    return replace(example, messages=asked if isinstance(example, Prompt) else (*asked, example.messages[-1]))


def repeat_figures(
    held_out: HeldOut, answers: Sequence[str], again: Mapping[int, AskedAgain], names: Sequence[str]
) -> dict[str, list[float]]:
    """The rows of `consistency.TITLES`: name -> a number for each item, the same items whoever answers. `names` are the metrics."""
    if not again:
        return {}
    metric = next((name for name in names if name in CORRECTNESS), None)
    likeness = consistency.likeness(metric, sorted({reference.strip() for reference in held_out.references}))
    out = {consistency.AGREEMENT: [consistency.agreement(one.samples, likeness) for one in again.values()]}
    groups = _groups(held_out)
    paraphrase_answers = [[answers[place], *one.answers] for place, one in again.items() if one.answers]
    out[consistency.PARAPHRASES] = [
        consistency.agreement(alike, likeness)
        for alike in ([[answers[i] for i in group] for group in groups] or paraphrase_answers)
    ]
    out[consistency.UNSUPPORTED] = [
        _unsupported(held_out, place, one.samples, metric)
        for place, one in again.items()
        if consistency.is_decidable(held_out.prompts[place], metric)
    ]
    return {name: values for name, values in out.items() if values}


def _groups(held_out: HeldOut) -> list[list[int]]:
    """Places of prompts that the data itself puts in several ways: rows of one `data.group` with the same reference."""
    found: dict[tuple[str, str], list[int]] = {}
    for place, (example, reference) in enumerate(zip(held_out.examples, held_out.references, strict=True)):
        if example.group:
            found.setdefault((example.group, folded(reference)), []).append(place)
    return [places for places in found.values() if len({folded(held_out.prompts[i]) for i in places}) > 1]


def _unsupported(held_out: HeldOut, place: int, samples: Sequence[str], metric: str | None) -> float:
    """The mean over the samples of a prompt of the share of statements that are unsupported or wrong."""
    prompt, reference = held_out.prompts[place], held_out.references[place]
    scores: Sequence[float | None] = [None] * len(samples)
    if metric:
        # The set's other references are labels too, that an answer must not name.
        answers = [*samples, *held_out.references]
        references = [reference] * len(samples) + list(held_out.references)
        scores = score.score(answers, references, [prompt] * len(answers), (metric,))[metric][: len(samples)]
    shares = (
        consistency.unsupported_share(answer, prompt, reference, value)
        for answer, value in zip(samples, scores, strict=True)
    )
    return fmean(shares)


def questions(before: dict[str, list[float]], after: dict[str, list[float]]) -> list[Question]:
    """Rows for the table before | after."""
    return [paired(name, before[name], after[name], about(name)) for name in before]


def about(name: str) -> dict[str, Any]:
    """Title, unit, best value and direction of a row of `consistency.TITLES`."""
    worse = name == consistency.UNSUPPORTED
    return {
        "title": consistency.TITLES[name], "unit": "%", "top": None if worse else 1.0, "higher_is_better": not worse,
    }  # fmt: skip
