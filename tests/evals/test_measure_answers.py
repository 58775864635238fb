"""Scores per item, and the table before | after."""

from __future__ import annotations

import pytest

from luthier.core.errors import InputError
from luthier.evals.metrics.measure_answers import about_item, as_json, loss_question, score, table
from luthier.evals.stats.paired import before_after
from sentences import sentence


def test_scores_keep_the_order_of_items():
    found = score(["yes", "no"], ["yes", "yes"], ["?", "?"], ("exact", "length"))
    assert found == {"exact": [1.0, 0.0], "length": [3.0, 2.0]}
    with pytest.raises(
        InputError, match=sentence("unknown name", kind="metric", name="exat", fix="did you mean 'exact'?")
    ):
        score(["a"], ["a"], [""], ("exat",))


def test_an_answer_that_was_broken_off_keeps_no_form():
    """Nobody knows how it would have gone on; what it says so far counts all the same."""
    found = score(["a b", "a b"], ["a b", "a b"], ["", ""], ("one_line", "exact"), ("stop", "length"))
    assert found == {"one_line": [1.0, 0.0], "exact": [1.0, 1.0]}
    assert score(["a b"], ["a b"], [""], ("one_line",)) == {"one_line": [1.0]}  # records from before that was kept


def loss_row(before, after, units):
    (row,) = before_after([loss_question(before, after, units)])
    return row


def test_the_table_and_its_json():
    """8 of 8 from 0 of 8: Wilson's limits leave z² / (8 + z²) = 0.3244 of each, at a right angle; p = 2 / 2^8."""
    rows = table({"exact": [0.0] * 8}, {"exact": [1.0] * 8})
    found = as_json(rows)["exact"]
    assert (found["low"], found["high"]) == (pytest.approx(1 - 0.3244 * 2**0.5, abs=1e-4), 1.0)
    assert {key: found[key] for key in ("before", "after", "difference", "n", "p", "corrected", "verdict")} == {
        "before": 0.0, "after": 1.0, "difference": 1.0, "n": 8, "p": 2 / 2**8, "corrected": 2 / 2**8, "verdict": "better",
    }  # fmt: skip
    assert (rows[0]["higher_is_better"], rows[0]["unit"]) == (True, "%")


def test_a_table_is_corrected_for_its_rows():
    """Each alone has p = 2 / 2^7 = 0.016; four rows ask for 0.0125 of the first."""
    alone = table({"exact": [0.0] * 7}, {"exact": [1.0] * 7})
    assert alone[0]["verdict"] == "better"
    names = ("exact", "accuracy", "one_line", "chrf")
    rows = table({name: [0.0] * 7 for name in names}, {name: [1.0] * 7 for name in names})
    assert [row["corrected"] for row in rows] == [4 * 2 / 2**7] * 4
    assert {row["verdict"] for row in rows} == {"too few to tell"}  # no seven items could show it among four rows


def test_the_loss_row_is_per_token():
    row = loss_row([20.0] * 6, [10.0] * 6, [10] * 6)
    assert (row["name"], row["before"], row["after"], row["higher_is_better"]) == ("loss", 2.0, 1.0, False)


def test_loss_rows_weigh_items_by_tokens():
    """(1 + 27) / (2 + 8) before and (1 + 9) / 10 after; items of 0.5 and 3.4 nats a token."""
    row = loss_row([1.0, 27.0], [1.0, 9.0], [2, 8])
    assert (row["before"], row["after"], row["difference"]) == pytest.approx((2.8, 1.0, -1.8))
    assert (row["low"], row["high"], row["n"]) == (None, None, 2)


def test_rows_say_all_that_a_table_shows():
    keys = [
        "name", "title", "unit", "top", "higher_is_better", "before", "after", "difference", "low", "high", "n", "test", "p",
        "corrected", "verdict",
    ]  # fmt: skip
    assert list(loss_row([1.0], [1.0], [1])) == keys
    rows = table({"length": [3.0] * 7, "chrf": [10.0] * 7}, {"chrf": [20.0] * 7, "length": [4.0] * 7})
    assert [list(row) for row in rows] == [keys, keys]
    assert [(row["name"], row["difference"]) for row in rows] == [("length", 1.0), ("chrf", 10.0)]


def test_items_are_paired():
    """Items far apart, each a little better: shown, because every item is compared with itself."""
    before = [0.1 * i for i in range(10)]
    gains = [0.01, 0.011] * 5
    (row,) = table({"rouge_l": before}, {"rouge_l": [value + gain for value, gain in zip(before, gains, strict=True)]})
    assert 0.0095 < row["low"] < row["difference"] == pytest.approx(0.0105)
    (row,) = table({"rouge_l": before}, {"rouge_l": [value + 0.01 for value in reversed(before)]})
    assert row["low"] < 0 < row["high"]


def test_accuracy_of_answers_is_not_that_of_a_preference():
    """Both are called accuracy: the metric of labels, and the share of pairs that a reward model has right."""
    (labels,) = table({"accuracy": [0.0] * 8}, {"accuracy": [1.0] * 8})
    assert labels["title"] == "accuracy"
    assert about_item("accuracy")["title"] == "better answer preferred"
    assert about_item("reward/exact")["title"] == "reward: exact"
