"""What is learned of a task from its rows."""

from __future__ import annotations

import json
import time

import pytest

from luthier.evals.detectors.copies import Copies
from luthier.evals.detectors.formats import Format
from luthier.evals.detectors.grounding import unsupported
from luthier.evals.detectors.spelling import correction
from luthier.evals.detectors.task import Task
from luthier.evals.detectors.words import content, sentences, spans, words


def test_words_in_scripts_with_and_without_spaces():
    assert words("Don't panic: card_arrival, 水是H2O!") == ["don't", "panic", "card", "arrival", "水", "是", "h2o"]
    text = "Ärger im Büro"
    assert [text[slice(*span)].lower() for span in spans(text)] == words(text)
    assert content("The treatments were treated with 太阳系") == {"treat", "太阳", "阳系"}
    assert sentences("One. Two!\nThree 3.5 four。五") == ["One.", "Two!", "Three 3.5 four。", "五"]


def test_no_rows_show_nothing():
    assert Task.learn([], []) == Task.learn(["p"], ["  "])
    few = Task.learn(["p"] * 9, ["an answer"] * 9)
    assert few.lengths is None and few.format == Format() and few.bounds("p") is None


def test_lengths_and_ratios():
    same = Task.learn(["word " * 5] * 20, [f"{'word ' * n}end." for n in range(1, 21)])
    assert same.ratios is None  # the prompts say nothing of the length
    assert same.lengths == pytest.approx((2.19, 20.81))  # 1 % and 99 % between 2 and 21, 20 rows: 0.19 from the ends
    assert same.bounds("any") == same.lengths
    translated = Task.learn([f"w{'o' * n} " * n for n in range(1, 21)], [f"w{'e' * n} " * n for n in range(1, 21)])
    assert translated.ratios == (1.0, 1.0) and translated.bounds("five words are in this") == (5.0, 5.0)


def test_labels_are_a_closed_set_from_four_rows_each_on():
    assert Task.learn(["p"] * 12, ["yes", "no", "maybe"] * 4).format.labels == {"yes", "no", "maybe"}
    assert not Task.learn(["p"] * 11, (["yes", "no", "maybe"] * 4)[:11]).format.labels
    labels = Format.learn(["yes", "no"] * 10)
    assert labels.broken("Yes", "") == "not one of the 2 labels" and not labels.broken(" no\n", "")
    assert not labels.broken("perhaps", "never")  # the reference is none of them either


def test_formats():
    objects = Format.learn([json.dumps({"a": 1, "b": n}) for n in range(20)])
    assert objects.keys == {"a", "b"}
    assert objects.broken('{"a": 1}', "") == "JSON without 'b'"
    assert objects.broken('{"a": 1, "b": 2', "") == "not JSON"
    assert not objects.broken('{"a": 0}', '{"a": 3}')  # the reference has no b
    assert Format.learn([f"{n}.5" for n in range(20)]).broken("about 3", "") == "not a number"
    tagged = Format.learn([f"<think>so {n}</think> Answer: {n}" for n in range(20)])
    assert tagged.broken("Answer: 3", "") == "without '</think>'"
    assert Format.learn([f"Line {n} of text" for n in range(20)]).broken("a\nb", "") == "more than one line"
    assert not Format.learn([f"Line {n} of text" for n in range(20)]).broken("a\nb", "c\nd")
    assert Format.learn([f"- a{n}\n- b" for n in range(20)]).broken("a and b", "") == "not a list"
    assert Format.learn(["[" * 100_000 + str(n) for n in range(20)]).one_line  # too deep to be read as JSON


def test_shares():
    prompts = [f"Describe the colour of stone number {n}." for n in range(20)]
    task = Task.learn(prompts, [f"The stone number {n} is of a grey colour." for n in range(20)])
    assert (task.stops, task.quotes, task.touches, task.repeats, task.faithful) == (1.0, 0.0, 1.0, 0.0, None)
    assert task.languages == {"English"} and task.scripts == {"Latin"}
    half = Task.learn(prompts, [f"The stone number {n} is of a grey colour{'.' * (n % 2)}" for n in range(20)])
    assert half.stops == 0.5


def test_words_are_known_from_two_rows_on():
    task = Task.learn(["p", "q", "r"], ["a qwertic word", "a qwertic thing", "zxcvbic"])
    assert "qwertic" in task.known_words and "zxcvbic" not in task.known_words


@pytest.mark.medium
def test_spelling():
    assert correction("occured", "en") == "occurred"
    assert correction("writting", "en") == "writing"
    assert correction("definately", "en") == "definitely"
    assert correction("hauptsatdt", "de") == "hauptstadt"
    for right in ("litres", "organise", "travelled", "unhappily", "tokenizer", "backpropagation", "apps", "webpage"):
        assert correction(right, "en") == ""
    assert correction("donaudampfschifffahrt", "de") == ""


def test_supported_numbers_and_names():
    context = "In 1990 the town of Milford had 1,200 houses, 40 percent of them new. Now there are two thousand."

    def found(answer: str) -> str:
        return (unsupported(answer, context, "", names=True) or ("",))[0]

    assert found("It had 1200 houses in 1990.") == ""
    assert found("60 percent were old.") == ""  # 100 - 40
    assert found("It had 1,300 houses.") == "1,300"
    assert found("Milford's houses were counted by 3 people.") == ""  # numbers below 10 are counts
    assert found("The town of Bedford had 1,200 houses.") == "Bedford"
    assert unsupported("The town of Bedford.", context, "", names=False) is None
    assert unsupported("The town of Bedford.", context, "Bedford", names=True) is None


def test_stretches_end_with_the_answers():
    first, second = [f"w{n}" for n in range(20)], [f"v{n}" for n in range(20)]
    copies = Copies.learn(["one", "two"], [first, second])
    assert copies.stretch("new", " ".join(second[2:18]), "") == (16, (0, len(" ".join(second[2:18]))), 1)
    assert copies.stretch("two", " ".join(second[2:18]), "") is None  # it is the answer to this prompt
    assert copies.stretch("new", " ".join(first[14:] + second[:6]), "") is None  # 12 words across two answers
    assert copies.stretch("new", " ".join(first[:11]), "") is None
    often = Copies.learn(["one", "two", "three"], [first] * 3)
    assert often.stretch("new", " ".join(first), "") is None  # the manner of the task


@pytest.mark.medium
def test_ten_thousand_rows_take_seconds():
    rows = range(10_000)
    prompts = [f"What is the number {n} good for, and why does item {n % 97} need it?" for n in rows]
    answers = [f"The number {n} is good for item {n % 97}, since it has {n % 13} parts and {n} uses." for n in rows]
    start = time.process_time()
    task = Task.learn(prompts, answers)
    assert time.process_time() - start < 15 and task.rows == 10_000
