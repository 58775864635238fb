"""Does a model say the same again, and only what it can know? Figures over the held-out prompts, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import fmean

from luthier.core import numbers
from luthier.data.languages import languages
from luthier.evals.detectors.grounding import is_context, unsupported
from luthier.evals.detectors.task import is_german
from luthier.evals.detectors.words import sentences
from luthier.evals.metrics import labels
from luthier.evals.metrics.answer_metrics import chrf, first_line, json_f1
from luthier.evals.metrics.tool_calls import calls_right

Alike = Callable[[str, str], float]

# Name -> title, of the rows that `eval.repeat` adds; all are shares.
AGREEMENT, PARAPHRASES, UNSUPPORTED = "agreement", "paraphrases", "unsupported"
TITLES = {
    AGREEMENT: "agreement of samples", PARAPHRASES: "agreement of paraphrases", UNSUPPORTED: "unsupported or wrong",
}  # fmt: skip


def agreement(answers: Sequence[str], alike: Alike) -> float:
    """The mean likeness of all pairs of the answers, from 0 to 1; 1 of a single one."""
    pairs = [alike(one, other) for one, other in combinations(answers, 2)]
    return fmean(pairs) if pairs else 1.0


def likeness(right: str | None, known: Sequence[str]) -> Alike:
    """When two answers say the same, from 0 to 1: by the metric that tells right answers from wrong (`metrics.RIGHT`) the same
    label of `known`, labels, first line, number, fields of JSON, or short answer. Of other answers (None) the mean of chrF both
    ways, over 100."""

    def same_label(one: str, other: str) -> float:
        first, second = labels.named(one, known), labels.named(other, known)
        return float(first == second if first or second else labels.folded(one) == labels.folded(other))

    ways: dict[str | None, Alike] = {
        "accuracy": same_label,
        "labels": labels.all_right,
        "first_line": first_line,
        "number": lambda one, other: float(numbers.same(one, other)),
        "tool_calls": calls_right,
        "json_f1": json_f1,
        "match": lambda one, other: 0.0,
        None: lambda one, other: (chrf(one, other) + chrf(other, one)) / 200,
    }
    way = ways[right]
    return lambda one, other: 1.0 if labels.folded(one) == labels.folded(other) else way(one, other)


def paraphrases(prompt: str, count: int) -> list[str]:
    """Up to `count` other ways to put a prompt, which keep its words and what it means: a polite sentence before or behind it, in
    English and German (not where another language is guessed), its first letter in the other case, its last mark left out, its
    lines further apart."""
    spoken = next(iter(languages([prompt])), "unknown")
    frames = {"German": ("Kannst du mir dabei helfen?\n\n{}", "{}\n\nVielen Dank.")}.get(
        spoken, ("Could you help me with this?\n\n{}", "{}\n\nThank you.")
    )
    framed = [frame.format(prompt) for frame in frames] if spoken in ("English", "German", "unknown") else []
    bare = prompt.strip()
    other = [
        bare.rstrip(".?!。？！ "),
        bare[:1].swapcase() + bare[1:] if bare[:2] != bare[:2].upper() else bare,
        bare.replace("\n", "\n\n"),
    ]
    distinct = dict.fromkeys(text for text in (*framed[:1], *other, *framed[1:]) if text.strip() and text != prompt)
    return list(distinct)[:count]


def is_decidable(prompt: str, right: str | None) -> bool:
    """Whether anything says which statements of an answer are unsupported or wrong: a task with right answers, or a prompt of 40
    words or more, which is taken for a context."""
    return right is not None or is_context(prompt)


def unsupported_share(answer: str, prompt: str, reference: str, score: float | None) -> float:
    """The share of the answer's statements that are unsupported or wrong, from 0 to 1.

    Where answers are right or wrong, `score` is how right it is (1 is right, JSON by its fields), and this 1 - score. Else each
    sentence is a statement, and unsupported when it has a number from 10 on, or a name, that neither prompt nor reference has
    (`grounding.unsupported`). An empty answer says nothing that was asked: 1.
    """
    if score is not None:
        return 1.0 - score
    said = sentences(answer)
    if not said:
        return 1.0
    names = not is_german(languages([prompt]))
    return fmean(float(unsupported(one, prompt, reference, names=names) is not None) for one in said)
