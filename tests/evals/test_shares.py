"""Limits of shares: by hand, against each other, and how often they hold the truth, exactly."""

from __future__ import annotations

import importlib.util
from math import comb, log
from pathlib import Path

import pytest

from luthier.evals.stats.shares import paired_limits, score_limits, share_limits, wilson

BENCH = Path(__file__).parents[2] / "bench" / "coverage.py"


@pytest.fixture(scope="module")
def coverage():
    """The script that prints the table of docs/compare.md."""
    spec = importlib.util.spec_from_file_location("coverage_bench", BENCH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_wilsons_limits_by_hand():
    """8 of 10 at z = 1.96: (0.8 + 0.19208 ± 1.96 sqrt(0.016 + 0.009604)) / 1.38416."""
    assert wilson(0.8, 10, 1.96) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert share_limits(8, 16) == pytest.approx(wilson(0.5, 16, 1.959964))


def test_the_limit_of_a_rare_event_is_that_of_a_poisson_mean():
    """One seen of 32: 1 - exp(-l) = 0.05 at l = 0.0513. None: up to z² / (32 + z²)."""
    assert share_limits(1, 32)[0] == pytest.approx(-log(0.95) / 32)
    assert share_limits(31, 32)[1] == pytest.approx(1 + log(0.95) / 32)
    assert share_limits(0, 32) == (0.0, pytest.approx(3.8415 / 35.8415, abs=1e-5))


def test_without_ties_the_score_limits_are_wilsons():
    low, high = wilson(12 / 16, 16, 1.959964)
    assert score_limits(12, 4, 16) == pytest.approx((2 * low - 1, 2 * high - 1), abs=1e-6)


def test_where_nothing_moved_the_score_limits_are_what_could_go_unseen():
    """b = c = 0: D is rejected when n D² > z² D (1 - D), so the limit is z² / (n + z²)."""
    assert score_limits(0, 0, 16) == pytest.approx((-0.1936, 0.1936), abs=1e-4)


def test_limits_turn_with_the_question():
    low, high = paired_limits(3, 2, 7, 20)
    assert paired_limits(3, 7, 2, 20) == pytest.approx((-high, -low))
    assert paired_limits(20, 7, 2, 3) == pytest.approx((-high, -low))
    low, high = score_limits(7, 2, 32)
    assert score_limits(2, 7, 32) == pytest.approx((-high, -low), abs=1e-9)


def test_newcombes_limits_by_hand():
    """12 both, 2 lost, 6 gained, 12 neither of 32: 14/32 before, 18/32 after. Wilson's limits (z² = 3.8415) are 0.2817 to 0.6067
    and 0.3933 to 0.7183, so 0.1692 and 0.1558 are left on their sides. phi = (12 * 12 - 2 * 6 - 24) / (14 * 18) = 0.42857, and
    both reaches are a sqrt(2 (1 - phi)) with a = 0.1692, 0.1558."""
    low, high = paired_limits(12, 2, 6, 12)
    assert low == pytest.approx(0.125 - 0.1692 * (2 * (1 - 0.42857)) ** 0.5, abs=1e-4)
    assert high == pytest.approx(0.125 + 0.1558 * (2 * (1 - 0.42857)) ** 0.5, abs=1e-4)


@pytest.mark.parametrize("n", [8, 16, 32])
def test_changes_of_shares_are_held_in_every_cell_and_no_wider_than_asked(coverage, n):
    """Exact, over 144 cells: 93 % or more, and at most 1.15 times the width of Newcombe's own."""
    for covered, wide, cell in coverage.paired(n, seed=0, draws=0):
        assert covered >= 0.93, cell
        assert wide <= 1.15, cell


@pytest.mark.parametrize("moved", [0.04, 0.06, 0.08, 0.1])
def test_a_change_of_hardly_any_item_is_held_too(moved):
    """Half right, and nothing but gains: with Newcombe's own correction 32 items cover 90 %."""
    n, held, his = 32, 0.0, 0.0
    for gained in range(n + 1):
        for both in range(n + 1 - gained):
            ways = comb(n, gained) * comb(n - gained, both)
            chance = ways * moved**gained * 0.5**both * (0.5 - moved) ** (n - gained - both)
            for correction in (0.75, 0.5):
                low, high = paired_limits(both, 0, gained, n - gained - both, correction=correction)
                inside = low <= moved <= high
                held, his = (held + chance * inside, his) if correction == 0.75 else (held, his + chance * inside)
    assert held >= 0.93
    assert his < held or moved == 0.04


@pytest.mark.parametrize("n", [8, 32, 256])
@pytest.mark.parametrize("share", [0.3, 0.1, 0.05, 0.02, 0.005])
def test_one_share_is_held(coverage, n, share):
    """Wilson's own limits hold 85 % at 0.005 of 32 items, and at 0.02 of 8."""
    assert coverage.one(n, share) >= 0.93


def test_wins_and_losses_with_ties_are_held():
    """Exact: 30 % wins, 20 % losses, the rest ties; and hardly any but ties."""
    for won, lost in ((0.3, 0.2), (0.05, 0.02), (0.6, 0.4), (0.8, 0.1)):
        n, held = 20, 0.0
        for wins in range(n + 1):
            for losses in range(n + 1 - wins):
                low, high = score_limits(wins, losses, n)
                ways = comb(n, wins) * comb(n - wins, losses)
                chance = ways * won**wins * lost**losses * max(0.0, 1 - won - lost) ** (n - wins - losses)
                held += chance * (low - 1e-9 <= won - lost <= high + 1e-9)
        assert held >= 0.93, (won, lost)
