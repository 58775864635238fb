"""Calibration and correlation by hand."""

from __future__ import annotations

import math

import pytest

from luthier.evals.stats.calibration import correlation, expected_calibration_error


def test_calibration_error_by_hand():
    """Three pairs at d = log 3, so a chance of 3/4, of which two are won; one tie at 1/2 counts half: no error there."""
    d = math.log(3)
    assert expected_calibration_error([d, d, -d, 0.0]) == pytest.approx(abs(2 - 3 * 0.75) / 4)


def test_a_sure_and_wrong_model_has_the_largest_error():
    assert expected_calibration_error([-50.0] * 5) == pytest.approx(1.0)
    assert expected_calibration_error([50.0] * 5) == pytest.approx(0.0)


def test_a_model_that_says_what_it_knows_is_calibrated():
    d = math.log(4)  # a chance of 4/5, won four times of five
    assert expected_calibration_error([d, d, d, d, -d]) == pytest.approx(0.0)


def test_correlation():
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert correlation([1, 2, 3, 4], [1, -1, -1, 1]) == pytest.approx(0.0)
    assert correlation([1, 1], [1, 2]) is None
