"""The words of examples, and rows written and read again."""

import pytest

from luthier.core.types.examples import Chat, Labelled, Message, Origin, Pair, Preference, Prompt, Ranking, Text
from luthier.data.convert import to_examples
from luthier.data.detect import detect
from luthier.data.example_text import answer_text, as_row, empty_fields, full_text, identity, prompt_key, prompt_text
from luthier.data.read import Row

ASK, YES, NO = Message("user", "q"), Message("assistant", "yes"), Message("assistant", "no")
CALL = {"type": "function", "function": {"name": "search", "arguments": {}}}

# (example, its prompt, its answer, all of it)
CASES = [
    (Text("a"), "", "a", "a"),
    (Chat((ASK, YES)), "q", "yes", "q\n\nyes"),
    (Chat((ASK, NO, ASK, YES)), "q\n\nno\n\nq", "yes", "q\n\nno\n\nq\n\nyes"),
    (Preference((ASK,), (YES,), (NO,)), "q", "yes", "q\n\nyes\n\nno"),
    (Preference((), (YES,), (NO,), 2.0), "", "yes", "yes\n\nno"),
    (Ranking((ASK,), ((NO,), (YES,)), (2, 1)), "q", "yes", "q\n\nyes\n\nno"),
    (Labelled((ASK,), (NO,), False), "q", "no", "q\n\nno"),
    (Prompt((ASK,)), "q", "", "q"),
    (Prompt((ASK,), "42"), "q", "42", "q\n\n42"),
    (Pair(("a", "b", "c"), 0.5), "a", "b\n\nc", "a\n\nb\n\nc"),
    (Chat((ASK, Message("assistant", "hm", train=False), ASK, YES)), "q\n\nhm\n\nq", "yes", "q\n\nhm\n\nq\n\nyes"),
]


@pytest.mark.parametrize(("example", "prompt", "answer", "full"), CASES)
def test_texts(example, prompt, answer, full):
    assert (prompt_text(example), answer_text(example), full_text(example)) == (prompt, answer, full)
    assert empty_fields(example) == ()


@pytest.mark.parametrize("example", [case[0] for case in CASES])
def test_rows_read_back_to_equal_examples(example):
    rows = [Row(as_row(example), Origin())]
    declared = "prompt" if isinstance(example, Prompt) else "auto"
    assert list(to_examples(rows, detect(rows, {}, declared=declared), {})) == [example]


def test_input_is_part_of_the_prompt_and_calls_of_the_answer():
    example = Chat((Message("user", "q", input="i"), Message("assistant", "", tool_calls=(CALL,))))
    assert prompt_text(example) == "q\n\ni"
    assert '"search"' in answer_text(example)
    assert empty_fields(example) == ()


@pytest.mark.parametrize(
    ("example", "fields"),
    [
        (Text(" \n"), ("answer",)),
        (Chat((ASK, Message("assistant", " "))), ("answer",)),
        (Chat((ASK,)), ("answer",)),
        (Chat((Message("system", "s"), YES)), ("prompt",)),
        (Chat((Message("user", ""), YES)), ("prompt",)),
        (Chat((Message("user", ""), NO, ASK, YES)), ("turn",)),
        (Preference((ASK,), (YES,), (Message("assistant", ""),)), ("rejected",)),
        (Preference((), (YES,), (NO,)), ()),
        (Ranking((ASK,), ((YES,), (Message("assistant", ""),)), (1, 2)), ("response",)),
        (Prompt(()), ("prompt",)),
        (Pair(("a", "")), ("answer",)),
    ],
)
def test_empty_fields(example, fields):
    assert empty_fields(example) == fields


def test_keys():
    assert prompt_key(Chat((Message("user", " What  IS it?\n"), YES))) == "what is it?"
    assert prompt_key(Text("A b")) == "a b"
    here, there = Chat((ASK, YES), origin=Origin("a", 1)), Chat((ASK, YES), origin=Origin("b", 2))
    assert identity(here) == identity(there) != identity(Chat((ASK, NO)))


TOOL = {"type": "function", "function": {"name": "search", "parameters": {}}}
BESIDE = {"tools": (TOOL,), "template_kwargs": {"enable_thinking": False}}
BEGUN = Message("assistant", "<think>\n", train=False, begun=True)
THOUGHT = Message("assistant", "yes", fields={"thinking": "hm", "citations": [1]})
FOUND = Message("tool", "3", name="search", fields={"tool_call_id": "c1"})
CALLING = Message("assistant", "", tool_calls=({"id": "c1", **CALL},), bare=True)
BEFORE = Message("assistant", "no", train=False)


@pytest.mark.parametrize(
    "example",
    [
        Chat((ASK, CALLING, FOUND, THOUGHT), **BESIDE),
        Chat((ASK, BEFORE, ASK, BEGUN, YES), **BESIDE),
        Chat((Message("system", "", bare=True), ASK, YES)),
        Preference((ASK, BEGUN), (THOUGHT,), (NO,), **BESIDE),
        Preference((ASK, YES), (YES,), (NO,), **BESIDE),
        Ranking((ASK, BEGUN), ((NO,), (THOUGHT,)), (2, 1), **BESIDE),
        Labelled((ASK, BEFORE, ASK), (THOUGHT,), True, **BESIDE),
        Labelled((ASK, YES), (THOUGHT,), True, **BESIDE),
        Prompt((ASK, BEGUN), "42", **BESIDE),
    ],
)
def test_written_rows_keep_everything(example):
    """`luthier data --clean` and `--split` write rows again."""
    rows = [Row(as_row(example), Origin())]
    declared = "prompt" if isinstance(example, Prompt) else "auto"
    (again,) = to_examples(rows, detect(rows, {}, declared=declared), {})
    assert again == example
    assert as_row(again) == as_row(example)  # where nothing was written, nothing is


def test_rows_that_differ_in_a_thought_or_in_tools_are_no_duplicates():
    rows = [
        Chat((ASK, YES)),
        Chat((ASK, THOUGHT)),
        Chat((ASK, YES), tools=(TOOL,)),
        Chat((ASK, YES), template_kwargs={"enable_thinking": False}),
    ]
    assert len({identity(row) for row in rows}) == 4
    assert answer_text(rows[1]) == "hm\n\nyes"


def test_pairs_of_one_prompt_with_other_tools_are_not_joined():
    from luthier.data.group_preferences import group_preferences, split_preferences

    pairs = [Preference((ASK,), (YES,), (NO,), tools=(TOOL,)), Preference((ASK,), (NO,), (YES,))]
    assert group_preferences(pairs) == pairs
    assert [row.tools for row in split_preferences(pairs)] == [(TOOL,), (TOOL,), (), ()]
    (joined,) = group_preferences([pairs[0], Preference((ASK,), (THOUGHT,), (NO,), tools=(TOOL,))])
    assert joined.tools == (TOOL,)
