"""Answers -> verdicts -> pass rates -> thresholds met or missed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.evals.stats.intervals import share_interval
from luthier.evals.suites.cases import Case
from luthier.evals.suites.checks import AnswerToCheck, Test, Verdict, negated, test_of, words
from luthier.evals.suites.spec import Check, Suite

CheckElsewhere = Callable[
    [Check, Sequence[AnswerToCheck]], list[Verdict]
]  # what a check that needs a process or a model says


@dataclass(frozen=True)
class ReadyCheck:
    """A check made ready: without the `not`s around it, how many those were, and what it does (None: ask outside)."""

    check: Check
    core: Check
    nots: int
    test: Test | None


@dataclass(frozen=True)
class Outcome:
    """A case with its answers and, for each of them, the verdict of each check."""

    case: Case
    answers: tuple[str, ...]
    verdicts: tuple[tuple[Verdict, ...], ...]

    @property
    def rate(self) -> float:
        """The share of the answers that pass all checks."""
        return sum(all(v.passed for v in row) for row in self.verdicts) / len(self.verdicts)

    @property
    def passed(self) -> bool:
        return self.rate >= self.case.pass_rate

    @property
    def failures(self) -> list[tuple[str, list[str]]]:
        """(answer, why it fails) of every answer that does."""
        return [
            (answer, [verdict.why for verdict in row if not verdict.passed])
            for answer, row in zip(self.answers, self.verdicts, strict=True)
            if not all(verdict.passed for verdict in row)
        ]

    def as_dict(self) -> dict[str, Any]:
        checks = [
            {
                "check": words(check), "rate": sum(row[i].passed for row in self.verdicts) / len(self.verdicts),
                "why": next((row[i].why for row in self.verdicts if not row[i].passed), None),
            }
            for i, check in enumerate(self.case.checks)
        ]  # fmt: skip
        return {
            "group": self.case.group, "name": self.case.name, "where": self.case.where, "passed": self.passed, "rate": self.rate,
            "prompt": self.case.prompt, "answers": list(self.answers), "checks": checks,
        }  # fmt: skip


@dataclass(frozen=True)
class Score:
    """Cases together: how many, how many pass, the share with its 95 % interval, the threshold, and whether it is met."""

    name: str
    cases: int
    passed: int
    rate: float
    low: float | None
    high: float | None
    threshold: float | None

    @property
    def met(self) -> bool:
        return self.threshold is None or self.rate >= self.threshold

    def as_dict(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "met": self.met}


def prepare(cases: Sequence[Case], folder: Path) -> list[list[ReadyCheck]]:
    """The checks of every case made ready. Raises InputError for what cannot be checked, before anything is asked."""
    out = []
    for case in cases:
        ready = []
        for check, where in zip(case.checks, case.places, strict=True):
            core, nots = check, 0
            while core.not_ is not None:
                core, nots = core.not_, nots + 1
            ready.append(ReadyCheck(check, core, nots, test_of(core, where, folder)))
        out.append(ready)
    return out


def check_all(
    cases: Sequence[Case],
    ready: Sequence[Sequence[ReadyCheck]],
    answers: Sequence[Sequence[str]],
    outside: CheckElsewhere,
) -> list[Outcome]:
    """Every check of every answer. Checks that are asked outside are asked together for all answers."""
    found: dict[tuple[int, int, int], Verdict] = {}
    waiting: dict[str, tuple[ReadyCheck, list[tuple[tuple[int, int, int], AnswerToCheck]]]] = {}
    for i, case in enumerate(cases):
        for j, answer in enumerate(answers[i]):
            for k, check in enumerate(ready[i]):
                given = AnswerToCheck(case.prompt, answer, case.reference)
                if check.test:
                    found[i, j, k] = check.test(answer)
                else:
                    key = check.core.model_dump_json()
                    waiting.setdefault(key, (check, []))[1].append(((i, j, k), given))
    for check, asked in waiting.values():
        verdicts = outside(check.core, [given for _, given in asked])
        found |= {place: verdict for (place, _), verdict in zip(asked, verdicts, strict=True)}
    return [
        Outcome(case, tuple(answers[i]), tuple(
            tuple(_turned(found[i, j, k], check) for k, check in enumerate(ready[i])) for j in range(len(answers[i]))
        ))
        for i, case in enumerate(cases)
    ]  # fmt: skip


def _turned(verdict: Verdict, check: ReadyCheck) -> Verdict:
    return negated([verdict], check.core)[0] if check.nots % 2 else verdict


def score(outcomes: Sequence[Outcome], suite: Suite) -> tuple[list[Score], Score]:
    """(the groups, all cases). Without any threshold in the suite, every case must pass."""
    thresholds: Mapping[str, float | None] = {group.name: group.threshold for group in suite.groups}
    overall = suite.threshold
    if overall is None and not any(value is not None for value in thresholds.values()):
        overall = 1.0
    groups = [
        _score(name, [outcome for outcome in outcomes if outcome.case.group == name], threshold)
        for name, threshold in thresholds.items()
    ]
    return groups, _score("all", outcomes, overall)


def _score(name: str, outcomes: Sequence[Outcome], threshold: float | None) -> Score:
    found = share_interval([float(outcome.passed) for outcome in outcomes])
    return Score(name, len(outcomes), sum(o.passed for o in outcomes), found.value, found.low, found.high, threshold)
