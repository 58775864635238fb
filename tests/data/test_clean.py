"""Filters: each drops what it should, says why, and leaves the rest."""

import pytest

from luthier.core.types.examples import Chat, Labelled, Message, Origin, Pair, Preference, Text
from luthier.data.clean import CleanSettings, clean, conflicts, duplicates, faults, near_duplicates

LONG = " ".join(f"word{i}" for i in range(60))


def chat(question, answer, line=0):
    return Chat((Message("user", question), Message("assistant", answer)), origin=Origin("f", line))


def reasons(examples, **settings):
    return [(item.filter, item.reason) for item in clean(examples, CleanSettings(**settings)).dropped]


@pytest.mark.parametrize(
    ("example", "name", "reason"),
    [
        (chat("q", " "), "empty", "empty answer"),
        (chat("", "a"), "empty", "empty prompt"),
        (chat("q", "a\x00b"), "control character", "U+0000"),
        (chat("q", "a\x80b"), "control character", "U+0080"),
        (chat("q", "cafÃ©"), "garbled", "'Ã©'"),
        (chat("q", "itâ€™s"), "garbled", "'â€™'"),
        (chat("q", "lost \ufffd"), "garbled", "wrong encoding"),
        (chat("q", "the same words again and again " * 20), "repeated", "of the answer repeats itself"),
        (Preference((), (Message("assistant", "a"),), (Message("assistant", "a"),)), "same answers", "equal"),
    ],
)
def test_faults_of_single_examples(example, name, reason):
    ((found, why),) = reasons([example])
    assert found == name
    assert reason in why


@pytest.mark.parametrize(
    "text",
    [
        "tabs\tand\nlines\r\n",
        "Ça va, São Paulo, naïve café",
        "Âge d'or",
        "“quotes” – dash €5",
        "日本語のテキスト",
        "👍🏽 ok",
    ],
)
def test_sound_text_stays(text):
    assert clean([chat("q", text)]).dropped == []
    assert clean([Text(text)]).dropped == []


def test_length_limits():
    examples = [chat("q", "a"), chat("q", "abc")]  # with the empty line between: 4 and 6 characters
    assert reasons(examples, shortest=5) == [("too short", "4 characters, fewer than 5")]
    assert reasons(examples, longest=5) == [("too long", "6 characters, more than 5")]


def test_duplicates_name_the_row_that_stays():
    examples = [chat("q", "a", 1), chat("r", "b", 2), chat("q", "a", 3)]
    result = clean(examples)
    assert result.kept == examples[:2]
    assert [item.reason for item in result.dropped] == ["duplicate of f:1"]
    assert result.counts == {"duplicate": 1}
    assert duplicates(examples) == [(0, 2)]


def test_near_duplicates_are_dropped_and_can_be_kept():
    examples = [chat("q", LONG, 1), chat("q", LONG + " end", 2)]
    assert reasons(examples)[0][0] == "near duplicate"
    assert reasons(examples, near=0) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (chat(LONG, "label one"), chat(LONG, "label two")),
        (Labelled((), (Message("assistant", LONG),), True), Labelled((), (Message("assistant", LONG),), False)),
        (Pair((LONG, "b"), 1.0), Pair((LONG, "b"), 5.0)),
        (
            Preference((), (Message("assistant", LONG),), (Message("assistant", "no"),)),
            Preference((), (Message("assistant", "no"),), (Message("assistant", LONG),)),
        ),
    ],
)
def test_equal_words_that_say_something_else_are_no_duplicates(first, second):
    assert near_duplicates([first, second]) == []
    assert near_duplicates([first, first]) != []


def test_conflicts_are_dropped_on_demand_only():
    examples = [chat("What?", "a", 1), chat(" what? ", "b", 2), chat("what?", "a ", 3), chat("why?", "c", 4)]
    assert conflicts(examples) == [[0, 1]]
    assert reasons(examples, duplicates=False, near=0) == []
    assert reasons(examples, conflicts=True, near=0) == [("conflict", "other answer to the prompt of f:1")]


def test_nothing_is_lost():
    examples = [chat("q", "a"), chat("q", ""), chat("q", "a"), chat("r", "\x01")]
    result = clean(examples)
    assert len(result.kept) + len(result.dropped) == len(examples)
    assert faults(examples).keys() == {1, 3}
    assert clean([]).kept == []
