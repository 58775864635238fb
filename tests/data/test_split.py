"""The split is a function of the group; leaks are found."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.core.types.examples import Chat, Message, Text
from luthier.data.split import leaks, place, split

LONG = " ".join(f"word{i}" for i in range(60))


def chat(question, answer="a", group=""):
    return Chat((Message("user", question), Message("assistant", answer)), group=group)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(0, 3))
def test_equal_prompts_stay_together_and_nothing_is_lost(numbers, seed):
    examples = [chat(f"question {n}", f"answer {i}") for i, n in enumerate(numbers)]
    train, test = split(examples, 0.3, seed)
    assert sorted(map(id, train + test)) == sorted(map(id, examples))
    assert not {e.messages[0] for e in train} & {e.messages[0] for e in test}
    assert split(examples, 0.3, seed) == (train, test)
    if len(set(numbers)) > 1:
        assert train
        assert test


def test_groups_stay_together_whatever_the_prompts():
    train, test = split([chat(f"q{i}", group=f"g{i % 7}") for i in range(100)], 0.4, 0)
    assert train
    assert test
    assert not {e.group for e in train} & {e.group for e in test}


def test_rows_added_later_move_no_others():
    examples = [chat(f"question {i}") for i in range(400)]
    before, _ = split(examples[:200], 0.2, 0)
    after, _ = split(examples, 0.2, 0)
    assert after[: len(before)] == before


def test_share_seed_and_extremes():
    examples = [chat(f"question {i}") for i in range(2000)]
    _, test = split(examples, 0.1, 0)
    assert 150 <= len(test) <= 250  # 200, standard deviation 13
    assert split(examples, 0.1, 1)[1] != test
    assert split(examples, 0.0, 0) == (examples, [])
    assert split([], 0.1, 0) == ([], [])
    assert split(examples[:1] * 5, 0.01, 0) == (examples[:1] * 5, [])
    assert all(0 <= place(example, 0) < 1 for example in examples)


def test_case_and_spacing_of_a_prompt_do_not_part_it():
    assert place(chat("What is it?"), 0) == place(chat(" what  is it?\n"), 0)


def test_leaks():
    train = [chat("same prompt"), chat(LONG, LONG), chat("something else entirely"), Text(LONG + " a document")]
    test = [chat("unseen"), chat("Same  prompt", "other"), chat(LONG + " end", LONG), Text(LONG + " A  document")]
    found = leaks(train, test)
    assert [(train.index(a), test.index(b), kind) for a, b, kind in found] == [
        (0, 1, "exact"),
        (1, 2, "near"),
        (3, 3, "exact"),
    ]
    assert leaks(train, []) == leaks([], test) == []


def test_hidden_leak_between_equal_held_out_rows():
    """Held-out rows that resemble each other do not hide the training row they resemble."""
    train, test = [chat(LONG, LONG)], [chat(LONG + f" end {i}", LONG) for i in range(5)]
    assert [leak.kind for leak in leaks(train, test)] == ["near"] * 5


@pytest.mark.parametrize("holdout", [0.05, 0.5])
def test_split_leaves_no_exact_leak(holdout):
    examples = [chat(f"question {i % 50}", str(i)) for i in range(200)]
    assert not [leak for leak in leaks(*split(examples, holdout, 0)) if leak.kind == "exact"]


@pytest.mark.parametrize(
    ("rows", "least", "most"),
    [(2, 1, 1), (3, 1, 1), (20, 3, 3), (100, 16, 16), (200, 32, 32), (400, 32, 32), (640, 20, 45), (2000, 75, 125)],
)
@pytest.mark.parametrize("seed", range(3))
def test_by_default_some_thirty_rows_are_held_out_where_there_are_two_hundred(rows, least, most, seed):
    train, test = split([chat(f"question {i}") for i in range(rows)], None, seed)
    assert least <= len(test) <= most
    assert len(train) + len(test) == rows


def test_the_default_keeps_groups_whole_and_half_to_learn_from():
    examples = [chat(f"q{i}", group=f"g{i % 10}") for i in range(200)]
    train, test = split(examples, None, 0)
    assert not {e.group for e in train} & {e.group for e in test}
    assert len(test) == 40  # two groups of twenty
    large = [chat(f"q{i}", group="small" if i < 20 else "large") for i in range(200)]
    for seed in range(6):
        train, test = split(large, None, seed)
        assert {len(train), len(test)} == {20, 180}  # either first: nothing is torn


def test_a_share_that_is_given_is_kept_to_whatever_the_rows():
    examples = [chat(f"question {i}") for i in range(200)]
    assert [len(split(examples, share, 0)[1]) for share in (0.0, 0.05)] == [
        0,
        sum(place(e, 0) < 0.05 for e in examples),
    ]


def test_only_equal_prompts_are_leaks_where_nothing_near_is_asked_for():
    train, test = [chat("same"), chat(LONG, LONG)], [chat("same", "x"), chat(LONG + " end", LONG)]
    assert [leak.kind for leak in leaks(train, test, near=None)] == ["exact"]
