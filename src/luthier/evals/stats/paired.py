"""Models on the same items: which differ, by how much, and whether chance alone could do it.

Shape legend: S training runs (seeds) of a model, N items.

The interval of a difference of single runs is that of `intervals.difference`. With several runs of a model it is Student's t
of difference / sqrt(V), with the degrees of freedom of Satterthwaite (1946),

    V = V_items + V_runs(A) + V_runs(B),    freedom = V^2 / (V_items^2 / (N-1) + V_A^2 / (S_A-1) + V_B^2 / (S_B-1)).

V_items holds what is left of the runs' noise on items, which V_runs holds too: where items are few, the interval is a
little too wide. One run of a model speaks for that run only.

p-values: exact McNemar for single runs of 0/1 items, the sign-flip permutation test for single runs of other numbers,
the same Student's t for several runs; corrected by Holm over the whole table. A difference is called only when the
corrected p-value is at most 0.05 and the interval leaves zero out. Where even a change of every item in one direction would
not be called, given how many rows there are, it is "too few to tell".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import sqrt
from typing import Any

import numpy as np

from luthier.core.errors import RunError
from luthier.core.seeds import generator
from luthier.core.verdicts import LEVEL, ORDER, SHOWN, TOO_FEW, not_seen, verdict, verdict_kind
from luthier.evals.stats.intervals import (
    Estimate,
    Limits,
    Values,
    changed,
    few_changed,
    fewest,
    influence,
    ratio_difference,
    student,
    student_share,
)
from luthier.evals.stats.shares import share_limits
from luthier.evals.stats.significance import holm, items_needed, mcnemar, reach, sign_flip

BEFORE, AFTER = "before", "after"
POOLED = "Student's t over runs and items"


@dataclass(frozen=True)
class Question:
    """What is compared: one number for each item, run and model.

    values   model -> [S, N]; the same N items for all
    weights  [N], where the number of a model is sum(values) / sum(weights); None for the plain mean
    The rest is that of a row of `metrics.METRICS`.
    """

    name: str
    values: Mapping[str, Values]
    weights: Values | None = None
    title: str = ""
    unit: str = ""
    top: float | None = None
    higher_is_better: bool | None = True


@dataclass(frozen=True)
class Difference:
    """One row of the table: `model` against the first model, `against`.

    p, corrected  p-value, and by Holm over all rows; None with fewer than six items
    verdict       as `core.verdicts` words it: better, worse (lower, higher where neither is better), no difference shown,
                  too few to tell, not seen in N
    needed        items that would show a true difference of the size measured with 80 % chance, where none is shown;
                  None when no number would: the values are equal, or the runs vary too much
    detectable    the true difference that as many items as these show with 80 % chance
    """

    name: str
    title: str
    unit: str
    top: float | None
    higher_is_better: bool | None
    model: str
    against: str
    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    n: int
    runs: tuple[int, int]
    test: str
    p: float | None
    corrected: float | None = None
    verdict: str = TOO_FEW
    needed: int | None = None
    detectable: float | None = None
    variance: float = field(default=0.0, repr=False)
    fixed: float = field(default=0.0, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {key: value for key, value in asdict(self).items() if key not in ("variance", "fixed")}


def paired(
    name: str, before: Sequence[float], after: Sequence[float], about: Mapping[str, Any], weights: Sequence[float] = ()
) -> Question:
    """A question about the same items before and after; `about` has its title, unit, top and higher_is_better."""
    values = {BEFORE: np.array([before], dtype=float), AFTER: np.array([after], dtype=float)}
    return Question(name, values, np.array(weights, dtype=float) if weights else None, **about)


def before_after(questions: Sequence[Question], seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a table before | after, in the order asked, ready for JSON: name, title, unit, top, higher_is_better, before,
    after, difference, low, high, n, test, p, corrected, verdict. `low` and `high` bound the difference at 95 %, paired by item.

    Raises RunError for a value that is not finite.
    """
    left_out = ("model", "against", "runs", "needed", "detectable")
    rows = (row.as_dict() for row in differences(questions, seed))
    return [{key: value for key, value in row.items() if key not in left_out} for row in rows]


def compare(questions: Sequence[Question], seed: int = 0, rounds: int = 10_000) -> list[Difference]:
    """Every model of every question against its first one: regressions first, then gains, then the rest; within these
    the surest first.

    Raises RunError for a value that is not finite.
    """
    rows = differences(questions, seed, rounds)
    return sorted(rows, key=lambda row: (ORDER.index(verdict_kind(row.verdict)), 1.0 if row.p is None else row.p))


def differences(questions: Sequence[Question], seed: int = 0, rounds: int = 10_000) -> list[Difference]:
    """The rows of `compare` in the order asked. `rounds` are the random signs of the permutation test."""
    rows = [
        _difference(asked, against, model, seed, rounds)
        for asked in questions
        for against in [next(iter(asked.values))]
        for model in asked.values
        if model != against
    ]
    tested = [i for i, row in enumerate(rows) if row.p is not None]
    corrected = dict(zip(tested, holm([rows[i].p or 0.0 for i in tested]), strict=True))
    left = sum(p > LEVEL for p in corrected.values())
    return [_with_verdict(row, corrected.get(i), len(tested), left) for i, row in enumerate(rows)]


def _difference(asked: Question, against: str, model: str, seed: int, rounds: int) -> Difference:
    one, other = asked.values[against], asked.values[model]
    n = one.shape[1]
    weights = np.ones(n) if asked.weights is None else asked.weights
    _refuse_odd(one, against)
    _refuse_odd(other, model)
    parts = _parts(one, other, weights)
    low: float | None
    high: float | None
    if len(one) == len(other) == 1:
        found = ratio_difference(one[0].tolist(), other[0].tolist(), weights.tolist())
        low, high = found.low, found.high
        test, p = _paired(one[0], other[0], asked.weights is None, seed, rounds)
    else:
        test, p = POOLED, _chance(parts, n)
        low, high = _pooled(one, other, weights, parts)
    return Difference(
        asked.name, asked.title or asked.name, asked.unit, asked.top, asked.higher_is_better, model, against,
        parts.before, parts.after, parts.difference, low, high, n, (len(one), len(other)), test,
        p if n >= fewest() else None, variance=parts.items * n, fixed=parts.fixed,
    )  # fmt: skip


def _with_verdict(row: Difference, corrected: float | None, tests: int, left: int) -> Difference:
    """The row with its verdict, the correction being known: `tests` p-values, of which `left` are above LEVEL."""
    if unseen := not_seen(row.before, row.after, row.n, row.unit):
        return replace(row, corrected=corrected, verdict=unseen)
    if corrected is None:
        return row
    words = verdict(row.difference, row.low, row.high, row.higher_is_better, corrected)
    detectable = reach(tests) * sqrt(row.variance / row.n + row.fixed)
    row = replace(row, corrected=corrected, detectable=detectable, verdict=words)
    if words in SHOWN:
        return row
    if row.test != POOLED and corrected > LEVEL and left * 2.0 ** (1 - row.n) > LEVEL:
        row = replace(row, verdict=TOO_FEW)
    return replace(row, needed=items_needed(row.difference, row.variance, row.fixed, tests))


@dataclass(frozen=True)
class _Parts:
    """Two means (or ratios), their difference, and the variances of the difference: of drawing other items, and of
    drawing other runs (`fixed`), with their degrees of freedom together."""

    before: float
    after: float
    difference: float
    items: float
    fixed: float
    freedom: float


def _parts(one: Values, other: Values, weights: Values) -> _Parts:
    n, total = one.shape[1], weights.sum()
    scores = one.sum(axis=1) / total, other.sum(axis=1) / total
    before, after = float(scores[0].mean()), float(scores[1].mean())
    items = float(influence(other.mean(axis=0) - one.mean(axis=0), weights).var() / max(n - 1, 1))
    runs = [float(s.var(ddof=1) / len(s)) if len(s) > 1 else 0.0 for s in scores]
    shares = [(items, n - 1), *((v, len(s) - 1) for v, s in zip(runs, scores, strict=True))]
    spread = sum(v**2 / f for v, f in shares if v and f)
    freedom = (items + sum(runs)) ** 2 / spread if spread else float(max(n - 1, 1))
    return _Parts(before, after, after - before, items, sum(runs), freedom)


def _paired(one: Values, other: Values, plain: bool, seed: int, rounds: int) -> tuple[str, float]:
    """(the test that fits, its p-value) for single runs."""
    if plain and set(np.unique(np.concatenate([one, other])).tolist()) <= {0.0, 1.0}:
        return "exact McNemar", mcnemar(one.tolist(), other.tolist())
    return "sign-flip permutation", sign_flip((other - one).tolist(), seed, rounds)


def _chance(parts: _Parts, n: int) -> float:
    """The p-value of several runs. Where nothing varies, that of n items which all go one way."""
    total = parts.items + parts.fixed
    if not total:
        return 2.0 ** (1 - n) if parts.difference else 1.0
    return 2 * (1 - student_share(abs(parts.difference) / sqrt(total), parts.freedom))


def _pooled(one: Values, other: Values, weights: Values, parts: _Parts) -> Limits:
    """The interval of the difference of several runs; where hardly any item changed, at least that of `intervals.changed`."""
    n = one.shape[1]
    if n < fewest():
        return None, None
    reach = student(1 - LEVEL / 2, max(parts.freedom, 1.0)) * sqrt(parts.items + parts.fixed)
    low, high = parts.difference - reach, parts.difference + reach
    changes = (other.mean(axis=0) - one.mean(axis=0)) / weights
    if not few_changed(changes):
        return low, high
    plain = bool((weights == 1).all())
    bounded = plain and min(one.min(), other.min()) >= 0 and max(one.max(), other.max()) <= 1
    least, most = changed(changes, bounded)
    return (None, None) if least is None or most is None else (min(low, least), max(high, most))


def _refuse_odd(values: Values, model: str) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise RunError(
            f"measured {values[tuple(bad[0])]}, which is not a finite number", where=f"{model}, item {bad[0][1]}"
        )


def false_alarms(asked: Question, seed: int = 0, times: int = 200, rounds: int = 1000) -> Estimate:
    """How often two models that are equal by construction are called different: the share of `times` tables in which
    each item's values of the first two models are, or are not, exchanged at random.

    Of all exchanges there are, the tests call at most 5 %; of those drawn, as many as chance has it, so the share comes
    with its 95 % interval. For single runs; exchanged items of several runs would lose what makes the runs differ.
    """
    (against, one), (model, other) = list(asked.values.items())[:2]
    assert len(one) == len(other) == 1
    random = generator(seed, "exchanged", one.shape[1])
    called = 0
    for time in range(times):
        swap = random.integers(0, 2, one.shape[1]).astype(bool)
        values = {against: np.where(swap, other, one), model: np.where(swap, one, other)}
        row = compare([replace(asked, values=values)], seed + time + 1, rounds)[0]
        called += row.verdict in SHOWN
    low, high = share_limits(called, times)
    return Estimate(called / times, low, high, times)
