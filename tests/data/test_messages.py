"""Conversations as people write them."""

import json

import pytest

from luthier.core.errors import InputError
from luthier.core.types import Message
from luthier.data.calls import calls_of, tools_of
from luthier.data.messages import is_transcript, messages_of, transcript, turns_of

CALL = {"type": "function", "function": {"name": "search", "arguments": {"query": "lute"}}}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"role": "user", "content": "hi"}, Message("user", "hi")),
        ({"from": "human", "value": "hi"}, Message("user", "hi")),
        ({"from": "gpt", "value": "hi"}, Message("assistant", "hi")),
        ({"from": "observation", "value": "{}"}, Message("tool", "{}")),
        ({"role": "developer", "content": "be kind"}, Message("system", "be kind")),
        ({"role": "Assistant", "content": "hi"}, Message("assistant", "hi")),
        ({"role": "assistant", "content": "hi", "weight": 0}, Message("assistant", "hi", train=False)),
        ({"role": "assistant", "content": "hi", "weight": 1}, Message("assistant", "hi")),
        ({"role": "assistant", "content": "hi", "weight": None, "tool_calls": None}, Message("assistant", "hi")),
        ({"role": "tool", "name": "search", "content": "3"}, Message("tool", "3", name="search")),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            Message("user", "ab"),
        ),
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, Message("assistant", "", tool_calls=(CALL,))),
        (
            {"from": "function_call", "value": json.dumps(CALL["function"])},
            Message("assistant", "", tool_calls=(CALL,)),
        ),
        ({"role": "assistant", "function_call": CALL["function"]}, Message("assistant", "", tool_calls=(CALL,))),
        (
            {"role": "assistant", "content": [{"type": "reasoning", "value": "hm"}, {"type": "text", "value": "yes"}]},
            Message("assistant", "yes", fields={"reasoning_content": "hm"}),
        ),
    ],
)
def test_one_turn(item, expected):
    assert turns_of(item, "messages[0]") == (expected,)


def test_arguments_written_as_text_stay_text_and_can_be_had_as_an_object():
    written = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"query": "lute"}'}}
    assert calls_of([written], "f") == (written,)
    turn = Message("assistant", "", tool_calls=(written,))
    assert turn.calls_as(dict) == [{"id": "c1", **CALL}] and turn.calls_as(str) == [written]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"role": "narrator", "content": "x"}, "unknown role 'narrator'"),
        ({"content": "x"}, "unknown role None"),
        ({"role": "user"}, "no content"),
        ("hello", "is text, not a message"),
        ({"role": "user", "content": {"a": 1}}, "is an object, not text"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "content of type 'image_url'"),
        ({"from": "function_call", "value": "search(lute)"}, "not JSON"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "without a name"),
    ],
)
def test_faults_name_the_field(item, said):
    with pytest.raises(InputError, match=r"messages\[3\]") as caught:
        turns_of(item, "messages[3]")
    assert said in str(caught.value)


def test_tools_as_text_or_list_with_or_without_the_outer_function():
    inner = {"name": "search", "parameters": {}}
    wrapped = ({"type": "function", "function": inner},)
    assert tools_of(json.dumps([inner])) == tools_of([inner]) == tools_of(list(wrapped)) == wrapped
    assert tools_of("") == tools_of(None) == tools_of("[]") == ()
    with pytest.raises(InputError, match="tools"):
        tools_of("{broken")


def test_transcripts():
    text = "\n\nHuman: one\n\nstill one\n\nAssistant: two Human: said\n\nHuman: three\n\nAssistant:"
    assert transcript(text) == (
        Message("user", "one\n\nstill one"),
        Message("assistant", "two Human: said"),
        Message("user", "three"),
        Message("assistant", ""),
    )
    assert is_transcript(text)
    assert not is_transcript("Human: resources are scarce")
    assert not is_transcript("A play.\n\nHuman: hi\n\nAssistant: hi")


def test_text_becomes_a_message_and_an_empty_prompt_none():
    assert messages_of("hi", "prompt", "user") == (Message("user", "hi"),)
    assert messages_of("", "prompt", "user") == ()
    assert messages_of("", "completion", "assistant") == (Message("assistant", ""),)
    assert messages_of({"from": "gpt", "value": "x"}, "chosen", "assistant") == (Message("assistant", "x"),)
