"""Conversations as people write them."""

import json

import pytest

from luthier.core.errors import InputError
from luthier.core.types.examples import Message
from luthier.data.messages import is_transcript, messages_of, transcript, turns_of
from luthier.data.tool_calls import calls_of, kwargs_of, tools_of
from sentences import sentence

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
    ("item", "fault", "values"),
    [
        ({"role": "narrator", "content": "x"}, "unknown role in row", {"role": "'narrator'"}),
        ({"content": "x"}, "unknown role in row", {"role": None}),
        ({"role": "user"}, "message without content", {}),
        ("hello", "not a message", {"kind": "text"}),
        ({"role": "user", "content": {"a": 1}}, "field not text", {"kind": "an object"}),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            "content cannot be read",
            {"kind": "image_url"},
        ),
        ({"from": "function_call", "value": "search(lute)"}, "field not json", {}),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "tool call without a name", {}),
    ],
)
def test_faults_name_the_field(item, fault, values):
    with pytest.raises(InputError, match=sentence(fault, field="messages[3]", **values)):
        turns_of(item, "messages[3]")


def test_tools_as_text_or_list_with_or_without_the_outer_function():
    inner = {"name": "search", "parameters": {}}
    wrapped = ({"type": "function", "function": inner},)
    assert tools_of(json.dumps([inner])) == tools_of([inner]) == tools_of(list(wrapped)) == wrapped
    assert tools_of("") == tools_of(None) == tools_of("[]") == ()
    with pytest.raises(InputError, match=sentence("field not json", field="tools")):
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


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_stays_under_its_name(name):
    (turn,) = turns_of({"role": "assistant", "content": "No.", name: "91 = 7 * 13."}, "f")
    assert turn.content == "No." and turn.reasoning == "91 = 7 * 13."
    assert turn.as_dict() == {"role": "assistant", "content": "No.", name: "91 = 7 * 13."}


def test_further_keys_of_a_turn_are_kept():
    item = {"role": "tool", "tool_call_id": "a1", "name": "search", "content": "3", "is_error": False, "note": None}
    (turn,) = turns_of(item, "f")
    assert turn.as_dict() == {k: v for k, v in item.items() if v is not None}


def test_null_and_absent_content_are_no_content():
    """As transformers gives them to templates: without the key."""
    for item in ({"content": None}, {}):
        (turn,) = turns_of({"role": "assistant", "tool_calls": [CALL], **item}, "f")
        assert turn.as_dict() == {"role": "assistant", "tool_calls": [CALL]}
    (empty,) = turns_of({"role": "assistant", "content": "", "tool_calls": [CALL]}, "f")
    assert empty.as_dict()["content"] == ""


def test_a_value_beside_a_null_content_is_what_was_said():
    """A table with rows of both forms has both columns."""
    row = {"role": None, "content": None, "from": "human", "value": "hi"}
    assert turns_of(row, "f") == (Message("user", "hi"),)
    with pytest.raises(InputError, match=sentence("content and another value")):
        turns_of({"role": "user", "content": "hi", "value": "ho"}, "f")


def test_a_refusal_is_what_was_said():
    refused = {"role": "assistant", "content": None, "refusal": "I cannot."}
    assert turns_of(refused, "f") == (Message("assistant", "I cannot."),)
    block = {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]}
    assert turns_of(block, "f") == (Message("assistant", "I cannot."),)
    assert turns_of({"role": "assistant", "content": "Yes.", "refusal": None}, "f") == (Message("assistant", "Yes."),)


def test_anthropic_blocks_become_calls_tool_turns_and_thoughts():
    talk = [
        {"role": "user", "content": "How wet?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "ask", "signature": "x"},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "t1", "name": "rain", "input": {"town": "Ulm"}},
                {"type": "tool_use", "id": "t2", "name": "snow", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "30 mm"}]},
                {"type": "tool_result", "tool_use_id": "t2", "content": "none"},
                {"type": "text", "text": "Well?"},
            ],
        },
    ]
    rain = {"id": "t1", "type": "function", "function": {"name": "rain", "arguments": {"town": "Ulm"}}}
    snow = {"id": "t2", "type": "function", "function": {"name": "snow", "arguments": {}}}
    thought = {"reasoning_content": "ask"}
    assert messages_of(talk, "messages", "user") == (
        Message("user", "How wet?"),
        Message("assistant", "Let me look.", tool_calls=(rain, snow), fields=thought),
        Message("tool", "30 mm", fields={"tool_call_id": "t1"}),
        Message("tool", "none", fields={"tool_call_id": "t2"}),
        Message("user", "Well?"),
    )
    schema = {"type": "object", "properties": {}}
    assert tools_of([{"name": "rain", "description": "d", "input_schema": schema}]) == (
        {"type": "function", "function": {"name": "rain", "description": "d", "parameters": schema}},
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "image", "source": {}}], "content of type 'image'"),
        ([{"type": "redacted_thinking", "data": "x"}], "content of type 'redacted_thinking'"),
        ([{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "b"}], "a thought after what was said"),
        ([{"type": "tool_result", "content": [{"type": "image"}]}], "content of type 'image'"),
        ([{"type": "text", "text": "a"}, {"type": "tool_result", "content": "b"}], "a tool's answer after text"),
    ],
)
def test_blocks_that_would_be_lost_are_refused(content, said):
    with pytest.raises(InputError) as caught:
        turns_of({"role": "user", "content": content}, "f")
    assert said in caught.value.what


def test_a_system_prompt_in_blocks():
    """Anthropic's field beside the messages."""
    from luthier.data.layouts import conversation

    row = {"system": [{"type": "text", "text": "Be brief."}], "messages": [{"role": "user", "content": "q"}]}
    assert conversation(row).messages == (Message("system", "Be brief."), Message("user", "q"))


def test_two_thoughts_are_refused_and_equal_ones_are_one():
    both = {"role": "assistant", "content": "x", "reasoning": "a", "reasoning_content": "b"}
    with pytest.raises(InputError, match=sentence("two thoughts")):
        turns_of(both, "f")
    assert turns_of(both | {"reasoning": "b"}, "f")[0].reasoning == "b"
    with pytest.raises(InputError, match=sentence("part of message not text", name="thinking", kind="an object")):
        turns_of({"role": "assistant", "content": "x", "thinking": {"type": "enabled"}}, "f")


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ({"name": "f"}, {}),
        ({"name": "f", "arguments": None}, {}),
        ({"name": "f", "arguments": ""}, {}),
        ({"name": "f", "parameters": {"a": 1}}, {"a": 1}),
        ({"name": "f", "arguments": '{"a": 1}'}, '{"a": 1}'),
        ('{"name": "f", "arguments": {"a": 1}}', {"a": 1}),
    ],
)
def test_arguments_of_a_call(written, arguments):
    (call,) = calls_of(written, "f")
    assert call == {"type": "function", "function": {"name": "f", "arguments": arguments}}


def test_values_for_the_template():
    assert kwargs_of({"enable_thinking": False, "nothing": None}) == {"enable_thinking": False}
    assert kwargs_of('{"a": 1}') == {"a": 1} and kwargs_of(None) == {} == kwargs_of("")
    for bad, fault in (
        ([1], "template values not an object"),
        ("x", "field not json"),
        ({"messages": []}, "template value taken"),
    ):
        with pytest.raises(InputError, match=sentence(fault, field="chat_template_kwargs")):
            kwargs_of(bad)


def test_content_that_could_be_joined_in_two_ways_is_refused():
    assert messages_of([{"role": "user", "content": ["hi"]}], "messages", "user") == (Message("user", "hi"),)
    with pytest.raises(InputError, match=sentence("text as a list")):
        messages_of([{"role": "user", "content": ["hi", "there"]}], "messages", "user")


def test_what_is_no_number_is_not_written_out():
    with pytest.raises(InputError, match=sentence("number that cannot be written", field="messages[0]", value="inf")):
        messages_of([{"role": "user", "content": float("inf")}], "messages", "user")
