"""Intervals: coverage by simulation, edge cases, and what they must agree with."""

from __future__ import annotations

import json
from itertools import accumulate
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
import pytest

from luthier.core.errors import RunError
from luthier.evals import intervals
from luthier.evals.intervals import difference, fewest, mean_interval, ratio_difference, share_interval


def test_means_and_their_difference_by_hand():
    found = difference([1, 2, 3, 4, 5, 6], [2, 4, 3, 5, 5, 8])
    assert (found.before, found.after, found.n) == (3.5, 4.5, 6)
    assert found.difference == pytest.approx(1.0)
    assert found.low < 1.0 < found.high


def test_a_constant_gain_has_no_spread():
    found = difference([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5])
    assert found.low == found.high == pytest.approx(0.5)


def test_ratio_weighs_items_by_their_tokens():
    found = ratio_difference([10, 1], [4, 1], [8, 2])
    assert (found.before, found.after) == (pytest.approx(1.1), pytest.approx(0.5))
    assert found.low is None
    assert found.high is None


def test_six_items_are_the_fewest():
    assert fewest(0.95) == 6
    assert difference([0] * 5, [1] * 5).low is None
    assert difference([0] * 6, [1] * 6).low == 1.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(bad):
    with pytest.raises(RunError, match="item 2"):
        difference([1, 2, bad, 4, 5, 6], [1, 2, 3, 4, 5, 6])


def test_the_same_seed_gives_the_same_interval():
    values = list(np.random.default_rng(0).normal(size=30))
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


@pytest.mark.parametrize("n", [8, 40])
def test_a_95_percent_interval_holds_the_truth_about_that_often(n):
    random = np.random.default_rng(3)
    hits = 0
    for i in range(300):
        before = random.normal(0, 1, n)
        after = before + random.normal(0.3, 0.5, n)
        found = difference(list(before), list(after), seed=i, rounds=1000)
        hits += found.low <= 0.3 <= found.high
    assert 0.91 <= hits / 300 <= 0.985


def test_two_equal_models_are_rarely_called_different():
    random = np.random.default_rng(5)
    wrong = 0
    for i in range(200):
        scores = random.random((2, 60)) + random.random(60)
        found = difference(list(scores[0]), list(scores[1]), seed=i, rounds=1000)
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


@pytest.mark.parametrize(("n", "t"), [(8, 2.3646), (30, 2.0452), (100, 1.9842)])
def test_bounds_are_the_widened_quantiles_of_the_binomial(n, t):
    """Half zeros, half ones: drawn sums are Binomial(n, 1/2), whose quantiles are known exactly."""
    found = mean_interval([0.0, 1.0] * (n // 2), seed=2)
    tail = NormalDist().cdf(-sqrt(n / (n - 1)) * t)
    below = list(accumulate(comb(n, k) / 2**n for k in range(n + 1)))
    lowest = round(found.low * n)
    chance = 4 * sqrt(tail / 10_000)
    assert found.low * n == pytest.approx(lowest)
    assert below[lowest] >= tail - chance
    assert lowest == 0 or below[lowest - 1] <= tail + chance
    assert found.low + found.high == pytest.approx(1.0, abs=1.001 / n)
    assert found.value == 0.5


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


def test_the_interval_does_not_depend_on_how_many_draws_fit_in_memory(monkeypatch):
    values = list(np.random.default_rng(4).normal(size=20))
    whole = mean_interval(values, rounds=501)
    monkeypatch.setattr(intervals, "DRAWS_AT_ONCE", 70)  # three rounds at a time
    assert mean_interval(values, rounds=501) == whole


def test_losses_per_token_of_uneven_items_are_covered():
    """Long items are harder here, so numerator and denominator go together; the truth is E[loss] / E[tokens].

    Tokens are even over 1..40 and the gain per token is 0.01 x tokens: the truth is 0.01 E[t^2] / E[t] = 0.27.
    """
    random = np.random.default_rng(6)
    hits = 0
    for i in range(300):
        tokens = random.integers(1, 41, 40)
        before = tokens * random.normal(3, 0.5, 40)
        after = before - tokens * random.normal(0.01 * tokens, 0.3)
        found = ratio_difference(list(before), list(after), list(tokens), seed=i, rounds=1000)
        hits += found.low <= -0.27 <= found.high
    assert 0.91 <= hits / 300 <= 0.985


def test_as_dict_is_json():
    told = difference([0.0] * 6, [1.0] * 6).as_dict()
    assert json.loads(json.dumps(told)) == {
        "before": 0.0, "after": 1.0, "difference": 1.0, "low": 1.0, "high": 1.0, "n": 6,
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


def test_shares_that_differ_are_drawn_again_and_five_are_too_few():
    assert share_interval([0.0, 1.0] * 10, seed=3) == mean_interval([0.0, 1.0] * 10, seed=3)
    assert share_interval([1.0] * 5).low is None
    assert mean_interval([3.0] * 20).high == 3.0  # of what is no share, nothing is known beyond what was seen


def test_wilsons_limits_by_hand():
    """8 of 10 at z = 1.96: (0.8 + 0.19208 ± 1.96 sqrt(0.016 + 0.009604)) / 1.38416."""
    assert intervals.wilson(0.8, 10, 1.96) == pytest.approx((0.4902, 0.9433), abs=1e-4)
