"""Calls of functions in answers, in the forms in which templates write them."""

from __future__ import annotations

import json

import pytest

from luthier.evals.consistency import likeness
from luthier.evals.metrics.answer_metrics import auto
from luthier.evals.metrics.tool_calls import arguments_f1, called, calls_right, names_right

CALL = {"name": "weather", "arguments": {"place": "Lima", "days": 2}}
PLAIN = json.dumps(CALL)
IN_TAGS = f"<tool_call>\n{PLAIN}\n</tool_call>"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        IN_TAGS,
        f"I look it up.\n{IN_TAGS}",
        f"[TOOL_CALLS] [{PLAIN}]",
        f"```json\n{PLAIN}\n```",
        json.dumps({"name": "weather", "parameters": CALL["arguments"]}),
        json.dumps({"type": "function", "function": {"name": "weather", "arguments": json.dumps(CALL["arguments"])}}),
        json.dumps({"tool_calls": [CALL]}),
        "{not JSON} " + PLAIN,
    ],
)
def test_the_forms_of_a_call(text):
    assert called(text) == [CALL]
    assert calls_right(text, IN_TAGS) == names_right(text, IN_TAGS) == arguments_f1(text, IN_TAGS) == 1.0


@pytest.mark.parametrize(
    "text",
    ["", "It is sunny.", '{"place": "Lima"}', '{"name": "weather"}', '{"name": 3, "arguments": {}}', "{" * 10_000],
)
def test_what_is_no_call(text):
    assert called(text) == []
    assert calls_right(text, IN_TAGS) == names_right(text, IN_TAGS) == arguments_f1(text, IN_TAGS) == 0.0
    assert calls_right(text, "Where are you?") == 1.0  # no call where there should be none
    assert calls_right(IN_TAGS, text) == 0.0


@pytest.mark.parametrize("empty", ["{}", "null", '""', '"{}"'])
def test_a_call_without_arguments(empty):
    text = f'{{"name": "now", "arguments": {empty}}}'
    assert called(text) == [{"name": "now", "arguments": {}}]
    assert calls_right("It is noon.", text) == 0.0


def test_a_row_of_data_is_no_call():
    row = '{"name": "Pump", "parameters": {"power": 3}, "price": 12}'
    assert called(row) == []
    assert auto([row] * 8)[0] == "json_f1"


def test_one_argument_is_wrong():
    other = PLAIN.replace("Lima", "Rome")
    assert (calls_right(other, PLAIN), names_right(other, PLAIN)) == (0.0, 1.0)
    assert arguments_f1(other, PLAIN) == pytest.approx(2 / 3)  # of name, place and days, two are equal


def test_several_calls_in_any_order_and_each_as_often():
    second = json.dumps({"name": "time", "arguments": {}})
    assert calls_right(f"{second}\n{PLAIN}", f"{PLAIN}\n{second}") == 1.0
    assert calls_right(PLAIN, f"{PLAIN}\n{second}") == names_right(PLAIN, f"{PLAIN}\n{second}") == 0.0
    assert names_right(f"{PLAIN}{PLAIN}", PLAIN) == 0.0


def test_chosen_where_a_quarter_of_the_answers_call():
    rows = [IN_TAGS, "Which place?", "It is sunny in Lima.", "You are welcome, ask me again."]
    assert auto(rows)[:3] == ("tool_calls", "tool_names", "tool_arguments")
    assert auto([*rows, "One more in words."])[0] == "rouge_l"
    assert likeness("tool_calls", [])(PLAIN, IN_TAGS) == 1.0
