"""Intervals: coverage by simulation, edge cases, and what they must agree with."""

from __future__ import annotations

import json
from math import exp, sqrt

import numpy as np
import pytest

from luthier.core.errors import RunError
from luthier.evals.stats import intervals
from luthier.evals.stats.intervals import (
    difference,
    fewest,
    mean_interval,
    ratio_difference,
    ratio_interval,
    share_interval,
)
from luthier.evals.stats.shares import paired_limits, score_limits
from sentences import sentence


def test_means_and_their_difference_by_hand():
    found = difference([1, 2, 3, 4, 5, 6], [2, 4, 3, 5, 5, 8])
    assert (found.before, found.after, found.n) == (3.5, 4.5, 6)
    assert found.difference == pytest.approx(1.0)
    assert found.low < 1.0 < found.high


def test_a_constant_gain_is_no_certainty():
    """Seven gains of 0.5: an eighth may be a loss of 0.5. 7 of 7 are as few as n / (n + z²) = 0.6457, on the scale from -1 to 1
    2 * 0.6457 - 1. Of a mean without spread nothing is known: no interval is better than one without width."""
    found = difference([0.0, 1.1, 2.2, 3.3, 4.0, 5.0, 6.0], [0.5, 1.6, 2.7, 3.8, 4.5, 5.5, 6.5])
    assert (found.difference, found.low, found.high) == pytest.approx((0.5, 0.5 * 0.2914, 0.5), abs=1e-4)
    found = ratio_difference([3.0, 6.0, 9.0] * 4, [2.0, 4.0, 6.0] * 4, [1, 2, 3] * 4)
    assert (found.low, found.high) == pytest.approx((-1.0, -(2 * 12 / 15.8415 - 1)), abs=1e-4)
    assert mean_interval([3.0] * 20).low is None
    assert ratio_interval([3.0, 6.0] * 10, [1, 2] * 10).low is None


def test_ratio_weighs_items_by_their_tokens():
    found = ratio_difference([10, 1], [4, 1], [8, 2])
    assert (found.before, found.after) == (pytest.approx(1.1), pytest.approx(0.5))
    assert found.low is None
    assert found.high is None


def test_six_items_are_the_fewest():
    assert fewest(0.95) == 6
    assert difference([0] * 5, [1] * 5).low is None
    assert 0 < difference([0] * 6, [1] * 6).low < difference([0] * 7, [1] * 7).low < 1.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(bad):
    with pytest.raises(RunError, match=sentence("measured not finite", where="item 2")):
        difference([1, 2, bad, 4, 5, 6], [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("n", [8, 40])
def test_a_95_percent_interval_holds_the_truth_about_that_often(n):
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        before = random.normal(0, 1, n)
        after = before + random.normal(0.3, 0.5, n)
        found = difference(list(before), list(after))
        hits += found.low <= 0.3 <= found.high
    assert 0.91 <= hits / 300 <= 0.985


def test_two_equal_models_are_rarely_called_different():
    random = np.random.default_rng(5)
    wrong = 0
    for _ in range(200):
        scores = random.random((2, 60)) + random.random(60)
        found = difference(list(scores[0]), list(scores[1]))
        wrong += not found.low <= 0 <= found.high
    assert wrong / 200 <= 0.09


@pytest.mark.parametrize(
    ("p", "freedom", "wanted"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.975, 5, 2.5706),
        (0.975, 10, 2.2281),
        (0.975, 39, 2.0227),
        (0.95, 7, 1.8946),
        (0.995, 20, 2.8453),
        (0.975, 100_000, 1.95999),
    ],  # fmt: skip
)
def test_quantiles_of_student_are_those_of_the_tables(p, freedom, wanted):
    assert intervals.student(p, freedom) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(("n", "wanted"), [(8, 0.00574), (20, 0.01588), (100_000, 0.025)])
def test_tails_are_widened_for_few_items(n, wanted):
    """Phi(-sqrt(n / (n-1)) t): 8 items leave out Phi(-1.0690 x 2.3646), 20 items Phi(-1.0260 x 2.0930)."""
    assert intervals.tail(n, 0.95) == pytest.approx(wanted, abs=1e-4)


def test_symmetric_values_have_the_interval_of_student():
    """-3, -1, 1, 3 twice: no skewness, sd sqrt(40 / 7), t(7) = 2.3646, so the mean 0 is known to 2.3646 sqrt(40 / 56)."""
    found = mean_interval([-3.0, -1.0, 1.0, 3.0] * 2)
    assert (found.low, found.high) == (pytest.approx(-2.3646 * sqrt(40 / 56), abs=1e-4), pytest.approx(-found.low))


def test_skewed_values_reach_further_on_their_long_side():
    """0, 1, 2, ..., 6 and 20: mean 41/8, sd 6.4240, g = 2.1086 (unbiased). Hall's end at y = -t / sqrt(8) = -0.8360, from the
    formula in the docstring: k = 3/g ((1 + g (y - g/48))^(1/3) - 1) = -2.7204."""
    values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 20.0]
    mean, spread = np.mean(values), np.std(values, ddof=1)
    g = np.mean((values - mean) ** 3) / np.std(values) ** 3 * sqrt(8 * 7) / 6
    y = -2.3646 / sqrt(8)
    inside = 1 + g * (y - g / 48)
    k = 3 / g * (np.sign(inside) * abs(inside) ** (1 / 3) - 1)
    found = mean_interval(values)
    assert found.high == pytest.approx(mean - spread * k, rel=1e-3)
    assert found.low == pytest.approx(mean + spread * y, rel=1e-3)  # Student's is the wider one here
    assert found.high - found.value > 1.5 * (found.value - found.low)


@pytest.mark.medium
@pytest.mark.parametrize(("sigma", "n"), [(1.0, 16), (0.5, 16), (1.0, 64)])
def test_the_mean_of_skewed_lengths_is_held(sigma, n):
    """Log-normal lengths: the percentiles of drawn means held 86 % of 16 items and 92 % of 64 (sigma 1)."""
    random = np.random.default_rng(11)
    truth = exp(sigma**2 / 2)
    found = [mean_interval(random.lognormal(0, sigma, n).tolist()) for _ in range(600)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.91


def test_changes_of_hardly_any_item_are_too_few_to_tell_unless_their_size_is_known():
    """Five of 32 answers have another length: of the next nobody knows how much. ROUGE-L cannot change by more than 1."""
    lengths = [10.0 + i for i in range(32)]
    changed = [one + (7.0 if i < 5 else 0.0) for i, one in enumerate(lengths)]
    assert difference(lengths, changed).low is None
    assert difference(lengths, [*changed[:5], changed[5] + 3, *changed[6:]]).low is not None
    scores = [i / 40 for i in range(32)]
    found = difference(scores, [one + (0.1 if i < 5 else 0.0) for i, one in enumerate(scores)])
    assert (found.low, found.high) == pytest.approx(score_limits(0.5, 0.0, 32))


def test_values_of_any_two_kinds_are_shares_on_their_own_scale():
    """Rewards of -1 and 1 are wrong and right: twice the change of the share."""
    before, after = [0.0] * 10 + [1.0] * 6, [0.0] * 7 + [1.0] * 9
    plain = difference(before, after)
    scaled = difference([2 * value - 1 for value in before], [2 * value - 1 for value in after])
    assert (scaled.low, scaled.high) == pytest.approx((2 * plain.low, 2 * plain.high))
    assert (plain.low, plain.high) == paired_limits(6, 0, 3, 7)


def test_a_higher_level_is_wider_and_needs_more_items():
    assert [fewest(level) for level in (0.5, 0.9, 0.95, 0.99)] == [2, 5, 6, 8]
    values = list(np.random.default_rng(1).normal(size=40))
    narrow, wide = mean_interval(values, level=0.8), mean_interval(values, level=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_scaled_and_shifted_values_scale_the_interval():
    random = np.random.default_rng(2)
    before, after = random.normal(size=25), random.normal(size=25)
    plain = difference(list(before), list(after))
    moved = difference(list(4 * before + 7), list(4 * after + 7))
    assert (moved.low, moved.high) == pytest.approx((4 * plain.low, 4 * plain.high))
    assert (moved.before, moved.after) == pytest.approx((4 * plain.before + 7, 4 * plain.after + 7))


def test_losses_per_token_of_uneven_items_are_covered():
    """Long items are harder here, so numerator and denominator go together; the truth is E[loss] / E[tokens].

    Tokens are even over 1..40 and the gain per token is 0.01 x tokens: the truth is 0.01 E[t^2] / E[t] = 0.27.
    """
    random = np.random.default_rng(6)
    hits = 0
    for _ in range(300):
        tokens = random.integers(1, 41, 40)
        before = tokens * random.normal(3, 0.5, 40)
        after = before - tokens * random.normal(0.01 * tokens, 0.3)
        found = ratio_difference(list(before), list(after), list(tokens))
        hits += found.low <= -0.27 <= found.high
    assert 0.91 <= hits / 300 <= 0.985


def test_as_dict_is_json():
    told = difference([0.0] * 5, [1.0] * 5).as_dict()
    assert json.loads(json.dumps(told)) == {
        "before": 0.0, "after": 1.0, "difference": 1.0, "low": None, "high": None, "n": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "n", "low", "high"), [(0, 20, 0, 0.1611), (1, 8, 0.6756, 1), (0.5, 6, 0.3048, 0.6952)]
)
def test_equal_values_of_a_share_leave_room_for_what_was_not_seen(value, n, low, high):
    """Wilson's limit of 0 in n is z² / (n + z²), z² = 3.8415: 0.1611 of 20, 0.3244 of 8, 0.3903 of 6, half of it to each side
    where all are ties."""
    found = share_interval([value] * n)
    assert (found.value, found.n) == (value, n)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_a_share_that_was_never_seen_is_no_certainty_before_and_after_either():
    """0 of 16: up to z² / (16 + z²) = 19.4 %. Before and after: as far either way."""
    assert share_interval([0.0] * 16).high == pytest.approx(0.1936, abs=1e-4)
    both = difference([0.0] * 16, [0.0] * 16)
    assert (both.low, both.high) == (pytest.approx(-0.1936, abs=1e-4), pytest.approx(0.1936, abs=1e-4))
    same = difference([0.0, 1.0] * 16, [0.0, 1.0] * 16)
    assert same.low < -0.05 < 0.05 < same.high


def test_five_of_a_share_are_too_few():
    assert share_interval([1.0] * 5).low is None


def test_wins_ties_and_losses_have_the_score_interval():
    """Ties are part of it: 8 wins, 8 ties. Without ties it is Wilson's."""
    found = share_interval([1.0] * 8 + [0.5] * 8)
    low, high = score_limits(8, 0, 16)
    assert (found.low, found.high) == ((1 + low) / 2, (1 + high) / 2)
    assert found.low > 0.5


def test_parts_of_a_share_are_held():
    """True shares from 0 to 1 as `mc2` has them; and where all but a few are alike, as wide as whole ones could be."""
    random = np.random.default_rng(12)
    found = [share_interval(random.beta(2, 3, 20).tolist()) for _ in range(400)]
    assert np.mean([one.low <= 0.4 <= one.high for one in found]) >= 0.92
    few = share_interval([0.25] * 30 + [0.5, 0.75])
    low, high = score_limits(0.75, 0, 32)
    assert (few.low, few.high) == (pytest.approx(0.25 + low), pytest.approx(0.25 + high))
