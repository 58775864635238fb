"""Metrics of a whole set as one number an item: their mean is the set's value, their spread its spread."""

from __future__ import annotations

import random

import numpy as np
import pytest

from luthier.evals.metrics.answer_metrics import corpus_bleu, macro_f1
from luthier.evals.metrics.measure_answers import score

SAID = ["the cat sat on the mat", "a dog ran by the red tree", "one two three", "yes it is what it is"]
WANTED = ["the cat sat on a mat", "the dog ran by a red tree today", "one two", "no it is not what it is"]


def test_bleu_is_sacrebleus():
    from sacrebleu.metrics import BLEU

    assert np.mean(corpus_bleu(SAID, WANTED)) == pytest.approx(BLEU().corpus_score(SAID, [WANTED]).score)
    longer = [text + " and more and more" for text in WANTED]
    assert np.mean(corpus_bleu(SAID, longer)) == pytest.approx(BLEU().corpus_score(SAID, [longer]).score)


def test_bleu_of_sets_without_any_match():
    from sacrebleu.metrics import BLEU

    for said, wanted in ((["x y"], ["a b"]), ([""], ["a b"]), (["the cat x"], ["the cat y"])):
        assert np.mean(corpus_bleu(said, wanted)) == pytest.approx(BLEU().corpus_score(said, [wanted]).score)


def test_macro_f1_by_hand():
    """a: TP 2, FP 1, FN 1 -> 4/6. b: TP 1, FP 0, FN 1 -> 2/3. c: TP 0 -> 0. 'none' is no label."""
    said = ["a", "a", " b ", "a", "none", "b"[:0]]
    wanted = ["a", "a", "b", "b", "a", "c"]
    assert np.mean(macro_f1(said, wanted)) == pytest.approx((4 / 6 + 2 / 3 + 0) / 3)


def test_a_number_is_what_counting_the_item_more_does():
    """The set two hundred times over, and one item once more: v moves by x_i - v over n times two hundred."""
    labels_said, labels_wanted = ["a", "a", "b", "c", "b", "x"], ["a", "b", "b", "c", "c", "a"]
    for function, said, wanted in ((macro_f1, labels_said, labels_wanted), (corpus_bleu, SAID, WANTED)):
        numbers = function(said, wanted)
        value = np.mean(numbers)
        for i, number in enumerate(numbers):
            many = [*said * 200, said[i]], [*wanted * 200, wanted[i]]
            moved = np.mean(function(*many)) - value
            assert moved * len(said) * 200 == pytest.approx(number - value, rel=2e-2, abs=1e-2)


def test_the_spread_is_that_of_sets_drawn_again():
    draw = random.Random(0)
    wanted = [draw.choice("aaaabbc") for _ in range(150)]
    said = [w if draw.random() < 0.7 else draw.choice("abc") for w in wanted]
    numbers = macro_f1(said, wanted)
    means = []
    for _ in range(400):
        picked = [draw.randrange(150) for _ in range(150)]
        means.append(np.mean(macro_f1([said[i] for i in picked], [wanted[i] for i in picked])))
    assert np.std(numbers) / 150**0.5 == pytest.approx(np.std(means), rel=0.12)


def test_score_asks_for_the_set():
    found = score(["a", "b"], ["a", "a"], ["", ""], ["macro_f1", "accuracy"])
    assert np.mean(found["macro_f1"]) == pytest.approx(2 / 3)
    assert found["accuracy"] == [1.0, 0.0]
    assert score([], [], [], ["macro_f1", "bleu"]) == {"macro_f1": [], "bleu": []}
