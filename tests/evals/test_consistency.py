"""Agreement and unsupported statements, by hand."""

from __future__ import annotations

import pytest

from luthier.evals.consistency import agreement, is_decidable, likeness, paraphrases, unsupported_share

CONTEXT = (
    "According to the text: "
    + "The old mill by the river was built in 1820 and gave work to many people. " * 3
    + "When was it built?"
)


def test_agreement_is_the_mean_of_all_pairs():
    alike = likeness("accuracy", ["yes", "no"])
    assert agreement(["yes", "Yes.", "no"], alike) == pytest.approx(1 / 3)
    assert agreement(["It is yes.", "yes"], alike) == 1.0
    assert agreement(["", ""], alike) == agreement(["only one"], alike) == 1.0


@pytest.mark.parametrize(
    ("right", "one", "other", "wanted"),
    [
        ("number", "so 1,000", "it is 1000.0", 1.0),
        ("number", "no number", "none here", 0.0),
        ("json_f1", '{"a": 1, "b": 2}', '{"b": 2, "a": 3}', 0.5),
        ("labels", "a, b", "B, a", 1.0),
        ("match", "Paris.", "paris", 1.0),
        ("match", "Paris", "Rome", 0.0),
        (None, "equal texts", "equal texts", 1.0),
        (None, "xyz", "abc", 0.0),
    ],
)
def test_what_says_the_same(right, one, other, wanted):
    assert likeness(right, ())(one, other) == pytest.approx(wanted)


def test_paraphrases_keep_the_words():
    made = paraphrases("What is the capital of France?", 4)
    assert made[0] == "Could you help me with this?\n\nWhat is the capital of France?"
    assert len(set(made)) == 4 and "What is the capital of France" in made
    assert all("the capital of france" in text.lower() for text in made)
    assert all(
        "you" not in text.lower() for text in paraphrases("Quelle est la capitale de la France, et pourquoi donc ?", 9)
    )
    assert paraphrases("?", 9)  # nothing but a mark is still asked in other words


def test_statements_of_a_context():
    def share(answer):
        return unsupported_share(answer, CONTEXT, "", None)

    assert share("It was built in 1820.") == 0.0
    assert share("It was built in 1820. It burned down in 1955.") == 0.5
    assert share("") == 1.0  # nothing of what was asked is said
    assert is_decidable(CONTEXT, None) and not is_decidable("Tell a story.", None) and is_decidable("Yes?", "accuracy")


def test_where_answers_are_right_or_wrong():
    assert unsupported_share("no", "p", "yes", 0.0) == 1.0 and unsupported_share("yes", "p", "yes", 1.0) == 0.0
