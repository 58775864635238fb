"""Rows to test by: what makes them unfit."""

from __future__ import annotations

import pytest

from luthier.core.types.examples import Chat, Message, Origin, Prompt
from luthier.data.evaluation_set import examine, faults


def chat(question, answer, line=1):
    return Chat((Message("user", question), Message("assistant", answer)), origin=Origin("t", line))


def rows(*pairs):
    return [chat(*pair, line=i) for i, pair in enumerate(pairs, 1)]


SENTENCE = "my card was charged twice at the very same shop on the very same day last week and nobody can tell me why"
GOOD = rows(*((f"{i * 7919 % 1009} or {i}?", ["yes", "no"][i % 2]) for i in range(40)))


def test_good_rows_have_no_faults():
    found = examine(GOOD, [])
    assert list(faults(found)) == []
    assert found.labels == {"yes": 20, "no": 20}
    assert found.seen == {"exact": 0, "near": 0}


def test_equal_and_nearly_equal_rows_and_those_that_training_sees():
    test = [*GOOD, chat(GOOD[0].messages[0].content, "yes"), chat(SENTENCE, "yes"), chat(SENTENCE + "!", "yes")]
    found = examine(test, [GOOD[1], chat(SENTENCE + ", please", "yes")])
    assert found.duplicates == {"exact": 1, "near": 1}
    assert found.seen == {"exact": 1, "near": 2}
    assert [line.partition(":")[0] for line in faults(found)] == [
        "rows that training sees",
        "equal or nearly equal to an earlier row",
    ]
    assert examine(test, None).seen is None


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        ((GOOD[0].messages[0].content, "no"), "another answer than t:1 to the same prompt"),
        (("fresh?", "Yes "), "label 'Yes' is spelled 'yes' elsewhere"),
        (("fresh?", "maybe"), "label 'maybe' stands in this row alone"),
    ],
)
def test_labels_in_doubt(pair, why):
    found = examine([*GOOD, chat(*pair, line=41)], None)
    assert [(doubt.where, doubt.why) for doubt in found.doubts] == [("t:41", why)]
    assert any(line.startswith("right answers in doubt: 1, the first at t:41: ") for line in faults(found))


def test_two_labels_for_nearly_the_same_text():
    found = examine([*GOOD, chat(SENTENCE, "yes", 41), chat(SENTENCE + "?", "no", 42)], None)
    assert [(doubt.where, doubt.why) for doubt in found.doubts] == [
        ("t:42", "another label than t:41 for nearly the same text")
    ]


def test_two_answers_in_words_are_in_doubt_but_not_two_texts_that_are_alike():
    texts = rows(*((f"question {i} of {i * 31}", f"an answer in words, number {i}") for i in range(20)))
    found = examine(
        [
            *texts,
            chat("Question 3  of 93", "quite another one", 21),
            chat(SENTENCE, "a", 22),
            chat(SENTENCE + "!", "b", 23),
        ],
        None,
    )
    assert found.labels is None
    assert [doubt.where for doubt in found.doubts] == ["t:21"]


def test_empty_answers_and_prompts_without_a_right_one_are_counted():
    found = examine(
        [*GOOD, chat("a?", " "), chat(" ", "yes"), Prompt((Message("user", "b?"),), None, origin=Origin("t", 9))], None
    )
    assert found.empty == {"prompt": 1, "answer": 2}
    assert list(faults(found)) == [
        "empty prompt: 1 row; fill it in, or remove the row", "empty answer: 2 rows; fill it in, or remove the row"
    ]  # fmt: skip


def test_labels_out_of_balance():
    always = rows(*((f"{i * 7919 % 1009} or {i}?", "yes") for i in range(40)))
    assert list(faults(examine(always, None))) == ["every row has the label 'yes': whoever always says it is right"]
    mostly = [*always[:38], *rows(("n1?", "no"), ("n2?", "no"))]
    assert list(faults(examine(mostly, None))) == [
        "label 'yes' has 38 of 40 rows: whoever always says it has an accuracy of 95%",
        "labels of fewer than 5 rows: 1, such as 'no'; nothing can be said of each",
    ]
