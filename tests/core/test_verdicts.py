"""One place words what a difference shows."""

from __future__ import annotations

import pytest

from luthier.core.verdicts import verdict


@pytest.mark.parametrize(
    ("low", "high", "higher", "words"),
    [
        (0.1, 0.2, True, "better"), (-0.2, -0.1, True, "worse"), (-0.2, -0.1, False, "better"), (0.1, 0.2, False, "worse"),
        (0.1, 0.2, None, "higher"), (-0.2, -0.1, None, "lower"), (-0.1, 0.2, True, "no difference shown"),
        (0.0, 0.1, True, "no difference shown"), (-0.1, 0.0, False, "no difference shown"), (None, None, True, "too few to tell"),
    ],
)  # fmt: skip
def test_an_interval_in_words(low, high, higher, words):
    difference = 0.1 if low is None else (low + high) / 2
    assert verdict(difference, low, high, higher) == words


def test_a_test_that_shows_nothing_overrules_the_interval():
    assert verdict(0.15, 0.1, 0.2, True, corrected=0.06) == "no difference shown"
    assert verdict(0.15, 0.1, 0.2, True, corrected=0.05) == "better"


def test_no_change_at_all_shows_no_difference_even_without_an_interval():
    assert verdict(0.0, None, None, True) == "no difference shown"
