"""Tests of difference against p-values by hand and known tables."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from luthier.evals.stats.significance import holm, items_needed, mcnemar, reach, sign_flip


def flips(gained, lost, same=5):
    return [0] * gained + [1] * lost + [1] * same, [1] * gained + [0] * lost + [1] * same


@pytest.mark.parametrize(
    ("gained", "lost", "wanted"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (6, 0, 2 / 64), (8, 2, 2 * (1 + 10 + 45) / 1024), (5, 5, 1.0)],
)
def test_mcnemar_counts_ways(gained, lost, wanted):
    assert mcnemar(*flips(gained, lost)) == pytest.approx(wanted)
    assert mcnemar(*flips(lost, gained)) == pytest.approx(wanted)


def test_mcnemar_of_many_items_is_near_the_normal():
    assert mcnemar(*flips(1200, 1050)) == pytest.approx(2 * (1 - NormalDist().cdf(149 / 2250**0.5)), rel=0.01)


def test_signs_by_hand():
    """1, 2, 3: of 8 ways only +++ and --- reach 6. 1, 1, -1: every way is 1 or more. Zeros add nothing."""
    assert sign_flip([1, 2, 3]) == 2 / 8
    assert sign_flip([1, 1, -1]) == 1.0
    assert sign_flip([0, 1, 2, 0, 3]) == 2 / 8
    assert sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([0.1] * 3 + [0.3]) == 2 / 16


def test_random_signs_agree_with_all_signs(monkeypatch):
    values = list(np.random.default_rng(0).normal(0.4, 1, 14))
    exact = sign_flip(values)
    monkeypatch.setattr("luthier.evals.stats.significance.EXACT", 3)
    assert sign_flip(values, rounds=40_000) == pytest.approx(exact, abs=0.008)
    assert sign_flip([1.0] * 40) == pytest.approx(1 / 10_001)


def test_signs_of_0_1_items_agree_with_mcnemar():
    before, after = flips(9, 2)
    assert sign_flip([b - a for a, b in zip(before, after, strict=True)]) == pytest.approx(mcnemar(before, after))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_power_by_hand():
    """z(0.975) + z(0.8) = 2.8016; a difference of half a standard deviation takes (2.8016 / 0.5)^2 = 31.4 items."""
    assert reach() == pytest.approx(2.8016, abs=1e-3)
    assert items_needed(0.5, 1.0) == 32
    assert items_needed(-0.5, 1.0, tests=10) == 54  # z(0.9975) + z(0.8) = 2.8070 + 0.8416
    assert items_needed(0.0, 1.0) is None
    assert items_needed(0.5, 1.0, fixed=0.25 / 2.8016**2 / 2) == 63
    assert items_needed(0.5, 1.0, fixed=0.04) is None


def test_as_many_items_as_are_needed_show_the_difference_in_four_of_five_samples():
    random = np.random.default_rng(4)
    n = items_needed(0.3, 1.0)
    assert n is not None
    shown = sum(sign_flip(list(random.normal(0.3, 1, n)), seed=i, rounds=400) <= 0.05 for i in range(300))
    assert 0.73 <= shown / 300 <= 0.87
