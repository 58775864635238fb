"""The data card: numbers derived by hand."""

import json

import pytest

from luthier.core.types.examples import Chat, Message, Preference, Text
from luthier.data.data_card import card, outline, sample, warnings

LONG = " ".join(f"word{i}" for i in range(60))


def chat(question, answer):
    return Chat((Message("user", question), Message("assistant", answer)))


def words(text):
    return len(text.split())


def test_lengths_in_tokens_and_the_share_over_the_limit():
    """Lengths 2, 3, ..., 21 words: the middle of 20 is the 10th, 95 % of 20 is the 19th."""
    examples = [chat("q", " ".join("a" * n for n in range(1, i + 1))) for i in range(1, 21)]
    made = card(examples, count=words, limit=19)
    assert made.tokens == {"unit": "tokens", "min": 2, "median": 11, "p95": 20, "max": 21, "total": sum(range(2, 22))}
    assert made.answers == {"unit": "tokens", "min": 1, "median": 10, "p95": 19, "max": 20}
    assert made.over_limit == {"limit": 19, "rows": 2, "share": 0.1}
    assert made.turns == {"unit": "messages", "min": 2, "median": 2, "p95": 2, "max": 2}
    assert card(examples, count=None, limit=1).over_limit is None
    assert card([Text("abcd")], count=None, limit=1).tokens["max"] == 4


def test_a_card_at_a_glance():
    made = outline([chat("q", "a"), chat("r", "b"), chat("q", "a")], [3, 5, 4], "alpaca")
    assert made["lengths"] == {"unit": "tokens", "min": 3, "median": 4, "p95": 5, "max": 5}
    assert (made["layout"], made["duplicates"], made["looked_at"], made["languages"]) == (
        "alpaca",
        1,
        3,
        {"unknown": 1.0},
    )
    assert set(outline([], [], "text").values()) == {"text", None, 0}  # a stream


def test_what_is_worth_fixing_is_counted_and_told():
    examples = [chat("q", "a"), chat("q", "b"), chat("q", "a"), chat("r", ""), chat("s", LONG), chat("s", LONG + " x")]
    made = card(examples, count=words, limit=50, test=[chat("Q", "c")], layout="alpaca", dropped={"a tie": 2})
    assert made.rows == 6
    assert made.layout == "alpaca"
    assert made.duplicates == {"exact": 1, "near": 1}
    assert made.empty == {"answer": 1}
    assert made.faults == {"empty": 1}
    assert made.conflicts == 2
    assert made.leaks == {"exact": 1, "near": 0}
    told = "\n".join(warnings(made))
    for words_of in ("few rows: 6", "longer than 50 tokens: 2 rows (33.3%)", "empty (answer): 1 row;", "equal to an earlier row: 1 row;",
                     "more than one answer: 2 prompts", "training has seen: 1", "no example in 2 rows: a tie"):  # fmt: skip
        assert words_of in told


def test_sound_data_has_no_warnings():
    examples = [
        chat(f"question number {i}", f"an answer about thing {i * 7919 % 1009} and {i * 31}") for i in range(60)
    ]
    assert card(examples, count=words, limit=50, test=[]).as_dict()["warnings"] == []


def test_labels_and_their_rarest():
    examples = [chat(f"text {i}", "yes" if i < 57 else "no") for i in range(60)]
    made = card(examples, count=None, limit=1)
    assert made.labels == {"distinct": 2, "top": {"yes": 57, "no": 3}, "least": 3}
    assert any("rarest label: 3 rows" in line for line in warnings(made))
    assert card([chat(f"t{i}", f"answer {i}") for i in range(60)], count=None, limit=1).labels is None


def test_diversity_of_known_words():
    """Two answers 'a b a b': 4 of 8 words... 2 distinct of 8; pairs ab ba of 6."""
    made = card([chat("q", "a b a b"), chat("r", "a b a b")], count=None, limit=1)
    assert made.diversity["distinct_1"] == pytest.approx(2 / 8)
    assert made.diversity["distinct_2"] == pytest.approx(2 / 6)
    looping = card([chat(f"q{i}", "the same answer again and again") for i in range(20)], count=None, limit=1)
    assert looping.diversity["compression"] > 6


def test_documents_are_not_blamed_for_being_few_and_long():
    made = card([Text(LONG)], count=words, limit=10)
    assert made.turns is None
    assert warnings(made) == []


def test_the_card_is_plain_json_with_the_documented_keys():
    ask, yes, no = Message("user", "q"), Message("assistant", "yes"), Message("assistant", "no")
    made = card([Preference((ask,), (yes,), (no,))], count=words, limit=5).as_dict()
    assert json.loads(json.dumps(made)) == made
    assert {"layout", "rows", "tokens", "duplicates", "dropped", "warnings"} <= made.keys()
    assert made["layout"] == "preference"


def test_sample_of_a_stream():
    assert sample(iter(range(5)), 10) == ([0, 1, 2, 3, 4], 5)
    drawn, total = sample(iter(range(1000)), 100, seed=1)
    assert total == 1000
    assert len(set(drawn)) == 100
    assert drawn == sorted(drawn)
    assert 400 < sum(drawn) / 100 < 600  # the mean of a fair sample is 499.5, standard deviation 27
    assert sample(iter(range(1000)), 100, seed=1)[0] == drawn
