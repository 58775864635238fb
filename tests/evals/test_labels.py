"""Labels in answers: case, sentences, labels inside labels, several labels, and what denies one."""

from __future__ import annotations

import pytest

from luthier.evals.metrics.answer_metrics import METRICS, auto
from luthier.evals.metrics.labels import all_right, commonest, is_first_line, is_set, is_several, named
from luthier.evals.metrics.measure_answers import score

CARDS = ("card", "card_arrival", "card arrival delay", "lost")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("card_arrival", "card_arrival"),
        ("Card_Arrival.", "card_arrival"),
        ("The answer is card_arrival.", "card_arrival"),
        ("It is 'card arrival delay', I think", "card arrival delay"),  # the longer one, not the card in it
        ("card", "card"),
        ("It is either card or lost", None),
        ("not lost", None),
        ("It is card, not lost.", "card"),
        ("discard it", None),
        ("", None),
        ("something else", None),
    ],
)
def test_the_label_that_an_answer_names(answer, label):
    assert named(answer, CARDS) == label


@pytest.mark.parametrize(
    ("answer", "labels", "label"),
    [
        ("It is a cat.", "ABCD", None),
        ("The answer is A.", "ABCD", "A"),
        ("B) because A is not red", "ABCD", "B"),
        ("(c)", "ABCD", "C"),
        ("No, it is not.", ("yes", "no"), "no"),
        ("There is no doubt: yes.", ("yes", "no"), "yes"),
        ("It has 1.5 stars", "12345", None),
        ("I give it 4, out of joy", "12345", "4"),
        ("", "ABCD", None),
    ],
)
def test_labels_of_one_letter_or_two(answer, labels, label):
    assert named(answer, labels) == label


def test_labels_that_differ_by_case_alone_stay_apart():
    assert named("US", ("US", "us")) == "US" and named("us", ("US", "us")) == "us"


def test_accuracy_of_sentences_and_of_answers_that_name_all_labels():
    said = ["The sentiment is positive.", "positive or negative", "NEGATIVE", ""]
    found = score(said, ["positive", "positive", "negative", "negative"], [""] * 4, ("accuracy", "exact"))
    assert found == {"accuracy": [1.0, 0.0, 1.0, 0.0], "exact": [0.0, 0.0, 0.0, 0.0]}


def test_macro_f1_reads_labels_as_accuracy_does():
    assert sum(score(["It is a.", "B"], ["a", "b"], ["", ""], ("macro_f1",))["macro_f1"]) / 2 == pytest.approx(1.0)


def test_a_constant_answer_has_the_accuracy_of_its_label_and_a_low_macro_f1():
    found = score(["yes"] * 10, ["yes"] * 5 + ["no"] * 5, [""] * 10, ("accuracy", "macro_f1"))
    assert sum(found["accuracy"]) / 10 == 0.5
    assert sum(found["macro_f1"]) / 10 == pytest.approx((2 * 5 / 15 + 0) / 2)
    assert commonest(["yes"] * 5 + ["no"] * 5) in (("yes", 0.5), ("no", 0.5))


def test_several_labels_in_any_order():
    assert all_right("politics, Sports", "sports, politics") == 1.0
    assert all_right("sports", "sports, politics") == all_right("sports, politics, art", "sports, politics") == 0.0
    rows = ["sports", "sports, politics", "art", "art, politics", "politics", "sports, art"] * 4
    assert is_several([*rows[:-1], "art; sports"]) and auto(rows)[0] == "labels"
    many = [f"{a}, {b}" for a in "abcdefgh" for b in "abcdefgh" if a != b]
    assert auto(many)[0] == "labels" and METRICS["labels"].function("b, a", "a, b", "") == 1.0


def test_which_references_are_labels():
    assert is_set(["a", "b"] * 4) and not is_set(["a", "b", "c"]) and not is_set([])
    rows = [f"{label}\nBecause of reason number {i}." for i, label in enumerate(["spam", "ham"] * 8)]
    assert is_first_line(rows) and auto(rows)[0] == "first_line"
    assert METRICS["first_line"].function("Spam.\nother words", rows[0], "") == 1.0
    assert METRICS["first_line"].function("ham\nBecause of reason number 0.", rows[0], "") == 0.0


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Paris", "Paris", 1.0),
        ("paris.", "Paris", 1.0),
        ("The capital of France is Paris.", "Paris", 1.0),
        ("Not Paris", "Paris", 0.0),
        ("Parisian", "Paris", 0.0),
        ("One of Rome, Berlin, Madrid, Lisbon, Vienna, Prague, Oslo or Paris, " * 2, "Paris", 0.0),
        ("There is no such thing", "no", 0.0),  # two letters stand in anything
        ("", "Paris", 0.0),
    ],
)
def test_short_answers(answer, reference, right):
    assert METRICS["match"].function(answer, reference, "") == right
