"""What a judge is asked, how its word is read, and which contests a comparison takes."""

from __future__ import annotations

import pytest

from luthier.core.types.examples import Message
from luthier.evals.judging.judgments import duels
from luthier.evals.judging.prompt import (
    Choice,
    comparisons_in_both_orders,
    pair_messages,
    question_messages,
    read_choice,
)

PROMPT = (Message("user", "who?"),)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("A", "A"), ("b", "B"), ("**B**", "B"), ("[[A]]", "A"), ("Tie.", "tie"), ("Answer B is better.", "B"),
        ("A is short, B is long.\nVerdict: A", "A"), ("B\n\n", "B"), ("A or B?", None), ("a good answer", None), ("", None),
        ("neither", None), ("***", None), ("It is a tie", "tie"), ("ABBA", None), ("I think that\n\nB\n```", "B"),
    ],
)  # fmt: skip
def test_a_written_choice(text, option):
    assert read_choice(text, ("A", "B", "tie")) == option


@pytest.mark.parametrize(
    ("text", "option"), [("Yes.", "Yes"), ("no", "No"), ("Yes and no", None), ("Yes, it does", "Yes"), ("nobody", None)]
)
def test_a_written_yes_or_no(text, option):
    assert read_choice(text, ("Yes", "No")) == option


def test_a_judge_sees_request_and_answers_and_nothing_of_the_models():
    text = pair_messages((Message("system", "be brief"), Message("user", "who?")), " cat ", "dog")[0].content
    assert "System: be brief\n\nUser: who?" in text
    assert text.index("[Answer A]\ncat\n") < text.index("[Answer B]\ndog\n")
    assert "Write only A, B, or tie" in pair_messages(PROMPT, "x", "y", written=True)[0].content
    asked = question_messages("who?", "cat", "Is it polite?", "dog")[0].content
    assert asked.index("[Answer]\ncat") < asked.index("[Right answer]\ndog") < asked.index("[Question]\nIs it polite?")
    assert "[Right answer]" not in question_messages("who?", "cat", "Is it polite?", None)[0].content


def test_every_pair_in_both_orders_but_equal_answers():
    found = comparisons_in_both_orders(
        [PROMPT, (Message("user", "what?"),)], {"a": ["1", "same"], "b": ["2", " same\n"], "c": ["3", "other"]}
    )
    assert [(c.prompt[0].content, c.models, c.order) for c in found if c.prompt == PROMPT] == [
        ("who?", pair, order) for pair in (("a", "b"), ("a", "c"), ("b", "c")) for order in ((0, 1), (1, 0))
    ]
    assert [c.models for c in found if c.prompt != PROMPT] == [("a", "c")] * 2 + [("b", "c")] * 2
    shown = found[1].messages[0].content
    assert shown.index("[Answer A]\n2") < shown.index("[Answer B]\n1")


def test_who_is_named_first_changes_nothing():
    answers = {"b": ["2"], "a": ["1"]}
    assert comparisons_in_both_orders([PROMPT], answers) == comparisons_in_both_orders(
        [PROMPT], dict(sorted(answers.items()))
    )


def test_a_choice_is_a_verdict_on_what_was_shown():
    first, second = comparisons_in_both_orders([PROMPT], {"a": ["1"], "b": ["2"]})
    verdict = {
        c.order: [c.judgment(Choice(option), "j").verdict for option in ("A", "B", "tie")] for c in (first, second)
    }
    assert verdict == {(0, 1): [(1, 2), (2, 1), (1, 1)], (1, 0): [(2, 1), (1, 2), (1, 1)]}
    assert first.judgment(Choice("A", 0.25), "j").info == {"log_odds": 0.25}
    assert first.key("j") == first.judgment(Choice("A"), "j").key
    always_first = [c.judgment(Choice("A"), "j") for c in (first, second)]
    assert [duel.outcome for duel in duels(always_first)] == [0.5]
