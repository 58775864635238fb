"""How far annotators agree, and what sways them: position and length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from luthier.core.verdicts import HIGHER, verdict
from luthier.evals.judging.judgments import Duel, Judgment, prompt_key
from luthier.evals.stats.intervals import Estimate, fewest, share_interval
from luthier.evals.stats.shares import share_limits

Ratings = Mapping[str, Hashable]  # annotator -> the value it gave to a unit


@dataclass(frozen=True, slots=True)
class Agreement:
    """Krippendorff's alpha (None where it is not defined), the share of equal pairs of values, and over how many units."""

    alpha: float | None
    same: float
    units: int

    def as_dict(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "same": self.same, "units": self.units}


def alpha(units: Sequence[Ratings], annotator: str | None = None) -> Agreement | None:
    """Krippendorff's alpha for nominal values and any number of missing ones; None when no unit has two values.

    alpha = 1 - D_o / D_e. In a unit of m >= 2 values each ordered pair of different annotators counts 1 / (m - 1): D_o is
    the share of the pairs that differ. With n_c such counts of value c and n in all, D_e = 1 - sum n_c (n_c - 1) /
    (n (n - 1)), what pairs drawn from all values would differ by (Krippendorff 2004, "Content Analysis", chapter 11).
    1 is agreement, 0 what chance gives; None when every value is the same, which shows neither.

    With `annotator`, D_o is over the pairs that this annotator is part of: how far it agrees with the others.
    """
    shared = [unit for unit in units if len(unit) > 1]
    values: Counter[Hashable] = Counter()
    pairs = same = 0.0
    counted = 0
    for unit in shared:
        values.update(unit.values())
        if annotator is not None and annotator not in unit:
            continue
        counted += 1
        for one, other in combinations(unit, 2):
            if annotator in (None, one, other):
                pairs += 1 / (len(unit) - 1)
                same += (unit[one] == unit[other]) / (len(unit) - 1)
    if not pairs:
        return None
    total = values.total()
    expected = 1 - sum(n * (n - 1) for n in values.values()) / (total * (total - 1))
    return Agreement(1 - (1 - same / pairs) / expected if expected else None, same / pairs, counted)


def outcomes_by_pair(duels: Sequence[Duel]) -> list[Ratings]:
    """The outcome of every pair of answers, by annotator."""
    units: dict[int, dict[str, Hashable]] = {}
    for duel in duels:
        units.setdefault(duel.unit, {})[duel.annotator] = duel.outcome
    return list(units.values())


@dataclass(frozen=True, slots=True)
class AnnotatorStats:
    """What an annotator does.

    judgments   how many
    ties        the share of duels without a winner
    first       of the judgments of two answers with a winner, the share that the answer shown first won; without
                preference for a place and with the order drawn by chance it is a half
    longer      of the duels with a winner and answers of different length, the share that the longer answer won
    steady      of the pairs judged in both orders, the share judged alike; None when there are none
    agreement   with the other annotators, None when it shares nothing with them
    """

    annotator: str
    judgments: int
    ties: Estimate
    first: Estimate | None
    longer: Estimate | None
    steady: Estimate | None
    agreement: Agreement | None

    def as_dict(self) -> dict[str, Any]:
        shares = {name: _estimate(getattr(self, name)) for name in ("ties", "first", "longer", "steady")}
        agreed = self.agreement.as_dict() if self.agreement else None
        return {"annotator": self.annotator, "judgments": self.judgments, **shares, "agreement": agreed}


def annotator_statistics(judgments: Sequence[Judgment], duels: Sequence[Duel]) -> list[AnnotatorStats]:
    """The habits of every annotator, those with most judgments first; intervals over judgments or duels."""
    units = outcomes_by_pair(duels)
    counts = Counter(judgment.annotator for judgment in judgments)
    out = []
    for name, count in counts.most_common():
        own_duels = [duel for duel in duels if duel.annotator == name]
        own_judgments = [judgment for judgment in judgments if judgment.annotator == name]
        decided = [duel for duel in own_duels if duel.outcome != 0.5 and duel.lengths[0] != duel.lengths[1]]
        out.append(AnnotatorStats(
            name, count, share_interval([float(duel.outcome == 0.5) for duel in own_duels] or [0.0]),
            _share_or_none([_first_won(j) for j in own_judgments if len(j.verdict) == 2 and j.verdict[0] != j.verdict[1]]),
            _share_or_none([(duel.outcome == 1) == (duel.lengths[0] > duel.lengths[1]) for duel in decided]),
            _share_or_none(_same_in_both_orders(own_judgments)), alpha(units, name),
        ))  # fmt: skip
    return out


@dataclass(frozen=True, slots=True)
class PositionBias:
    """What the place of an answer does to a judge that saw `pairs` of answers in both orders.

    first, last   pairs in which whatever was shown first, or last, won in both orders
    unsteady      pairs with other verdicts that differ: a tie in one order only
    answer        pairs in which the same answer won in both orders; the rest are ties in both
    """

    pairs: int
    first: int
    last: int
    unsteady: int
    answer: int

    @property
    def dominates(self) -> bool:
        """Place says more than answers do: most pairs flip with the order; or, of those that are not ties in both orders, more
        than half by the 95 % interval."""
        flips = self.first + self.last + self.unsteady
        decided = flips + self.answer
        low, high = share_limits(flips, decided) if decided >= fewest() else (0.0, 1.0)
        most = verdict(flips / max(decided, 1) - 0.5, low - 0.5, high - 0.5, better=None) == HIGHER
        return 2 * flips > self.pairs or most

    @property
    def reason(self) -> str | None:
        """Why such a judge has no verdict; None for one that goes by answers."""
        if not self.dominates:
            return None
        most, name = max((self.first, "first"), (self.last, "last"))
        if 2 * most > self.first + self.last + self.unsteady:
            return f"the judge prefers the {name} answer in {most:,} of {self.pairs:,} pairs, whatever stands there"
        flips = self.first + self.last + self.unsteady
        return f"the judge changes its verdict with the order of the answers in {flips:,} of {self.pairs:,} pairs"


def position_bias(judgments: Sequence[Judgment]) -> PositionBias:
    """What place does, from the judgments of one annotator."""
    counts = Counter(_order_effect(orders) for orders in _both_orders(judgments))
    return PositionBias(counts.total(), counts["first"], counts["last"], counts["unsteady"], counts["answer"])


def _order_effect(orders: Mapping[tuple[int, ...], tuple[int, ...]]) -> str:
    """What two verdicts on the same pair have in common."""
    ranks = [(verdict[order[0]], verdict[order[1]]) for order, verdict in orders.items()]
    if len(set(orders.values())) == 1:
        return "tie" if ranks[0][0] == ranks[0][1] else "answer"
    if all(shown_first < shown_last for shown_first, shown_last in ranks):
        return "first"
    return "last" if all(shown_first > shown_last for shown_first, shown_last in ranks) else "unsteady"


def _first_won(judgment: Judgment) -> bool:
    return judgment.verdict[judgment.order[0]] == 1


def _same_in_both_orders(judgments: Sequence[Judgment]) -> list[bool]:
    """For every pair of answers that was shown in both orders, whether the verdicts are the same."""
    return [len(set(orders.values())) == 1 for orders in _both_orders(judgments)]


def _both_orders(judgments: Sequence[Judgment]) -> list[dict[tuple[int, ...], tuple[int, ...]]]:
    """For every pair of answers that was shown in both orders, order -> verdict."""
    verdicts: dict[Any, dict[tuple[int, ...], tuple[int, ...]]] = {}
    for judgment in judgments:
        if len(judgment.models) == 2:
            key = (prompt_key(judgment.prompt), judgment.models, judgment.answers)
            verdicts.setdefault(key, {})[judgment.order] = judgment.verdict
    return [orders for orders in verdicts.values() if len(orders) == 2]


def _share_or_none(values: Sequence[bool]) -> Estimate | None:
    return share_interval([float(value) for value in values]) if values else None


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n} if estimate else None
