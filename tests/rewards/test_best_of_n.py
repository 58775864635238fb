"""The best of several: unbiased, and which answers teach."""

from __future__ import annotations

from itertools import combinations
from statistics import mean

import pytest

from luthier.rewards.best_of_n import best, expected_best, ranks, sizes, worst


def test_by_hand():
    assert expected_best([0, 0, 1], 1) == pytest.approx(1 / 3)
    assert expected_best([0, 0, 1], 2) == pytest.approx(2 / 3)  # two of the three pairs hold the 1
    assert expected_best([0, 0, 1], 3) == 1


@pytest.mark.parametrize("totals", [[3.0, -1.0, 2.0, 2.0, 0.5, -7.0], [1.0], [0.0, 0.0]])
def test_it_is_the_mean_over_all_subsets(totals):
    for k in range(1, len(totals) + 1):
        wanted = mean(max(some) for some in combinations(totals, k))
        assert expected_best(totals, k) == pytest.approx(wanted)


@pytest.mark.medium
def test_many_answers_do_not_overflow():
    assert expected_best([float(i) for i in range(1, 2001)], 1000) == pytest.approx(1000 / 1001 * 2001)


def test_the_sizes_of_the_curve():
    assert [sizes(n) for n in (1, 2, 6, 8)] == [(1,), (1, 2), (1, 2, 4, 6), (1, 2, 4, 8)]


def test_best_worst_and_ranks():
    totals = [1.0, 3.0, 0.0, 3.0, 0.0]
    assert best(totals, [True] * 5) == best(totals, [False] * 5) == 1
    assert best(totals, [True, False, True, True, True]) == 3  # of equal ones, one that ended
    assert worst(totals) == 2
    assert ranks(totals) == (2, 1, 3, 1, 3)
