"""The form that a task's answers have: labels, JSON, numbers, one line, lists, marks."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier.evals.detectors.words import LIST_MARK
from luthier.evals.metrics.json_fields import key_paths, missing

LABEL_CHARACTERS = 64
LABEL_REPEATS = 4  # a closed set: each answer is given this often on average
LABELS_MOST = 1000
NEARLY_ALL = 0.95  # of the training answers have a form that answers must have
LISTS = 0.9

_NUMBER = re.compile(r"[-+$€£]?\s?\d[\d,. ]*\s?%?")
# What frames an answer: '####', a heading's 'Answer:', tags, fences, \boxed{.
_MARK = re.compile(r"^#{2,}|^[A-Z][A-Za-z ]{0,20}:(?=\s)|</?[a-zA-Z_]+>|```|\\boxed\{", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Format:
    """What form the training answers have. Each part is empty or False where they have none.

    labels   the answers, where they come from a closed set
    keys     where answers are JSON: the keys that lead to its fields, such as 'items[].name' (`json_fields.key_paths`)
    marks    what frames each answer, such as '####' before the result
    """

    labels: frozenset[str] = frozenset()
    json: bool = False
    keys: frozenset[str] = frozenset()
    number: bool = False
    one_line: bool = False
    lists: bool = False
    marks: frozenset[str] = frozenset()

    @classmethod
    def learn(cls, answers: Sequence[str]) -> Format:
        """`answers` are those of the training rows, stripped and not empty."""
        labels = _labels(answers)
        if labels:
            return cls(labels=labels)
        objects = [parsed(answer) for answer in answers]
        if _nearly_all([is_json(value) for value in objects]):
            return cls(json=True, keys=_in_most([key_paths(value) for value in objects]))
        return cls(
            number=_nearly_all([bool(_NUMBER.fullmatch(answer)) for answer in answers]),
            one_line=sum("\n" in answer for answer in answers) * 100 <= len(answers),
            lists=sum(is_list(answer) for answer in answers) >= LISTS * len(answers),
            marks=_in_most([_MARK.findall(answer) for answer in answers]),
        )

    def broken(self, answer: str, reference: str) -> str:
        """What is wrong with the form of the answer, or "". A reference that has not the form either excuses it."""
        said, wanted = answer.strip(), reference.strip()
        if not said or said == wanted:
            return ""
        if self.labels:
            other = bool(wanted) and wanted not in self.labels
            return "" if other or said in self.labels else f"not one of the {len(self.labels)} labels"
        value = parsed(wanted)
        if is_json(value) if wanted else self.json:
            return _json_fault(said, key_paths(value) if wanted else self.keys)
        if self.number and not _NUMBER.fullmatch(said) and (not wanted or _NUMBER.fullmatch(wanted)):
            return "not a number"
        if self.lists and not (is_list(said) or LIST_MARK.match(said)) and (not wanted or is_list(wanted)):
            return "not a list"
        for mark in sorted(self.marks):
            if mark not in said and (not wanted or mark in wanted):
                return f"without '{mark}'"
        if self.one_line and "\n" in said and "\n" not in wanted:
            return "more than one line"
        return ""


def parsed(text: str) -> Any:
    """The JSON value, or None where the text is not JSON."""
    if not text.strip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def is_json(value: Any) -> bool:
    return isinstance(value, dict | list)


def is_list(text: str) -> bool:
    """Whether two lines or more begin with a mark of a list."""
    return len(LIST_MARK.findall(text)) >= 2


def _labels(answers: Sequence[str]) -> frozenset[str]:
    distinct = set(answers)
    few = len(distinct) <= min(LABELS_MOST, len(answers) // LABEL_REPEATS)
    return frozenset(distinct) if few and all(len(label) <= LABEL_CHARACTERS for label in distinct) else frozenset()


def _json_fault(said: str, keys: frozenset[str]) -> str:
    value = parsed(said)
    if not is_json(value):
        return "not JSON"
    lacking = missing(value, keys)
    return f"JSON without '{lacking}'" if lacking else ""


def _nearly_all(which: Sequence[bool]) -> bool:
    return sum(which) >= NEARLY_ALL * len(which)


def _in_most(found: Sequence[Any]) -> frozenset[str]:
    counts = Counter(name for names in found for name in set(names))
    return frozenset(name for name, count in counts.items() if count >= NEARLY_ALL * len(found))
