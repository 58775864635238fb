"""The same answer to different prompts: a model that has collapsed answers what it is asked no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.evals.detectors.answer import Finding
from luthier.evals.metrics.labels import folded
from luthier.evals.stats.shares import wilson

FEWEST_ANSWERS = 6  # different prompts
Z = 1.96  # of Wilson's limits at 95 %
CHANCE = 0.01  # that the references' most frequent answer is right for all prompts
NAME = "same_answer"
TITLE = "the same answer"
MEANING = "One answer is given to far more of the different prompts than any reference is."
RULE = (
    "Of 6 different prompts or more: the lower limit of its share is above half of the way from that of the most frequent "
    "reference to all; or all answers are the same, which chance makes of the references in less than 1 %."
)


@dataclass(frozen=True)
class RepeatedAnswer:
    """`answer` is given to `count` of `prompts` different prompts; `expected` is the share of the most frequent reference."""

    answer: str
    count: int
    prompts: int
    expected: float

    @property
    def share(self) -> float:
        """Of the different prompts."""
        return self.count / self.prompts

    @property
    def words(self) -> str:
        """In a sentence."""
        what = f"'{self.answer[:40]}'" if self.answer else "an empty answer"
        return (
            f"{what} to {self.count} of {self.prompts} different prompts, where the references' most frequent answer has "
            f"{self.expected:.0%}"
        )


def repeated_answer(prompts: Sequence[str], answers: Sequence[str], references: Sequence[str]) -> RepeatedAnswer | None:
    """The answer that stands for far more of the different prompts than any of the references does; None where none does.

    Prompts and answers are compared without case, spacing and the marks around them, and each prompt counts once. With p the
    share of the most frequent reference, the answer's share is too large when the lower of Wilson's limits is above (1 + p) / 2,
    half of the way from what the references do to always saying the same; or when all answers are the same, which the references are
    not, and would be with a chance p^n below 1 %.
    """
    first: dict[str, tuple[str, str]] = {}
    for prompt, answer, reference in zip(prompts, answers, references, strict=True):
        first.setdefault(folded(prompt) or prompt, (answer, reference))
    n = len(first)
    if n < FEWEST_ANSWERS:
        return None
    said = Counter(folded(answer) for answer, _ in first.values())
    wanted = Counter(folded(reference) for _, reference in first.values() if reference.strip())
    common, count = said.most_common(1)[0]
    expected = max(wanted.values()) / sum(wanted.values()) if wanted else 1 / n
    low, _ = wilson(count / n, n, Z)
    if low <= (1 + expected) / 2 and not (count == n and expected**n < CHANCE):
        return None
    shown = next(answer.strip() for answer, _ in first.values() if folded(answer) == common)
    return RepeatedAnswer(shown, count, n, expected)


def findings(found: RepeatedAnswer | None, answers: Sequence[str]) -> list[Finding | None]:
    """What is said of each answer: those that are the same have a finding."""
    if found is None:
        return [None] * len(answers)
    return [Finding(NAME, found.words) if folded(answer) == folded(found.answer) else None for answer in answers]
