"""Numbers and names of an answer that the context it was given does not have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import combinations

from luthier.evals.detectors.words import LIST_MARK, words

CONTEXT = 40  # words of a prompt that is long enough to be a context
COUNTS = 10  # smaller numbers are taken for counts
PAIRS_OF = 30  # numbers of the context of which results of two are computed

_NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?:[,. \u00a0\u202f]\d{3})+(?!\d)|\d+(?:[.,]\d+)?")
_NAME = re.compile(r"(?<![\w'’-])[A-ZÀ-ÖØ-Þ][\w'’-]+")
_DIGITS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
"""
_LARGER = {
    "thirty": 30.0, "forty": 40.0, "fifty": 50.0, "sixty": 60.0, "seventy": 70.0, "eighty": 80.0, "ninety": 90.0,
    "hundred": 100.0, "thousand": 1000.0, "dozen": 12.0, "half": 0.5, "twice": 2.0, "double": 2.0,
}  # fmt: skip
_SPELLED = {name: float(value) for value, name in enumerate(_DIGITS.split())} | _LARGER
_STARTS = re.compile(r"(?:^|[.!?:;(\n]|[\"“‘]|(?:^|\s)['*#–-])[\s\"'“‘(*#–-]*$")
_CUE = re.compile(
    r"\b(?:context|passage|article|paragraph|transcript|summari[sz]e|summary|extract|according to|based on|"
    r"following (?:text|document|report|email|story)|(?:text|document|report|email|notes|background)\s?:|texte|kontext|"
    r"zusammen(?:fassung)?|resum)\w*",
    re.IGNORECASE,
)
# Words with a capital that are no names, at the start of a sentence or as a title.
_NO_NAMES_WORDS = """
    the a an in on at by for from with to as this that these those his her its their our my your when while after before
    and but or so if is are was were be he she it they we you most many some all both each every one two three there here
    according since because although though during between under over dear also not no yes what who where why how i i'm
    i'll i've i'd ok mr mrs ms dr prof sir lady lord
"""
_NO_NAMES = frozenset(_NO_NAMES_WORDS.split())


def is_context(prompt: str) -> bool:
    """Whether a prompt is long enough to hold a passage: 40 words."""
    return len(words(prompt)) >= CONTEXT


def asks_for_it(prompt: str) -> bool:
    """Whether the prompt says that it holds a text to be faithful to ("Context:", "summarise", "according to", ...)."""
    return bool(_CUE.search(prompt))


def unsupported(answer: str, prompt: str, reference: str, *, names: bool) -> tuple[str, tuple[int, int]] | None:
    """The first number or name of the answer that neither prompt nor reference has, and where.

    A number is supported when the context has it, in digits or spelled, or when it is the sum, difference, product or
    quotient of two numbers of the context, or the rest of a percentage to 100; numbers below 10 are counts. A name is a
    word with a capital inside a sentence (or before another one); it is supported when the context has a word with the
    same first four letters, or words that it is the initials of. `names` False leaves names out.
    """
    context = prompt + "\n" + reference
    plain = LIST_MARK.sub(lambda mark: " " * len(mark[0]), answer)
    had = set(_numbers(context)) | {_SPELLED[word] for word in words(context) if word in _SPELLED}
    had |= {100 - value for value in _percentages(context)}
    exact, quotients = _results(sorted(had)[:PAIRS_OF])
    for match in _NUMBER.finditer(plain):
        value = _value(match[0])
        rounded = 0.51 * 10.0 ** -len(match[0].partition(".")[2])
        near = any(abs(value - other) <= rounded for other in quotients)
        if value >= COUNTS and not near and not any(abs(value - other) < 1e-6 for other in exact):
            return match[0], match.span()
    return _name(plain, context) if names else None


def _name(answer: str, context: str) -> tuple[str, tuple[int, int]] | None:
    capitals = list(_NAME.finditer(answer))
    if len(capitals) > 3 and len(capitals) > 0.7 * len(words(answer)):
        return None  # a title, or everything is in capitals
    had = words(context)
    known = {word[:4] for word in had} | set(had)
    initials = "".join(word[0] for word in had)
    for match, after in zip(capitals, [*capitals[1:], None], strict=False):
        word = match[0].removesuffix("'s").removesuffix("’s").lower()
        before_another = after is not None and after.start() == match.end() + 1
        inside = not _STARTS.search(answer[: match.start()])
        supported = word[:4] in known or all(part in known for part in words(word))
        if match[0].isupper() and word in initials:
            continue
        if word not in _NO_NAMES and not supported and (inside or before_another):
            return match[0], match.span()
    return None


def _numbers(text: str) -> Iterable[float]:
    return (_value(match[0]) for match in _NUMBER.finditer(text))


def _value(digits: str) -> float:
    if re.fullmatch(r"\d{1,3}(?:[,. \u00a0\u202f]\d{3})+", digits):
        return float(re.sub(r"\D", "", digits))
    return float(digits.replace(",", "."))


def _percentages(text: str) -> Iterable[float]:
    return (float(number) for number in re.findall(r"(\d+(?:\.\d+)?)\s?(?:%|per ?cent)", text))


def _results(numbers: list[float]) -> tuple[set[float], list[float]]:
    """The numbers with all sums, differences and products of two and the sum of all; and the quotients, as such and in %."""
    exact, quotients = {*numbers, sum(numbers)}, []
    for small, large in combinations(numbers, 2):
        exact |= {large - small, large + small, large * small}
        if small:
            quotients += [large / small, 100 * small / large]
    return exact, quotients
