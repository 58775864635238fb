"""Ask the held-out prompts again, and in other words: what `eval.repeat` measures before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from luthier.core.types import Chat, Example, Prompt
from luthier.evals import consistency
from luthier.evals.metrics import scores as score
from luthier.evals.metrics.labels import folded
from luthier.evals.metrics.table import RIGHT
from luthier.evals.stats.paired import Question, paired

if TYPE_CHECKING:
    from luthier.tune.evaluator import HeldOut, Ruler

PROMPTS = 32  # that are asked again, evenly spread over the held-out ones
TEMPERATURE = 1.0  # of the samples where `eval.temperature` is 0


@dataclass(frozen=True)
class Again:
    """One prompt asked again: `place` among the held-out prompts, `samples` of it, and the answers to `paraphrases`, drawn as
    the held-out answers are."""

    place: int
    samples: tuple[str, ...]
    paraphrases: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


def ask(ruler: Ruler, held_out: HeldOut, stop: Callable[[], bool], title: str) -> tuple[Again, ...]:
    """`eval.repeat` samples of each of up to PROMPTS prompts, and the answers to one paraphrase less; nothing where it is 1."""
    config = ruler.config.eval
    if config.repeat < 2 or not held_out.prompts:
        return ()
    places = list(range(0, len(held_out.prompts), -(-len(held_out.prompts) // PROMPTS)))
    ids = [held_out.prompt_ids[place] for place in places]
    drawn = ruler.answers(
        ids, config.max_new_tokens, stop, f"{title}: {config.repeat} samples each", n=config.repeat,
        temperature=config.temperature or TEMPERATURE,
    )  # fmt: skip
    samples: list[list[str]] = [[] for _ in places]
    for sample in drawn:
        samples[sample.prompt].append(sample.text)
    others = [consistency.paraphrases(held_out.prompts[place], config.repeat - 1) for place in places]
    asked = [
        ruler.prompt_ids(_put(held_out.examples[p], text))
        for p, texts in zip(places, others, strict=True)
        for text in texts
    ]
    told = iter(ruler.answers(asked, config.max_new_tokens, stop, f"{title}: paraphrases"))
    return tuple(
        Again(place, tuple(said), tuple(texts), tuple(next(told).text for _ in texts))
        for place, said, texts in zip(places, samples, others, strict=True)
    )


def _put(example: Example, text: str) -> Example:
    """The row with another last question."""
    assert isinstance(example, Chat | Prompt)
    *before, last = example.messages if isinstance(example, Prompt) else example.messages[:-1]
    asked = (*before, replace(last, content=text, input=""))
    return replace(example, messages=asked if isinstance(example, Prompt) else (*asked, example.messages[-1]))


def figures(
    held_out: HeldOut, answers: Sequence[str], again: Sequence[Again], names: Sequence[str]
) -> dict[str, list[float]]:
    """The rows of `consistency.TITLES`: name -> a number for each item, the same items whoever answers. `names` are the metrics."""
    if not again:
        return {}
    right = next((name for name in names if name in RIGHT), None)
    alike = consistency.likeness(right, sorted({reference.strip() for reference in held_out.references}))
    out = {consistency.AGREEMENT: [consistency.agreement(one.samples, alike) for one in again]}
    groups = _groups(held_out)
    put = [[answers[one.place], *one.answers] for one in again if one.answers]
    out[consistency.PARAPHRASES] = [
        consistency.agreement(said, alike) for said in ([[answers[i] for i in group] for group in groups] or put)
    ]
    told = [one for one in again if consistency.can_be_told(held_out.prompts[one.place], right)]
    out[consistency.UNSUPPORTED] = [_unsupported(held_out, one, right) for one in told]
    return {name: values for name, values in out.items() if values}


def _groups(held_out: HeldOut) -> list[list[int]]:
    """Places of prompts that the data itself puts in several ways: rows of one `data.group` with the same reference."""
    found: dict[tuple[str, str], list[int]] = {}
    for place, (example, reference) in enumerate(zip(held_out.examples, held_out.references, strict=True)):
        if example.group:
            found.setdefault((example.group, folded(reference)), []).append(place)
    return [places for places in found.values() if len({folded(held_out.prompts[i]) for i in places}) > 1]


def _unsupported(held_out: HeldOut, one: Again, right: str | None) -> float:
    """The mean over the samples of a prompt of the share of statements that are unsupported or wrong."""
    prompt, reference = held_out.prompts[one.place], held_out.references[one.place]
    scores: Sequence[float | None] = [None] * len(one.samples)
    if right:
        # The set's other references are labels too, that an answer must not name.
        said = [*one.samples, *held_out.references]
        wanted = [reference] * len(one.samples) + list(held_out.references)
        scores = score.score(said, wanted, [prompt] * len(said), (right,))[right][: len(one.samples)]
    shares = (
        consistency.unsupported_share(answer, prompt, reference, value)
        for answer, value in zip(one.samples, scores, strict=True)
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


def to_record(one: Again) -> dict[str, Any]:
    """What a record of evals/ keeps of it."""
    return {"samples": list(one.samples), "paraphrases": list(one.paraphrases), "answers": list(one.answers)}


def from_record(place: int, record: dict[str, Any]) -> Again:
    """The reverse of `to_record`."""
    return Again(place, *(tuple(record[key]) for key in ("samples", "paraphrases", "answers")))
