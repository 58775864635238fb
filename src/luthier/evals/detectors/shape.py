"""Detectors of an answer's shape: its length, its form, and how it ends."""

from __future__ import annotations

import re

from luthier.evals.detectors.answer import Finding, GivenAnswer
from luthier.evals.detectors.formats import parsed
from luthier.evals.detectors.task import Task, is_prose, stopped
from luthier.evals.detectors.words import LIST_MARK, words

LONG_TIMES, LONG_MORE = 2.0, 10  # words: twice the reference and 10 more
LONGER_THAN_ALL = 1.5  # times the 99 % quantile of the training answers, and 5 more
SHORT_PART, SHORT_OF = 0.25, 8  # of the reference, where it has 8 words or more
SHORTER_THAN_ALL = 0.5  # times the 1 % quantile
STOPS = 0.95  # of the training answers end with a mark

# Words that hardly ever end a sentence, in languages of the Latin script.
_OPEN_WORDS = """
    the a an and or of to in with for from by at as that which who whose because but if than into is are was were can
    could would should will may might has have had their its his her our your my it's those when where while they der
    das und oder von zu mit für aus bei als dass weil aber wenn ist sind ein eine einen einem einer im zum zur le la
    les un une des du de et ou à dans pour par sur avec que qui el los las una en con por para
"""
_OPEN = frozenset(_OPEN_WORDS.split())
_OPEN_AT_END = re.compile(r"[,:(\[{+=&/–—-]$")
_NEXT_ITEM = re.compile(rf"{LIST_MARK.pattern}\S.*\n+[ \t]*(?:\d{{1,3}}[.):]|[-*•+])\Z", re.MULTILINE)  # "1. Saw\n2."
_ADDRESS = re.compile(r"https?://\S+$")


def too_long(answered: GivenAnswer, task: Task) -> Finding | None:
    count, wanted = len(words(answered.answer)), len(words(answered.reference))
    if wanted:
        most, what = LONG_TIMES * wanted + LONG_MORE, f"the reference has {wanted}"
    elif bounds := task.bounds(answered.prompt):
        most, what = LONGER_THAN_ALL * bounds[1] + 5, f"training answers have up to {bounds[1]:.0f}"
    else:
        return None
    return Finding("too_long", f"{count} words; {what}") if count > most else None


def too_short(answered: GivenAnswer, task: Task) -> Finding | None:
    if not answered.answer.strip():
        return Finding("too_short", "empty")
    count, wanted = max(1, len(words(answered.answer))), len(words(answered.reference))  # a sign or more is a word
    if wanted:
        least = SHORT_PART * wanted if wanted >= SHORT_OF else 0
        what = f"the reference has {wanted}"
    elif bounds := task.bounds(answered.prompt):
        least, what = SHORTER_THAN_ALL * bounds[0], f"training answers have {bounds[0]:.0f} or more"
    else:
        return None
    return Finding("too_short", f"{count} words; {what}") if count < least else None


def wrong_format(answered: GivenAnswer, task: Task) -> Finding | None:
    fault = task.format.broken(answered.answer, answered.reference)
    return Finding("wrong_format", fault) if fault else None


def unfinished(answered: GivenAnswer, task: Task) -> Finding | None:
    answer = answered.answer.rstrip()
    if answered.ended == "length":
        return Finding("unfinished", "ended by the limit of tokens", _last(answer))
    if not answer or answer == answered.reference.strip() or _ADDRESS.search(answer):
        return None
    if answer.count("```") % 2:
        return Finding("unfinished", "a block of code is not closed", _last(answer))
    if answer.startswith(("{", "[")) and parsed(answer) is None and _unclosed(answer):
        return Finding("unfinished", "a bracket is not closed", _last(answer))
    if "```" in answer:
        return None
    if _NEXT_ITEM.search(answer):
        return Finding("unfinished", "an item of a list is empty", _last(answer))
    last = words(answer)[-1:]
    prose = len(words(answer)) >= 5
    if prose and (_OPEN_AT_END.search(answer) or (answer[-1].isalnum() and last and last[0] in _OPEN)):
        return Finding("unfinished", f"ends with '{answer.split()[-1]}'", _last(answer))
    if stopped(answer):
        return None
    if prose and _unclosed(answer):
        return Finding("unfinished", "a bracket is not closed", _last(answer))
    if task.stops >= STOPS and answer[-1].isalnum() and is_prose(answer) and _stops_too(answered.reference):
        return Finding("unfinished", "ends without a mark", _last(answer))
    return None


def _unclosed(text: str) -> bool:
    return any(text.count(left) > text.count(right) for left, right in ("()", "[]", "{}"))


def _stops_too(reference: str) -> bool:
    return not reference.strip() or stopped(reference)


def _last(answer: str) -> tuple[int, int]:
    return max(answer.rfind(" "), answer.rfind("\n")) + 1, len(answer)
