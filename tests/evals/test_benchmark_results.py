"""Scores by hand."""

from __future__ import annotations

from math import exp, log

import pytest

from luthier.evals.benchmarks import results
from luthier.evals.benchmarks.measure import chosen, share_of
from luthier.evals.benchmarks.tasks import TASKS, SuiteColumn
from luthier.evals.stats.intervals import Estimate


def test_means_and_their_intervals():
    records = [{"doc": i, "acc": float(i % 4 == 0), "acc_norm": 1.0} for i in range(40)]
    found = results.summary(TASKS["arc_easy"], records)
    assert list(found) == ["acc_norm", "acc"]
    assert found["acc"].value == 0.25 and found["acc"].n == 40
    assert found["acc"].low < 0.25 < found["acc"].high
    assert 0.08 < found["acc"].low < 0.15 and 0.35 < found["acc"].high < 0.42  # about 0.25 -+ 2 * 0.068
    assert (found["acc_norm"].low, found["acc_norm"].high) == (pytest.approx(40 / 43.8415), 1.0)  # n / (n + z²)


def test_too_few_documents_have_no_interval():
    found = results.summary(TASKS["boolq"], [{"doc": i, "acc": 1.0} for i in range(5)])
    assert (found["acc"].low, found["acc"].high) == (None, None)


def test_mmlu_is_weighted_by_size_and_the_leaderboard_by_subject():
    records = [{"group": "a", "acc": 1.0}] * 10 + [{"group": "b", "acc": 0.0}] * 30
    found = results.summary(TASKS["mmlu"], records)
    assert found["acc"].value == 0.25
    assert found["acc_subjects"].value == pytest.approx(0.5)
    assert found["acc_subjects"].n == 40
    parts = results.by_group(TASKS["mmlu"], records)
    assert {name: part["acc"].value for name, part in parts.items()} == {"a": 1.0, "b": 0.0}
    assert list(parts["a"]) == ["acc"]


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_wrong_or_all_right_is_no_certainty(right):
    """20 documents leave room for 3.8415 / 23.8415 = 16 % the other way. The mean of subjects of 5 and 15 is worth that of
    1 / (5 / 10² + 15 / 30²) = 15: 3.8415 / 18.8415 = 20 %."""
    records = [{"group": "ab"[i % 4 == 0], "acc": right} for i in range(20)]
    found = results.summary(TASKS["mmlu"], records)
    for name, room in (("acc", 0.1611), ("acc_subjects", 0.2039)):
        low, high = (0.0, room) if right == 0 else (1 - room, 1.0)
        assert found[name].value == right
        assert (found[name].low, found[name].high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    suite = results.average([SuiteColumn("mmlu", "MMLU", 0, "acc")] * 4, {"mmlu": found})
    assert suite.high - suite.low == pytest.approx(0.1611 / 2, abs=1e-4)  # four independent ones: half of one


def test_perplexities():
    records = [{"logp": -10 * log(3), "tokens": 5, "words": 4, "bytes": 20}] * 8
    records += [{"logp": -2 * log(3), "tokens": 1, "words": 2, "bytes": 4}] * 8
    found = results.summary(TASKS["wikitext"], records)  # 96 log 3 nats, 48 tokens, 48 words, 192 bytes
    assert found["token_perplexity"].value == pytest.approx(9)
    assert found["word_perplexity"].value == pytest.approx(9)
    assert found["byte_perplexity"].value == pytest.approx(3**0.5)
    assert found["bits_per_byte"].value == pytest.approx(log(3) / log(2) / 2)
    assert found["token_perplexity"].low is None  # 9 in every document: nothing says how far another would be
    assert found["word_perplexity"].low < 9 < found["word_perplexity"].high
    words = results.summary(TASKS["lambada"], [{"logp": -1.0, "acc": 0.0}] * 6 + [{"logp": -3.0, "acc": 1.0}] * 6)
    assert words["perplexity"].value == pytest.approx(exp(2))


def test_a_perplexity_that_no_number_holds():
    """exp(800) is none, and the other perplexities stay."""
    found = results.summary(TASKS["wikitext"], [{"logp": -800.0, "tokens": 400, "words": 1, "bytes": 800}] * 6)
    assert found["token_perplexity"].value == pytest.approx(exp(2))
    told = results.as_json(found)
    assert told["word_perplexity"] == {"value": None, "low": None, "high": None, "n": 6}
    assert told["byte_perplexity"]["value"] == pytest.approx(exp(1))


def test_the_average_of_a_suite():
    scores = {"x": {"acc": Estimate(0.5, 0.2, 0.9, 10)}, "y": {"acc": Estimate(0.7, 0.3, 1.0, 20)}}
    entries = [SuiteColumn("x", "X", 0, "acc"), SuiteColumn("y", "Y", 0, "acc")]
    found = results.average(entries, scores)
    assert found.value == pytest.approx(0.6) and found.n == 30
    assert found.low == pytest.approx(0.6 - (0.3**2 + 0.4**2) ** 0.5 / 2)
    assert found.high == pytest.approx(0.6 + (0.4**2 + 0.3**2) ** 0.5 / 2)
    scores["y"]["acc"] = Estimate(0.7, None, None, 3)
    assert results.average(entries, scores).low is None


def test_the_true_share_does_not_underflow():
    assert share_of([log(0.2), log(0.2), log(0.1)], [True, False, True]) == pytest.approx(0.6)
    assert share_of([-2000.0, -2000.0], [True, False]) == 0.5


def test_a_limit_without_groups():
    from luthier.evals.benchmarks.documents import Document

    assert chosen([Document(("q",), ("a",))] * 5, 3) == [0, 1, 2]
    assert chosen([Document(("q",), ("a",))] * 2, None) == [0, 1]
