"""Labels in answers: which of a closed set an answer names, whatever its case and the words around it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

MAX_CHARACTERS = 64  # of a label
MIN_REPEATS = 4  # a closed set: each of its labels is given this often on average
MAX_LABELS = 1000  # labels of a set
MIN_LABEL_LETTERS = 3  # letters from which on a label is one wherever it stands
MIN_MULTI_LABEL_SHARE = 0.1  # of the answers name more than one label, where a task lets them

_AROUND = " \t\r\n\"'`“”‘’«»*_()[]{}<>.,;:!?。，！？"
_MARKS = ".,;:!?)]\"'”’*"
_BETWEEN = re.compile(r"\s*[,;|]\s*")
_DENIED = re.compile(
    r"(?:\b(?:not|isn't|isn’t|no|never|neither|nor|nicht|kein\w*|than|except|rather than|instead of)\s+(?:an?|the|really|to be)?\s*"
    r"[\"'“‘`*]*)$",
    re.IGNORECASE,
)


def folded(text: str) -> str:
    """The text without case, white space in runs, and the marks around it: ' "Card_Lost".' is card_lost."""
    return " ".join(text.casefold().split()).strip(_AROUND)


def separate(text: str) -> list[str]:
    """What stands between commas, semicolons and bars."""
    return [part for part in _BETWEEN.split(text.strip()) if part]


def is_set(references: Sequence[str]) -> bool:
    """Whether references are labels of a closed set: short lines, each given four times on average."""
    return _closed(references) and all("\n" not in reference for reference in references)


def is_several(references: Sequence[str]) -> bool:
    """Whether references name one label of a closed set or more ('sports, politics'), a tenth of them several."""
    found = [separate(reference) for reference in references]
    many = sum(len(names) > 1 for names in found)
    return many >= max(2, MIN_MULTI_LABEL_SHARE * len(references)) and _closed(
        [name for names in found for name in names]
    )


def is_first_line(references: Sequence[str]) -> bool:
    """Whether references begin with a line that is a label of a closed set, and go on."""
    lines = [reference.strip().split("\n", 1) for reference in references]
    return bool(lines) and all(len(found) > 1 for found in lines) and _closed([found[0].strip() for found in lines])


def _closed(names: Sequence[str]) -> bool:
    distinct = set(names)
    short = all(len(name) <= MAX_CHARACTERS for name in distinct)
    return bool(names) and short and len(distinct) <= min(MAX_LABELS, len(names) // MIN_REPEATS)


def named(answer: str, labels: Iterable[str]) -> str | None:
    """The label that the answer names; None where it names none, or several.

    The answer itself, if it is a label as it stands, else without case and marks around it. Else the one label that stands in it
    as whole words and is not denied ('not spam'); of labels that lie in each other, as 'card' in 'card arrival', the longer one.
    A label of one letter or two, such as A or no, must have a mark or the end behind it, one of one letter its own case too: so 'a' in 'It
    is a cat.' is no label, and 'no' in 'There is no doubt' neither.
    """
    own, known = answer.strip(), tuple(labels)
    if own in known:
        return own
    plain: dict[str, str] = {}
    for label in known:
        plain.setdefault(folded(label) or label, label)
    if folded(answer) in plain:
        return plain[folded(answer)]
    text = " ".join(answer.split())
    found = {
        plain[folded(match[0])]
        for match in _pattern(tuple(plain)).finditer(text)
        if folded(match[0]) in plain and _counts(match[0], plain[folded(match[0])], text, match.end())
        and not _DENIED.search(text[max(0, match.start() - 24) : match.start()])
    }  # fmt: skip
    return found.pop() if len(found) == 1 else None


def _counts(said: str, label: str, text: str, end: int) -> bool:
    """Whether what stands in a text is the label: where it is very short, by what follows it."""
    if len(said) >= MIN_LABEL_LETTERS:
        return True
    return (len(said) > 1 or said == label.strip(_AROUND)) and not text[end : end + 1].strip(_MARKS)


@lru_cache(maxsize=64)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the names as whole words, the longest first; '-' and '_' belong to words."""
    longest = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?<!\d[.,])(?:{'|'.join(map(re.escape, longest))})(?![\w-]|[.,]\d)", re.IGNORECASE)


def right(answer: str, reference: str, labels: Iterable[str]) -> float:
    """1 when the answer names the reference, and no other label, else 0."""
    return float(named(answer, {*labels, reference.strip()}) == reference.strip())


def all_right(answer: str, reference: str) -> float:
    """1 when the answer names the same labels as the reference, in any order, else 0."""
    said, wanted = ({folded(part) for part in separate(text)} for text in (answer, reference))
    return float(said == wanted)


def commonest(references: Sequence[str]) -> tuple[str, float]:
    """The most frequent reference and its share: what is reached by always saying it. ('', 0) of none."""
    counts = Counter(reference.strip() for reference in references)
    if not counts:
        return "", 0.0
    label, count = max(counts.items(), key=lambda item: (item[1], item[0]))
    return label, count / len(references)
