"""From rows to questions, and from scored answers to rows that teach."""

from __future__ import annotations

import pytest

from luthier.core.types.examples import Chat, Labelled, Message, Origin, Pair, Preference, Prompt, Ranking, Text
from luthier.rewards.sample_journal import SampledAnswer
from luthier.rewards.selection import PromptRecord, prompt_record, select_rows

USER, OTHER = Message("user", "how?"), Message("user", "and then?")
SO, NO = Message("assistant", "so"), Message("assistant", "no")
SYSTEM = Message("system", "be brief")
CALL = Message("assistant", "", tool_calls=({"name": "add"},))
TOOLS = ({"type": "function"},)


@pytest.mark.parametrize(
    ("example", "messages", "reference"),
    [
        (Chat((SYSTEM, USER, SO)), (SYSTEM, USER), "so"),
        (Chat((USER, NO, OTHER, SO)), (USER, NO, OTHER), "so"),
        (Chat((USER, SO, OTHER)), (USER,), "so"),
        (Chat((USER,)), (USER,), None),
        (Chat((USER, CALL)), (USER,), None),
        (Prompt((USER,), "so"), (USER,), "so"),
        (Prompt((USER,)), (USER,), None),
        (Labelled((USER,), (SO,), True), (USER,), "so"),
        (Labelled((USER,), (NO,), False), (USER,), None),
        (Preference((USER,), (SO,), (NO,)), (USER,), "so"),
        (Ranking((USER,), ((NO,), (SO,)), (2, 1)), (USER,), "so"),
    ],
)
def test_what_a_row_asks_and_its_right_answer(example, messages, reference):
    asked = prompt_record(example)
    assert (asked.messages, asked.reference) == (messages, reference)


@pytest.mark.parametrize(
    "example", [Text("a"), Pair(("a", "b")), Preference((), (SO,), (NO,)), Chat((SYSTEM, SO)), Prompt(())]
)
def test_rows_that_ask_nothing(example):
    assert prompt_record(example) is None


def test_what_a_reward_sees():
    asked = prompt_record(Chat((SYSTEM, Message("user", "add", input="2 and 2"), SO), tools=TOOLS))
    assert asked.tools == TOOLS
    answer = asked.answer(SampledAnswer("four", 2, False))
    assert (answer.prompt, answer.text, answer.reference) == ("add\n\n2 and 2", "four", "so")
    assert (answer.tokens, answer.ended, answer.messages) == (2, False, asked.messages)


# --- Rows -------------------------------------------------------------------------------------------

ASKED = PromptRecord((USER,), (), "so", Origin())
GIVEN = [
    SampledAnswer("a", 1, True),
    SampledAnswer("b", 1, False),
    SampledAnswer(" ", 1, True),
    SampledAnswer("c", 1, True),
]
TOTALS = [0.5, 2.0, 3.0, -1.0]
PARTS = {"p": [1.0, 2.0, 3.0, 4.0]}
ROW = [{"role": "user", "content": "how?"}]


def said(text):
    return [{"role": "assistant", "content": text}]


def chosen(write, given=GIVEN, totals=TOTALS, *, above=None, only_ended=False, asked=ASKED):
    return select_rows(write, asked, given, totals, PARTS, above=above, only_ended=only_ended)


def test_the_best_answer_with_text():
    made = chosen("sft")
    assert (made.rows, made.best) == ([{"prompt": ROW, "completion": said("b"), "reward": 2.0}], 1)
    assert chosen("sft", only_ended=True).rows == [{"prompt": ROW, "completion": said("a"), "reward": 0.5}]
    with_tools = PromptRecord((USER,), TOOLS, None, Origin())
    assert chosen("sft", asked=with_tools).rows[0]["tools"] == list(TOOLS)


def test_of_equal_answers_the_one_that_ended():
    assert chosen("sft", [SampledAnswer("a", 1, False), SampledAnswer("b", 1, True)], [1.0, 1.0]).best == 1


def test_best_against_worst():
    rows = chosen("pairs").rows
    assert rows == [
        {"prompt": ROW, "chosen": said("b"), "rejected": said("c"), "reward_chosen": 2.0, "reward_rejected": -1.0}
    ]


def test_all_by_rank():
    assert chosen("rankings", totals=[0.5, 2.0, 3.0, 0.5]).rows == [
        {"prompt": ROW, "responses": [said("a"), said("b"), said("c")], "ranks": [2, 1, 2], "rewards": [0.5, 2.0, 0.5]}
    ]


def test_every_answer_with_its_parts():
    rows = chosen("all").rows
    assert [row["reward"] for row in rows] == TOTALS
    assert rows[1] == {
        "prompt": ROW, "completion": said("b"), "reward": 2.0, "parts": {"p": 2.0}, "number": 1, "reference": "so",
        "tokens": 1, "ended": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("write", "change", "why"),
    [
        ("sft", {"above": 2.0}, "best not above 2"),
        ("all", {"above": 3.0}, "best not above 3"),
        ("pairs", {"totals": [1.0, 1.0, 5.0, 1.0]}, "equal rewards"),
        ("rankings", {"totals": [1.0, 1.0, 5.0, 1.0]}, "equal rewards"),
        ("pairs", {"given": [SampledAnswer("a", 1, True)] * 4, "totals": [1.0, 2.0, 3.0, 4.0]}, "equal answers"),
        ("sft", {"given": [SampledAnswer("\n", 1, True)] * 4}, "no answer with text"),
        ("sft", {"given": [SampledAnswer("a", 1, False)] * 4, "only_ended": True}, "no answer ended by itself"),
    ],
)
def test_prompts_that_give_no_row(write, change, why):
    assert chosen(write, **change) == why


def test_above_means_above():
    assert chosen("sft", above=1.9).best == 1
