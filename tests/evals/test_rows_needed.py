"""How many rows show a difference: by hand, and against the exact test on drawn answers."""

from __future__ import annotations

import numpy as np
import pytest

from luthier.evals.stats.significance import difference_shown, mcnemar, rows_needed


def test_by_hand():
    """p 0.2, d 0.05: (1.95996 * 0.447214 + 0.841621 * 0.444410)^2 / 0.0025 = (0.876521 + 0.374024)^2 / 0.0025 = 625.55."""
    assert rows_needed(0.05, 0.2) == 626
    assert rows_needed(0.1, 0.2) == 155
    assert rows_needed(0.1, 0.1) == 77


def test_the_difference_shown_is_the_inverse():
    assert difference_shown(626, 0.2) == 0.05
    assert difference_shown(625, 0.2) == 0.051
    assert difference_shown(20, 0.1) is None


@pytest.mark.parametrize(("difference", "changed"), [(0.1, 0.2), (0.1, 0.4)])
def test_so_many_rows_show_it_about_four_times_in_five(difference, changed):
    """By the exact test, which is a little more careful than the formula's."""
    draw, n, hits = np.random.default_rng(0), rows_needed(difference, changed), 0
    for _ in range(600):
        won, lost, _ = draw.multinomial(n, [(changed + difference) / 2, (changed - difference) / 2, 1 - changed])
        hits += mcnemar([0.0] * won + [1.0] * lost, [1.0] * won + [0.0] * lost) <= 0.05
    assert 0.7 <= hits / 600 <= 0.86
