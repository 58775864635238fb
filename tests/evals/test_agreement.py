"""Krippendorff's alpha against his own example and cases by hand; what sways an annotator."""

from __future__ import annotations

import pytest

from luthier.core.types.examples import Message
from luthier.evals.judging.agreement import alpha, annotator_statistics, outcomes_by_pair, position_bias
from luthier.evals.judging.judgments import Judgment, duels


def krippendorffs_units():
    """Four observers, twelve units, gaps: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", example C."""
    rows = {"A": "1 2 3 3 2 1 4 1 2 . . .", "B": "1 2 3 3 2 2 4 1 2 5 . 3", "C": ". 3 3 3 2 3 4 2 2 5 1 .",
            "D": "1 2 3 3 2 4 4 1 2 5 1 ."}  # fmt: skip
    columns = {name: row.split() for name, row in rows.items()}
    return [{name: values[i] for name, values in columns.items() if values[i] != "."} for i in range(12)]


def test_the_published_example():
    found = alpha(krippendorffs_units())
    assert found.alpha == pytest.approx(0.743, abs=0.0005)
    assert found.units == 11  # the last one has a single value


def test_two_annotators_by_hand():
    """Ten units, nine alike: 9 values x and 11 y, D_o = 1/10, D_e = 1 - (9 x 8 + 11 x 10) / (20 x 19) = 198/380."""
    found = alpha([{"a": p[0], "b": p[1]} for p in ["xx"] * 4 + ["yy"] * 5 + ["xy"]])
    assert found.same == pytest.approx(0.9)
    assert found.alpha == pytest.approx(1 - 38 / 198)


def test_agreement_disagreement_and_what_shows_neither():
    assert alpha([{"a": 1, "b": 1}, {"a": 0, "b": 0}]).alpha == 1
    assert alpha([{"a": 1, "b": 0}, {"a": 0, "b": 1}]).alpha == pytest.approx(-0.5)  # D_o 1, D_e 1 - 4 / 12
    assert alpha([{"a": 1, "b": 1}] * 4).alpha is None
    assert alpha([{"a": 1}, {"b": 1}]) is None


def test_one_annotator_against_the_rest():
    """c always says the opposite of a and b, who agree: pairs with a are half right, pairs with c all wrong."""
    units = [{"a": v, "b": v, "c": 1 - v} for v in (0, 1, 0, 1, 1, 0)]
    assert alpha(units, "a").same == pytest.approx(0.5)
    assert alpha(units, "c").same == 0
    assert alpha(units, "nobody") is None


def judgment(number, verdict, order=(0, 1), annotator="judge", answers=("short", "much longer")):
    return Judgment((Message("user", f"q{number}"),), ("a", "b"), answers, order, verdict, annotator)


def test_habits_by_hand():
    """Eight prompts in both orders: the first six won by what stands first, the last two by b."""
    said = [judgment(i, (1, 2) if order == (0, 1) else (2, 1), order) for i in range(6) for order in ((0, 1), (1, 0))]
    said += [judgment(i, (2, 1), order) for i in (6, 7) for order in ((0, 1), (1, 0))]
    said += [judgment(i, (1, 2), annotator="person") for i in range(2)]
    found = {h.annotator: h for h in annotator_statistics(said, duels(said))}
    judge = found["judge"]
    assert judge.judgments == 16
    assert judge.first.value == (12 + 2) / 16
    assert judge.steady.value == 2 / 8
    assert judge.ties.value == 6 / 8
    assert (judge.longer.value, judge.longer.n) == (1.0, 2)
    assert judge.agreement.same == 0  # ties where the person has a winner
    assert found["person"].steady is None
    assert found["person"].first.value == 1.0
    assert found["person"].as_dict()["first"]["n"] == 2
    assert len(outcomes_by_pair(duels(said))) == 8


def test_a_habit_without_exception_is_no_certainty():
    """Eight pairs, all judged alike in both orders and none a tie: Wilson leaves room for 3.8415 / 11.8415 the other way."""
    said = [judgment(i, (1, 2), order) for i in range(8) for order in ((0, 1), (1, 0))]
    (found,) = annotator_statistics(said, duels(said))
    assert (found.steady.low, found.steady.high) == (pytest.approx(0.6756, abs=1e-4), 1.0)
    assert (found.ties.low, found.ties.high) == (0.0, pytest.approx(0.3244, abs=1e-4))


def placed(i, *verdicts):
    """A pair judged in both orders."""
    return [judgment(i, verdict, order) for verdict, order in zip(verdicts, ((0, 1), (1, 0)), strict=True)]


FIRST, LAST, ONE, TIE = ((1, 2), (2, 1)), ((2, 1), (1, 2)), ((1, 2), (1, 2)), ((1, 1), (1, 1))


@pytest.mark.parametrize(
    ("kinds", "why"),
    [
        ([FIRST] * 5 + [ONE] * 4, "the judge prefers the first answer in 5 of 9 pairs, whatever stands there"),
        ([LAST] * 3 + [ONE] * 2, "the judge prefers the last answer in 3 of 5 pairs, whatever stands there"),
        (
            [FIRST] * 3 + [LAST] * 3 + [ONE] * 2,
            "the judge changes its verdict with the order of the answers in 6 of 8 pairs",
        ),
        (
            [((1, 1), (1, 2))] * 4 + [ONE] * 2,
            "the judge changes its verdict with the order of the answers in 4 of 6 pairs",
        ),
        ([FIRST] * 12 + [TIE] * 20, "the judge prefers the first answer in 12 of 32 pairs, whatever stands there"),
        ([FIRST] * 12 + [ONE] * 20, None),  # place sways it, and the answers decide
        ([FIRST] * 2 + [TIE] * 20, None),  # two pairs show nothing
        ([], None),
    ],
)
def test_a_judge_whose_verdicts_follow_the_place_says_so(kinds, why):
    said = [one for i, kind in enumerate(kinds) for one in placed(i, *kind)]
    assert position_bias(said).reason == why
    assert position_bias(said).pairs == len(kinds)
