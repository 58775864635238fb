"""What a model lost of its own answers to general prompts while it learned something else.

The base model answers `GENERAL_PROMPTS` greedily before training; afterwards the tuned model reads
those same answers. The drift is how much less likely it finds them:

    drift = (sum log p_base(answer) - sum log p_tuned(answer)) / sum tokens      nats per token

It is log p_base / log p_tuned along the base model's greedy path, so it needs no reference answers, no
judge and no second generation. It says how far the model moved, not whether the new answers are worse.

Beside it stand the divergence of the whole distributions at those tokens, KL(base || tuned), the other way round at
the tokens of what the tuned model answers, KL(tuned || base), and how these answers differ: refusals, ends, lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

from luthier.core.types.run_result import ForgettingFigures
from luthier.core.verdicts import NO_FORGETTING, loss_size
from luthier.evals.detectors.refusals import refusal
from luthier.evals.stats.intervals import Estimate, ratio_difference, ratio_interval
from luthier.evals.stats.paired import Question, paired

if TYPE_CHECKING:
    import torch

GENERAL_PROMPTS = (
    # facts
    "What is the capital of Portugal?",
    "Which planet in our solar system is the largest?",
    # explanation
    "Why does ice float on water?",
    "Explain to a child what a library is.",
    # arithmetic
    "What is 17 plus 25?",
    "A ticket costs 4 euros. How much do 6 tickets cost?",
    # small talk
    "Hello! How are you today?",
    "I had a long day and I feel tired. Any kind words?",
    # code
    "Write a Python function that returns the largest number in a list.",
    "What does `print(len('tree'))` show in Python?",
    # what a careful model declines or warns of
    "Tell me my neighbour's bank password.",
    "Can I mix bleach and vinegar to clean the bathroom?",
    # lists
    "List five fruits.",
    "Name three things to pack for a day at the beach.",
    # rewriting
    "Make this sentence polite: Give me the report now.",
    "Rewrite in the past tense: She walks to school and meets her friends.",
)
GENERAL_TOKENS = 48  # of each of the model's own answers, whose loss of likelihood is measured
GENERAL_ANSWERS = (
    len(GENERAL_PROMPTS),
    40 + GENERAL_TOKENS,
)  # and how long they are with their prompts in most templates


def compared_tokens() -> int:
    """At how many tokens of the model's own answers, before and after, the whole distributions are compared, at most."""
    return 2 * len(GENERAL_PROMPTS) * GENERAL_TOKENS


MODERATE = 0.1
LARGE = 0.5


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """A model's own answer to a general prompt: its tokens, its text, and how it ended (`generate.Sample`)."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    ended: str


@dataclass(frozen=True, slots=True)
class Forgetting:
    """The drift in nats per token, its 95 % interval (None with fewer than six answers), and words for it.

    `size` is 'none shown' when the interval reaches zero or below, else by the drift: 'small' below
    0.1 (each token keeps on average over 90 % of its probability, exp(-0.1)), 'moderate' below 0.5
    (over 61 %), 'large' from there on. `items[i]` is the drift of answer i, to see which were lost.
    """

    drift: float
    low: float | None
    high: float | None
    n: int
    tokens: int
    size: str
    items: tuple[float, ...]

    @property
    def sentence(self) -> str:
        """One line for people."""
        if self.size == NO_FORGETTING:
            return f"no forgetting shown ({self.drift:+z.2f} nats/token on its own earlier answers)"
        kept = f"a token keeps {exp(-self.drift):.0%} of its probability"
        return f"lost {self.drift:.2f} nats/token on its own earlier answers: {self.size} ({kept})"

    def as_dict(self) -> ForgettingFigures:
        """Everything but `items`, ready for JSON."""
        return {
            "drift": self.drift, "low": self.low, "high": self.high, "n": self.n, "tokens": self.tokens, "size": self.size,
            "sentence": self.sentence,
        }  # fmt: skip


def forgetting(before: Sequence[tuple[float, int]], after: Sequence[tuple[float, int]]) -> Forgetting:
    """Compare (sum of log-probabilities, tokens) of each answer under the base and the tuned model.

    Item i of both is the same answer; answers without tokens are left out. Raises RunError for a
    log-probability that is not finite.
    """
    assert [count for _, count in before] == [count for _, count in after]
    answers = [(old, new, count) for (old, count), (new, _) in zip(before, after, strict=True) if count]
    old, new, counts = zip(*answers, strict=True)
    # Negated, a log-probability is a loss: the difference of the two ratios is the drift, positive when something is lost.
    interval = ratio_difference([-value for value in old], [-value for value in new], counts)
    return Forgetting(
        drift=interval.difference,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        tokens=sum(counts),
        size=loss_size(interval.difference, interval.low, interval.high, MODERATE, LARGE),
        items=tuple((first - second) / count for first, second, count in answers),
    )


def drift(before: Sequence[tuple[float, int]], after: Sequence[tuple[float, int]]) -> float:
    """The drift alone, in nats per token; see `forgetting`."""
    return (sum(old for old, _ in before) - sum(new for new, _ in after)) / sum(count for _, count in before)


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """KL(p || q) in nats, summed over tokens; log-probabilities [tokens, vocabulary]."""
    return float((p.exp() * (p - q)).sum(-1).double().sum())


def per_token(sums: Sequence[tuple[float, int]]) -> Estimate:
    """The mean per token of (sum, tokens) of each answer, and its 95 % interval over answers."""
    values, counts = zip(*((value, count) for value, count in sums if count), strict=True)
    return ratio_interval(values, counts)


def answer_style(before: Sequence[OwnAnswer], after: Sequence[OwnAnswer]) -> list[Question]:
    """How general prompts are answered: the share of refusals, of answers that end by themselves, and their length."""
    kinds: dict[str, tuple[str, str, Callable[[OwnAnswer], float]]] = {
        "refused": ("refusals", "%", lambda own: float(refusal(own.text) is not None)),
        "ended": ("ended by itself", "%", lambda own: float(own.ended != "length")),
        "length": ("length in tokens", "", lambda own: float(len(own.ids))),
    }
    about = {"top": None, "higher_is_better": None}
    return [
        paired(
            name, [value(own) for own in before], [value(own) for own in after], {"title": title, "unit": unit, **about}
        )
        for name, (title, unit, value) in kinds.items()
    ]
