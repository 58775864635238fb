"""What the training rows show of a task: the measure that the detectors judge answers by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from luthier.data.languages import languages, scripts
from luthier.evals.detectors.copies import Copies
from luthier.evals.detectors.formats import Format
from luthier.evals.detectors.grounding import is_context, unsupported
from luthier.evals.detectors.repeats import repeats
from luthier.evals.detectors.words import LIST_MARK, content, longest_shared, words

FEWEST = 10  # rows from which shares and quantiles are taken
SAMPLE = 1000  # rows that what is slow is taken from, at even distances
STRETCH = 8  # words in a row that an answer has copied from its prompt
HALF = 0.5  # of the answer that they make
USED = 0.02  # of the training answers: a language or script that so many have is one of the task's

_STOP = re.compile(r"(?:[.!?…。！？:;\u2600-\u27bf\ufe0f\U0001f000-\U0001faff]|```)[\"'”’»)\]}*_]*\s*$")

_NO_PROSE = re.compile(r"[\"”] ?[-–—~] ?\w|[#=|{}<>\[\]_\\]|\w\(|\)$")


@dataclass(frozen=True, slots=True)
class Task:
    """What training rows show. With no rows everything is unknown, and a detector that needs it is silent.

    lengths    words of the shortest and the longest answers (quantiles 1 % and 99 %); None below 10 rows
    ratios     the same of answer / prompt, where that varies less than the lengths do (translation, correction); else None
    format     the form of the answers
    languages  guessed languages of 2 % of the answers or more; `scripts`: those that letters are written in
    stops      share of the answers whose last line is prose that end with a mark that ends sentences
    quotes     share of rows whose answer is, for its half, a stretch of its prompt
    touches    share of the answers that have a word of content in common with their prompt
    faithful   share of the answers to long prompts with nothing unsupported; None below 10 such rows
    repeats    share of the answers that repeat themselves
    seen       words of two rows or more: a word seen in one row alone may be that row's slip
    copies     runs of words of the answers
    """

    rows: int = 0
    lengths: tuple[float, float] | None = None
    ratios: tuple[float, float] | None = None
    format: Format = field(default_factory=Format)
    languages: frozenset[str] = frozenset()
    scripts: frozenset[str] = frozenset()
    stops: float = 0.0
    quotes: float | None = None
    touches: float = 0.0
    faithful: float | None = None
    repeats: float = 0.0
    known_words: frozenset[str] = field(default=frozenset(), repr=False)
    copies: Copies = field(default_factory=lambda: Copies.learn((), ()), repr=False, compare=False)

    @classmethod
    def learn(cls, prompts: Sequence[str], answers: Sequence[str]) -> Task:
        """Learn from the training rows. Rows with an empty answer show nothing and are left out."""
        pairs = [(prompt, answer.strip()) for prompt, answer in zip(prompts, answers, strict=True) if answer.strip()]
        prompt_words = [words(prompt) for prompt, _ in pairs]
        answer_words = [words(answer) for _, answer in pairs]
        copies = Copies.learn([prompt for prompt, _ in pairs], answer_words)
        known_words = _in_two_rows(prompt_words, answer_words)
        if len(pairs) < FEWEST:
            return cls(len(pairs), known_words=known_words, copies=copies)
        sample = pairs[:: -(-len(pairs) // SAMPLE)]
        some = [answer for _, answer in sample]
        long = [(prompt, answer) for prompt, answer in sample if is_context(prompt)]
        names = not is_german(languages(some))
        held = [unsupported(answer, prompt, "", names=names) is None for prompt, answer in long]
        prose = [answer for answer in some if is_prose(answer)]
        lengths, ratios = _ranges(prompt_words, answer_words)
        return cls(
            rows=len(pairs),
            lengths=lengths,
            ratios=ratios,
            format=Format.learn([answer for _, answer in pairs]),
            languages=frozenset(n for n, share in languages(some).items() if share >= USED and n != "unknown"),
            scripts=frozenset(name for name, share in scripts(some).items() if share >= USED),
            stops=_share([stopped(answer) for answer in prose]) if len(prose) >= FEWEST else 0.0,
            quotes=_share([copied(prompt, answer) is not None for prompt, answer in sample]),
            touches=_share([bool(content(prompt) & content(answer)) for prompt, answer in sample]),
            faithful=_share(held) if len(held) >= FEWEST else None,
            repeats=_share([repeats(answer) is not None for answer in some]),
            known_words=known_words,
            copies=copies,
        )

    def bounds(self, prompt: str) -> tuple[float, float] | None:
        """Words of the shortest and of the longest answers that are usual for this prompt."""
        if self.lengths is None:
            return None
        if self.ratios is None:
            return self.lengths
        prompt_words = len(words(prompt))
        return self.ratios[0] * prompt_words, self.ratios[1] * prompt_words


def stopped(answer: str) -> bool:
    """Whether the answer ends with a mark that ends a sentence, quotes and brackets after it left out, or with an emoji."""
    return bool(_STOP.search(answer))


def is_prose(answer: str) -> bool:
    """Whether the last line has five words or more and looks neither like code, a table, tags nor an item of a list.

    Nor is it prose where the line before ends without a mark as well (verse, addresses) or where half of its words begin
    with a capital (titles, names).
    """
    *before, last = (line for line in answer.splitlines() if line.strip())
    alone = not before or stopped(before[-1])
    title = sum(word[0].isupper() for word in last.split()) >= 0.5 * len(last.split())
    return alone and not title and len(words(last)) >= 5 and not _NO_PROSE.search(last) and not LIST_MARK.match(last)


def copied(prompt: str, answer: str) -> tuple[int, int] | None:
    """First word and number of words of the stretch that half of the answer copies from the prompt, 8 words at least."""
    said = words(answer)
    if len(said) < STRETCH:
        return None
    start, length = longest_shared(said, words(prompt))
    return (start, length) if length >= max(STRETCH, HALF * len(said)) else None


def is_german(shares: dict[str, float]) -> bool:
    """Whether German is the language: its nouns begin with a capital, which then tells no names."""
    return next(iter(shares), "") == "German"


def _share(which: Sequence[bool]) -> float:
    return sum(which) / len(which) if which else 0.0


def _ranges(
    asked: Sequence[Sequence[str]], said: Sequence[Sequence[str]]
) -> tuple[tuple[float, float], tuple[float, float] | None]:
    lengths = np.array([len(found) for found in said], float)
    ratios = lengths / np.maximum([len(found) for found in asked], 1)
    tighter = np.log(np.maximum(ratios, 1e-3)).std() < 0.5 * np.log(np.maximum(lengths, 1)).std()
    low, high = np.quantile(lengths, (0.01, 0.99))
    if not tighter:
        return (float(low), float(high)), None
    least, most = np.quantile(ratios, (0.01, 0.99))
    return (float(low), float(high)), (float(least), float(most))


def _in_two_rows(asked: Sequence[Sequence[str]], said: Sequence[Sequence[str]]) -> frozenset[str]:
    once: set[str] = set()
    twice: set[str] = set()
    for prompt, answer in zip(asked, said, strict=True):
        row = {*prompt, *answer}
        twice |= row & once
        once |= row
    return frozenset(twice)
