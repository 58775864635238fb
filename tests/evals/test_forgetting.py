"""What a model lost of its own answers: numbers by hand, the size in words."""

from __future__ import annotations

import json
from math import exp, log

import pytest
import torch

from luthier.core.errors import RunError
from luthier.evals.forgetting import (
    GENERAL_PROMPTS,
    OwnAnswer,
    answer_style,
    divergence,
    drift,
    forgetting,
    per_token,
)
from luthier.evals.stats.paired import before_after


@pytest.mark.parametrize(
    ("after", "size"),
    [
        (-10.0, "none shown"),
        (-10.5, "small"),
        (-10.99, "small"),
        (-11.01, "moderate"),
        (-14.99, "moderate"),
        (-15.01, "large"),
        (-30.0, "large"),
    ],
)
def test_forgetting_has_a_size_in_words(after, size):
    found = forgetting([(-10.0, 10)] * 8, [(after, 10)] * 8)
    assert found.size == size
    assert found.drift == pytest.approx((-10.0 - after) / 10)
    assert (found.n, found.tokens) == (8, 80)
    if size != "none shown":
        assert f"{exp(-found.drift):.0%}" in found.sentence


def test_the_drift_is_per_token_not_per_answer():
    """Two nats lost on 4 tokens and none on 16: 2/20 a token over all, 2/4 and 0 for each."""
    found = forgetting([(-4.0, 4), (-16.0, 16)], [(-6.0, 4), (-16.0, 16)])
    assert found.drift == pytest.approx(0.1)
    assert found.items == pytest.approx((0.5, 0.0))
    assert (found.low, found.high, found.tokens) == (None, None, 20)


def test_gaining_is_not_forgetting():
    found = forgetting([(-10.0, 10)] * 8, [(-5.0, 10)] * 8)
    assert (found.drift, found.size) == (pytest.approx(-0.5), "none shown")
    assert "-0.50 nats/token" in found.sentence


def test_a_drift_that_may_be_chance_is_not_shown():
    """One answer of eight lost a lot: the mean rises, but eight drawn answers often miss it."""
    before = [(-10.0, 10)] * 8
    found = forgetting(before, [(-30.0, 10)] + [(-10.0, 10)] * 7)
    assert found.drift == pytest.approx(0.25)
    assert found.low <= 0
    assert found.size == "none shown"


def test_the_order_of_the_answers_does_not_turn_the_sign():
    before, after = [(-10.0 - i, 10) for i in range(8)], [(-11.0 - 2 * i, 10) for i in range(8)]
    there, back = forgetting(before, after), forgetting(after, before)
    assert there.drift == pytest.approx(-back.drift)
    assert there.drift > 0


def test_answers_without_tokens_are_left_out_and_broken_numbers_refused():
    assert forgetting([(-1.0, 2), (0.0, 0)] * 6, [(-2.0, 2), (0.0, 0)] * 6).n == 6
    with pytest.raises(RunError):
        forgetting([(-1.0, 2)] * 6, [(float("nan"), 2)] * 6)


def test_as_dict_is_json_with_the_sentence():
    found = forgetting([(-10.0, 10)] * 8, [(-12.0, 10)] * 8)
    told = json.loads(json.dumps(found.as_dict()))
    assert list(told) == ["drift", "low", "high", "n", "tokens", "size", "sentence"]
    assert told["sentence"] == (
        "lost 0.20 nats/token on its own earlier answers: moderate (a token keeps 82% of its probability)"
    )


def test_the_general_prompts_are_sixteen_different_ones():
    assert len(set(GENERAL_PROMPTS)) == 16


def test_the_drift_alone_is_that_of_the_whole():
    before, after = [(-4.0, 4), (-16.0, 16)], [(-6.0, 4), (-17.0, 16)]
    assert drift(before, after) == pytest.approx(3 / 20)
    assert drift(before, after) == pytest.approx(forgetting(before, after).drift)


def test_the_divergence_by_hand():
    """p = (1/2, 1/2), q = (1/4, 3/4): KL(p || q) = 1/2 log 2 + 1/2 log 2/3, KL(q || p) = 1/4 log 1/2 + 3/4 log 3/2."""
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    there, back = 0.5 * log(2) + 0.5 * log(2 / 3), 0.25 * log(0.5) + 0.75 * log(1.5)
    assert divergence(p, q) == pytest.approx(there)
    assert divergence(q, p) == pytest.approx(back)
    assert divergence(torch.cat([p, q]), torch.cat([q, q])) == pytest.approx(there)


def test_a_divergence_per_token_counts_tokens_not_answers():
    found = per_token([(2.0, 4), (0.0, 16), (0.0, 0)])
    assert (found.value, found.n) == (pytest.approx(0.1), 2)
    wide = per_token([(float(i), 10) for i in range(8)])
    assert wide.low < wide.value < wide.high
    assert wide.value == pytest.approx(0.35)


def test_manners_are_rows_of_a_table():
    before = [OwnAnswer((1,), (5, 6), "I cannot help with that.", "stop")] * 4 + [
        OwnAnswer((1,), (5,) * 6, "Yes.", "length")
    ] * 4
    after = [OwnAnswer((1,), (5,), "Yes.", "stop")] * 7 + [
        OwnAnswer((1,), (5,), "Yes.", "stop_string")
    ]  # neither was cut
    refusals, ended, length = before_after(answer_style(before, after))
    assert (refusals["before"], refusals["after"], refusals["unit"]) == (0.5, 0.0, "%")
    assert (ended["before"], ended["after"]) == (0.5, 1.0)
    assert (length["before"], length["after"], length["n"]) == (4.0, 1.0, 8)
    assert length["high"] < 0
