"""Calls of functions in answers: which are called, and with what.

A call is a JSON object with a `name` and its `arguments` (or `parameters`, `input`), wherever it stands in a text: in <tool_call>
tags, after [TOOL_CALLS], in a fence, in a list, or alone, as chat templates write them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from luthier.evals.metrics.json_fields import field_f1

MAX_ATTEMPTS = 200  # braces of a text that are tried
ARGUMENTS = ("arguments", "parameters", "input")
Call = dict[str, Any]  # {"name": ..., "arguments": ...}


def called(text: str) -> list[Call]:
    """The calls of a text, in order. Arguments that are JSON text are read."""
    calls: list[Call] = []
    decoder, place = json.JSONDecoder(), text.find("{")
    for _ in range(MAX_ATTEMPTS):
        if place < 0:
            break
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            value, end = None, place + 1
        if call := _call(value):
            calls.append(call)
        else:
            end = place + 1  # a call may stand within
        place = text.find("{", end)
    return calls


def _call(value: Any) -> Call | None:
    """The call that a JSON object is. One with keys of other things is none: a row of data may have a name and parameters too."""
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return None
    keys = [key for key in ARGUMENTS if key in function]
    if not keys or not function.keys() <= {"name", "id", "type", *ARGUMENTS}:
        return None
    given = function[keys[0]]
    if isinstance(given, str) and given.strip():
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return None
    given = {} if given in (None, "") or isinstance(given, str) else given
    return {"name": function["name"], "arguments": given} if isinstance(given, dict) else None


def names_right(answer: str, reference: str, prompt: str = "") -> float:
    """1 when the answer calls the functions that the reference calls, each as often, in any order; where it calls none, none."""
    return float(_names(called(answer)) == _names(called(reference)))


def arguments_f1(answer: str, reference: str, prompt: str = "") -> float:
    """F1 of the fields of all calls, names and arguments, from 0 to 1; 1 where neither calls any. Calls are paired with those
    that they are most like (`json_fields.field_f1`)."""
    said, wanted = called(answer), called(reference)
    if not said or not wanted:
        return float(not said and not wanted)
    return field_f1(json.dumps(said), json.dumps(wanted))


def calls_right(answer: str, reference: str, prompt: str = "") -> float:
    """1 when the answer makes the calls of the reference with equal arguments and no other, in any order; where it makes none, none."""
    return float(names_right(answer, reference) == 1 and arguments_f1(answer, reference) == 1)


def are_calls(references: Sequence[str]) -> bool:
    """Whether a quarter or more of these texts call functions: the others are answers in words, or questions for what is missing."""
    return 4 * sum(bool(called(reference)) for reference in references) >= len(references) > 0


def _names(calls: Sequence[Call]) -> Counter[str]:
    return Counter(call["name"] for call in calls)
