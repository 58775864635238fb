"""Intervals: coverage by simulation, edge cases, and what they must agree with."""

from __future__ import annotations

import numpy as np
import pytest

from luthier.core.errors import RunError
from luthier.evals.intervals import difference, fewest, mean_interval, ratio_difference


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
