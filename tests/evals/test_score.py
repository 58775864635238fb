"""Scores per item, the table before | after, and what a model forgot."""

from __future__ import annotations

from math import exp

import pytest

from luthier.core.errors import InputError, RunError
from luthier.evals.forgetting import GENERAL_PROMPTS, forgetting
from luthier.evals.score import as_json, loss_row, score, table


def test_scores_keep_the_order_of_items():
    found = score(["yes", "no"], ["yes", "yes"], ["?", "?"], ("exact", "length"))
    assert found == {"exact": [1.0, 0.0], "length": [3.0, 2.0]}
    with pytest.raises(InputError, match="unknown metric 'exat'; did you mean 'exact'"):
        score(["a"], ["a"], [""], ("exat",))


def test_the_table_and_its_json():
    rows = table({"exact": [0.0] * 8}, {"exact": [1.0] * 8})
    assert as_json(rows) == {"exact": {"before": 0.0, "after": 1.0, "difference": 1.0, "low": 1.0, "high": 1.0, "n": 8}}
    assert (rows[0]["higher_is_better"], rows[0]["unit"]) == (True, "%")


def test_the_loss_row_is_per_token():
    row = loss_row([20.0] * 6, [10.0] * 6, [10] * 6)
    assert (row["name"], row["before"], row["after"], row["higher_is_better"]) == ("loss", 2.0, 1.0, False)


@pytest.mark.parametrize(
    ("after", "size"), [(-10.0, "none shown"), (-10.5, "small"), (-12.0, "moderate"), (-30.0, "large")]
)
def test_forgetting_has_a_size_in_words(after, size):
    found = forgetting([(-10.0, 10)] * 8, [(after, 10)] * 8)
    assert found.size == size
    assert found.drift == pytest.approx((-10.0 - after) / 10)
    assert (found.n, found.tokens) == (8, 80)
    if size != "none shown":
        assert f"{exp(-found.drift):.0%}" in found.sentence


def test_gaining_is_not_forgetting():
    assert forgetting([(-10.0, 10)] * 8, [(-5.0, 10)] * 8).size == "none shown"


def test_answers_without_tokens_are_left_out_and_broken_numbers_refused():
    assert forgetting([(-1.0, 2), (0.0, 0)] * 6, [(-2.0, 2), (0.0, 0)] * 6).n == 6
    with pytest.raises(RunError):
        forgetting([(-1.0, 2)] * 6, [(float("nan"), 2)] * 6)


def test_the_general_prompts_are_sixteen_different_ones():
    assert len(set(GENERAL_PROMPTS)) == 16
