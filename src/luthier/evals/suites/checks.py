"""An answer and a check -> passed or not, and why not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from luthier.core import numbers
from luthier.core.errors import InputError, unknown
from luthier.core.foreign.json_schema import Schema, read_schema
from luthier.core.foreign.patterns import compiled
from luthier.evals.metrics.answer_metrics import METRICS
from luthier.evals.suites import spec
from luthier.evals.suites.spec import Check

SECONDS = 5.0  # that a pattern or a schema may take on one answer
MAX_TIMEOUTS = 3  # times that it may take longer, before it is not tried again
SHOWN = 60


@dataclass(frozen=True)
class Verdict:
    """What a check says of an answer; `why` is empty when it passed. What could not be `decided` has not passed, and its
    negation has not either."""

    passed: bool
    why: str = ""
    decided: bool = True


@dataclass(frozen=True)
class AnswerToCheck:
    """An answer with what some checks need beside it."""

    prompt: str
    answer: str
    reference: str | None


EMBEDDING = "embedding"
BEST_VALUES = {name: float(metric.top) for name, metric in METRICS.items() if metric.top is not None} | {EMBEDDING: 1.0}
Test = Callable[[str], Verdict]
Batch = Callable[[Sequence[AnswerToCheck]], list[Verdict]]


def each(test: Test) -> Batch:
    """A check that looks at one answer at a time."""
    return lambda given: [test(item.answer) for item in given]


def test_of(check: Check, where: str, folder: Path) -> Test | None:
    """What the check does; None for those that need a process or a model (`python`, `judged`, `similar` by embedding).

    Raises InputError, with `where`, for a pattern, schema, number or metric that is none.
    """
    value: Any = getattr(check, check.kind)
    if isinstance(value, spec.Judged) and not value.question.strip():
        raise InputError("the question to the judge is empty", where=where, fix="for example `judged: Is it polite?`")
    return CHECKS[check.kind](value, where, folder) if check.kind in CHECKS else None


def words(check: Check) -> str:
    """The check in one line, such as `contains 'Paris'`."""
    value: Any = getattr(check, check.kind)
    if isinstance(value, Check):
        return f"not {words(value)}"
    name = check.kind.strip("_").replace("_", " ")
    given = value.model_dump(by_alias=True, exclude_unset=True)
    short = value.short
    parts = [] if short not in given or given[short] is True else [_quoted(given[short])]
    parts += [f"{key.replace('_', ' ')} {_quoted(item)}" for key, item in given.items() if key != short]
    return " ".join([name, *parts])


def negated(verdicts: Sequence[Verdict], check: Check) -> list[Verdict]:
    """`not`: passed where the inner check, `check`, did not; what it could not decide stays undecided."""
    return [
        Verdict(not verdict.passed, f"{words(check)}, which it must not" if verdict.passed else "")
        if verdict.decided
        else verdict
        for verdict in verdicts
    ]


def _equals(value: spec.Equals, where: str, folder: Path) -> Test:
    wanted = _folded(value.text, value.ignore_case)
    return lambda answer: _verdict(_folded(answer, value.ignore_case) == wanted, f"is not {_quoted(value.text)}")


def _contains(value: spec.Contains, where: str, folder: Path) -> Test:
    every = [value.all] if isinstance(value.all, str) else value.all
    if not every and not value.any:
        raise InputError("'contains' names no text", where=where, fix="for example `contains: Paris`")
    if not all((*every, *value.any)):
        raise InputError("every answer contains ''", where=where, fix="name a text")

    def test(answer: str) -> Verdict:
        text = answer.casefold() if value.ignore_case else answer
        there = {part: (part.casefold() if value.ignore_case else part) in text for part in (*every, *value.any)}
        missing = [part for part in every if not there[part]]
        if missing:
            return Verdict(False, f"does not contain {_quoted(missing[0])}")
        return _verdict(
            not value.any or any(there[part] for part in value.any), f"contains none of {_quoted(value.any)}"
        )

    return test


def _regex(value: spec.Regex, where: str, folder: Path) -> Test:
    if not value.pattern:
        raise InputError("an empty pattern is found in every answer", where=where, fix="for example `regex: ^Paris`")
    pattern = compiled(value.pattern, where, value.ignore_case)
    return _limited(
        "the pattern",
        lambda answer: _verdict(
            pattern.search(answer, timeout=SECONDS) is not None, f"does not match {_quoted(value.pattern)}"
        ),
    )


def _limited(what: str, test: Test) -> Test:
    """A test that undecided answers take no more than TRIES times SECONDS from."""
    late = 0

    def limited(answer: str) -> Verdict:
        nonlocal late
        if late < MAX_TIMEOUTS:
            try:
                return test(answer)
            except TimeoutError:
                late += 1
        where = "on it" if late < MAX_TIMEOUTS else "on this answer or others"
        return Verdict(False, f"{what} takes longer than {SECONDS:g} s {where}", decided=False)

    return limited


def _json(value: spec.Json, where: str, folder: Path) -> Test:
    given = value.json_schema
    content = read_schema(folder / given, where) if isinstance(given, str) else given
    schema = None if content is None else Schema(content, where)

    def test(answer: str) -> Verdict:
        try:
            found = _inside(answer) if value.inside else _whole(answer)
            why = schema.fault(found, SECONDS) if schema else ""
        except json.JSONDecodeError as error:
            return Verdict(False, f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
        except RecursionError:
            return Verdict(False, "is not JSON: it nests too deeply")
        except ValueError as error:
            return Verdict(False, f"is not JSON: {error}")
        return Verdict(not why, why)

    return _limited("the schema", test)


def _whole(answer: str) -> Any:
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", answer, re.DOTALL)
    return json.loads(fenced[1] if fenced else answer, parse_constant=_refuse)


def _inside(answer: str) -> Any:
    """The first object or list in the answer that is whole."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    for start in re.finditer(r"[{\[]", answer):
        try:
            return decoder.raw_decode(answer, start.start())[0]
        except ValueError:
            continue
    raise ValueError("no object or list in it")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _length(value: spec.Length, where: str, folder: Path) -> Test:
    most = value.max
    if most is None and not value.min:
        raise InputError(
            "every answer has a length", where=where, fix="give `min` or `max`, such as `length: {max: 80}`"
        )
    if most is not None and most < value.min:
        raise InputError(f"no length is from {value.min} to {most}", where=where)

    def test(answer: str) -> Verdict:
        text = answer.strip()
        count = {"characters": len(text), "words": len(text.split()), "lines": len(text.splitlines())}[value.unit]
        if count < value.min:
            return Verdict(False, f"has {count:,} {value.unit}, fewer than {value.min:,}")
        if most is not None and count > most:
            return Verdict(False, f"has {count:,} {value.unit}, more than {most:,}")
        return Verdict(True)

    return test


def _number(value: spec.Number, where: str, folder: Path) -> Test:
    """By readings of both: `9.500` passes for 9.5 and for 9500, unless the suite's own spelling shows the decimal mark."""
    given = value.value
    text = given if isinstance(given, str) else str(int(given)) if given.is_integer() else repr(given)
    wanted = numbers.last_number(text)
    if wanted is None:
        raise InputError(f"'number': {value.value!r} holds no number", where=where, fix="for example `number: 9500`")
    slack = Fraction(1 + 1e-9)  # what is written with a few digits is not exact
    rooms = [(w, max(Fraction(value.within), abs(w) * Fraction(value.relative)) * slack) for w in wanted.values]
    room = f" ± {_short(rooms[0][1])}" if rooms[0][1] else ""

    def test(answer: str) -> Verdict:
        found = numbers.last_number(answer, wanted.mark)
        if found is None:
            return Verdict(
                False, "has no number that can be read" if any(map(str.isdigit, answer)) else "has no number"
            )
        near = any(abs(said - exact) <= wide for said in found.values for exact, wide in rooms)
        return _verdict(near, f"says {_short(found.values[0])}, not {_short(rooms[0][0])}{room}")

    return test


def _short(value: Fraction) -> str:
    return f"{float(value):g}" if abs(value) < 10**300 else "a number of more than 300 digits"


def _one_of(value: spec.OneOf, where: str, folder: Path) -> Test:
    if not value.texts:
        raise InputError("'one_of' names no text", where=where, fix="for example `one_of: [yes, no]`")
    wanted = {_folded(text, value.ignore_case) for text in value.texts}
    return lambda answer: _verdict(_folded(answer, value.ignore_case) in wanted, f"is none of {_quoted(value.texts)}")


def least(value: spec.Similar) -> float:
    """How like it must be: as much as is given, or half of the best there is."""
    return BEST_VALUES[value.by] / 2 if value.at_least is None else value.at_least


def _similar(value: spec.Similar, where: str, folder: Path) -> Test | None:
    if value.by not in BEST_VALUES:
        raise unknown("metric", value.by, BEST_VALUES, where=where)
    embedded = value.by == EMBEDDING
    if not value.to.strip():
        raise InputError("`to` is empty", where=where, fix="give the text that answers should be like")
    if not embedded and "encoder" in value.model_fields_set:
        raise InputError(f"'encoder' is not used by '{value.by}'", where=where, fix=f"give `by: {EMBEDDING}` too")
    title, lowest = ("cosine", -1) if embedded else (METRICS[value.by].title, 0)
    wanted, best = least(value), BEST_VALUES[value.by]
    if not lowest <= wanted <= best:
        raise InputError(f"no {title} is {wanted:g}", where=where, fix=f"give `at_least` from {lowest} to {best:g}")

    def test(answer: str) -> Verdict:
        found = METRICS[value.by].function(answer, value.to, "")
        return _verdict(found >= wanted, f"{title} {found:.2f}, less than {wanted:g}")

    return None if embedded else test


CHECKS: dict[str, Callable[[Any, str, Path], Test | None]] = {
    "equals": _equals,
    "contains": _contains,
    "regex": _regex,
    "json_": _json,
    "length": _length,
    "number": _number,
    "one_of": _one_of,
    "similar": _similar,
}


def _verdict(passed: bool, why: str) -> Verdict:
    return Verdict(passed, "" if passed else why)


def _folded(text: str, ignore_case: bool) -> str:
    return text.strip().casefold() if ignore_case else text.strip()


def _quoted(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_quoted(item) for item in value[:4]) + (", …" if len(value) > 4 else "")
    if isinstance(value, float):
        return f"{value:g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(text.split())
    line = line if len(line) <= SHOWN else line[:SHOWN] + "…"
    return f"'{line}'" if isinstance(value, str) else line
