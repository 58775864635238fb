"""Models on the same items: which differ, by how much, and whether chance alone could do it.

Shape legend: S training runs (seeds) of a model, N items.

The interval of a difference is the paired bootstrap over items (`intervals`). With several runs of a model, runs and
items are both drawn again: each round draws S runs of each model and N items, the same for both models. What is drawn
of S runs varies too little by (S - 1) / S, so the deviations of runs are stretched by sqrt(S / (S - 1)), and the
tails are those of Student's t with the degrees of freedom of Satterthwaite (1946),

    V = V_items + V_runs(A) + V_runs(B),    freedom = V^2 / (V_items^2 / (N-1) + V_A^2 / (S_A-1) + V_B^2 / (S_B-1)).

V_items holds what is left of the runs' noise on items, which V_runs holds too: where items are few, the interval is a
little too wide. One run of a model speaks for that run only.

p-values: exact McNemar for single runs of 0/1 items, the sign-flip permutation test for single runs of other numbers,
Student's t of difference / sqrt(V) for several runs; corrected by Holm over the whole table. A difference is called
only when the corrected p-value is at most 0.05 and the interval leaves zero out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from luthier.core.errors import RunError
from luthier.core.seeds import generator
from luthier.evals.intervals import (
    DRAWS_AT_ONCE,
    Estimate,
    Values,
    fewest,
    ratio_difference,
    student,
    student_share,
    wilson,
)
from luthier.evals.metrics import METRICS
from luthier.evals.significance import holm, items_needed, mcnemar, reach, sign_flip

LEVEL = 0.05
NONE_SHOWN, TOO_FEW = "no difference shown", "too few items"
ORDER = ("worse", "better", "lower", "higher", NONE_SHOWN, TOO_FEW)  # regressions first


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
    verdict       better, worse (lower, higher where neither is better), no difference shown, too few items
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


def question(name: str, values: Mapping[str, Values], weights: Values | None = None) -> Question:
    """A question about a metric of METRICS."""
    metric = METRICS[name]
    return Question(name, values, weights, metric.title, metric.unit, metric.top, metric.higher_is_better)


def compare(questions: Sequence[Question], seed: int = 0, rounds: int = 10_000) -> list[Difference]:
    """Every model of every question against its first one: regressions first, then gains, then the rest; within these
    the surest first.

    Raises RunError for a value that is not finite.
    """
    rows = [
        _difference(asked, against, model, seed, rounds)
        for asked in questions
        for against in [next(iter(asked.values))]
        for model in asked.values
        if model != against
    ]
    tested = [i for i, row in enumerate(rows) if row.p is not None]
    corrected = dict(zip(tested, holm([rows[i].p or 0.0 for i in tested]), strict=True))
    told = [_told(row, corrected.get(i), len(tested)) for i, row in enumerate(rows)]
    return sorted(told, key=lambda row: (ORDER.index(row.verdict), 1.0 if row.p is None else row.p))


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
        found = ratio_difference(one[0].tolist(), other[0].tolist(), weights.tolist(), seed, rounds)
        low, high = found.low, found.high
        test, p = _paired(one[0], other[0], asked.weights is None, seed, rounds)
    else:
        test = "Student's t over runs and items"
        low, high = _pooled(one, other, weights, parts, seed, rounds) if n >= fewest() else (None, None)
        total = parts.items + parts.fixed
        p = (
            2 * (1 - student_share(abs(parts.difference) / sqrt(total), parts.freedom))
            if total
            else float(not parts.difference)
        )
    return Difference(
        asked.name, asked.title or asked.name, asked.unit, asked.top, asked.higher_is_better, model, against,
        parts.before, parts.after, parts.difference, low, high, n, (len(one), len(other)), test,
        None if low is None else p, variance=parts.items * n, fixed=parts.fixed,
    )  # fmt: skip


def _told(row: Difference, corrected: float | None, tests: int) -> Difference:
    """The row with its verdict, the correction being known."""
    low, high = row.low, row.high
    if corrected is None or low is None or high is None:
        return row
    detectable = reach(tests) * sqrt(row.variance / row.n + row.fixed)
    row = replace(row, corrected=corrected, detectable=detectable, verdict=NONE_SHOWN)
    if corrected > LEVEL or low <= 0 <= high:
        return replace(row, needed=items_needed(row.difference, row.variance, row.fixed, tests))
    if row.higher_is_better is None:
        return replace(row, verdict="higher" if row.difference > 0 else "lower")
    return replace(row, verdict="better" if (row.difference > 0) == row.higher_is_better else "worse")


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
    left = (other.mean(axis=0) - one.mean(axis=0) - (after - before) * weights) * (n / total)
    items = float((left**2).sum() / max(n - 1, 1) / n)
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


def _pooled(one: Values, other: Values, weights: Values, parts: _Parts, seed: int, rounds: int) -> tuple[float, float]:
    """The interval of the difference with runs and items drawn again."""
    n = one.shape[1]
    random = generator(seed, "items", n)
    picks = [generator(seed, "runs", side).integers(0, len(v), (rounds, len(v))) for side, v in enumerate((one, other))]
    drawn = np.empty(rounds)
    block = max(1, DRAWS_AT_ONCE // n)
    for start in range(0, rounds, block):
        size = min(block, rounds - start)
        items = random.integers(0, n, (size, n))
        total = weights[items].sum(axis=1)
        sides = []
        for values, pick in zip((one, other), picks, strict=True):
            scores = np.stack([run[items].sum(axis=1) / total for run in values], axis=1)
            count = len(values)
            picked = np.take_along_axis(scores, pick[start : start + size], axis=1).mean(axis=1)
            middle = scores.mean(axis=1)
            sides.append(middle + (picked - middle) * sqrt(count / max(count - 1, 1)))
        drawn[start : start + size] = sides[1] - sides[0]
    out = NormalDist().cdf(-student(1 - LEVEL / 2, max(parts.freedom, 1.0)))
    low, high = np.quantile(drawn, [out, 1 - out])
    return float(low), float(high)


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
    with its 95 % interval (Wilson). For single runs; exchanged items of several runs would lose what makes the runs differ.
    """
    (against, one), (model, other) = list(asked.values.items())[:2]
    assert len(one) == len(other) == 1
    random = generator(seed, "exchanged", one.shape[1])
    called = 0
    for time in range(times):
        swap = random.integers(0, 2, one.shape[1]).astype(bool)
        values = {against: np.where(swap, other, one), model: np.where(swap, one, other)}
        row = compare([replace(asked, values=values)], seed + time + 1, rounds)[0]
        called += row.verdict not in (NONE_SHOWN, TOO_FEW)
    low, high = wilson(called / times, times, NormalDist().inv_cdf(1 - LEVEL / 2))
    return Estimate(called / times, low, high, times)
