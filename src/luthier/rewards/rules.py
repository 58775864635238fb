"""The rewards that come with Luthier: `RULES` is all of them on one screen.

Each is made from the part of its spec after the colon and scores an answer by itself. To add one: a function here
and a row in RULES.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.config.rewards import RewardConfig
from luthier.core import numbers
from luthier.core.errors import InputError, RunError, unknown
from luthier.core.foreign import patterns
from luthier.core.foreign.json_schema import Schema, read_schema
from luthier.rewards.answer import Answer, Component, opening

Score = Callable[[Answer], float]
Make = Callable[[str, str, RewardConfig], Score]  # (the whole spec, its part after the colon, settings)


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of `RULES`. `argument` is what may follow the colon, in brackets when it may be left out, '' for nothing;
    `reference` says that the answer is compared with the row's right answer, and `usable` with which of those it can be:
    every answer to another gets 0."""

    make: Make
    argument: str = ""
    reference: bool = False
    usable: Callable[[str], bool] = bool


def exact(spec: str, argument: str, settings: RewardConfig) -> Score:
    """1 when answer and reference are equal but for the white space around them; 'casefold': and for case."""
    plain = _plain(spec, argument)
    return lambda answer: float(plain(answer.text) == plain(answer.reference or ""))


def contains(spec: str, argument: str, settings: RewardConfig) -> Score:
    """1 when the reference, without the white space around it, stands somewhere in the answer; 0 for an empty one."""
    plain = _plain(spec, argument)

    def score(answer: Answer) -> float:
        wanted = plain(answer.reference or "")
        return float(bool(wanted) and wanted in plain(answer.text))  # nothing stands in every answer

    return score


def number(spec: str, argument: str, settings: RewardConfig) -> Score:
    """1 when the last number in the answer equals the last in the reference, the rule of GSM8K (Cobbe et al. 2021), in any
    spelling that `core/numbers.py` reads; 0 where one of them has none that can be read."""
    return lambda answer: float(numbers.same(answer.text, answer.reference or ""))


def pattern(spec: str, argument: str, settings: RewardConfig) -> Score:
    """1 when the pattern is found somewhere in the answer; `^` and `$` tie it to the ends.

    Raises RunError when a search takes longer than `reward.timeout`.
    """
    compiled = patterns.compiled(argument, _where(spec))

    def score(answer: Answer) -> float:
        try:
            return float(compiled.search(answer.text, timeout=settings.timeout) is not None)
        except TimeoutError:
            raise _late(spec, "pattern", answer, settings.timeout) from None

    return score


def json_text(spec: str, argument: str, settings: RewardConfig) -> Score:
    """1 when the whole answer is one JSON value (RFC 8259: NaN and Infinity are none); of a JSON Schema, when the name
    of its file follows."""
    schema = Schema(read_schema(Path(argument), _where(spec)), f"{_where(spec)}: {argument}") if argument else None

    def score(answer: Answer) -> float:
        try:
            value = json.loads(answer.text, parse_constant=_refuse)
            return float(schema is None or not schema.fault(value, settings.timeout))
        except (ValueError, RecursionError):
            return 0.0
        except TimeoutError:
            raise _late(spec, "schema", answer, settings.timeout) from None

    return score


def length(spec: str, argument: str, settings: RewardConfig) -> Score:
    """min(1, max(0, 2 - tokens / N)): 1 up to N tokens, falling evenly to 0 at 2 N."""
    if not re.fullmatch(r"[1-9]\d*", argument):
        raise InputError(f"'{argument}' is not a number of tokens", where=_where(spec), fix="write such as length:40")
    most = int(argument)
    return lambda answer: min(1.0, max(0.0, 2 - answer.tokens / most))


def ended(spec: str, argument: str, settings: RewardConfig) -> Score:
    """1 when the model ended the answer itself, 0 when it was cut."""
    return lambda answer: float(answer.ended)


RULES: dict[str, Rule] = {
    "exact": Rule(exact, "[casefold]", reference=True),
    "contains": Rule(contains, "[casefold]", reference=True),
    "number": Rule(number, reference=True, usable=lambda reference: numbers.last_number(reference) is not None),
    "regex": Rule(pattern, "PATTERN"),
    "json": Rule(json_text, "[SCHEMA.json]"),
    "length": Rule(length, "TOKENS"),
    "ended": Rule(ended),
}


def rule(spec: str, name: str, argument: str, settings: RewardConfig) -> Component:
    """The component of a rule. Raises InputError when the argument is missing, unwanted or wrong."""
    wanted = RULES[name].argument
    if argument and not wanted:
        raise InputError(f"'{name}' takes no argument", where=_where(spec), fix=f"write {name}")
    if not argument and wanted and not wanted.startswith("["):
        raise InputError(f"'{name}' needs {wanted}", where=_where(spec), fix=f"write {name}:{wanted}")
    score = RULES[name].make(spec, argument, settings)

    def component(answers: Sequence[Answer]) -> list[float]:
        return [score(answer) for answer in answers]

    return component


def _where(spec: str) -> str:
    return f"reward '{spec}'"


def _plain(spec: str, argument: str) -> Callable[[str], str]:
    if argument not in ("", "casefold"):
        raise unknown("word", argument, ["casefold"], where=_where(spec))
    return (lambda text: text.strip().casefold()) if argument else str.strip


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _late(spec: str, what: str, answer: Answer, seconds: float) -> RunError:
    return RunError(
        f"the {what} takes longer than {seconds:g} s on an answer to '{opening(answer.prompt)}'",
        where=_where(spec), fix="write it without nested repetitions",
    )  # fmt: skip
