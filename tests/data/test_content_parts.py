"""A turn's content piece by piece: nothing that a row says in blocks is lost, whoever reads it."""

from __future__ import annotations

import pytest

from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Message, Part
from luthier.data.example_text import as_row
from luthier.data.messages import messages_of, parts_of, turns_of
from sentences import sentence

CACHED = {"cache_control": {"type": "ephemeral"}}
CALL = {"id": "t1", "type": "function", "function": {"name": "rain", "arguments": {"town": "Ulm"}}}
ANSWER = [
    {"type": "thinking", "thinking": "ask", "signature": "s1g"},
    {"type": "text", "text": "Let me "},
    {"type": "text", "text": "look.", "citations": [{"title": "Weather"}]},
    {"type": "tool_use", "id": "t1", "name": "rain", "input": {"town": "Ulm"}},
]
RESULT = {
    "type": "tool_result",
    "tool_use_id": "t1",
    "is_error": True,
    "content": [{"type": "text", "text": "no rain", **CACHED}],
}


def test_ids_flags_and_order_of_blocks_are_kept():
    (answer,) = turns_of({"role": "assistant", "content": ANSWER}, "f")
    assert (answer.content, answer.reasoning, answer.tool_calls) == ("Let me look.", "ask", (CALL,))
    assert answer.parts == (
        Part("reasoning", "ask", fields={"signature": "s1g"}),
        Part("text", "Let me "),
        Part("text", "look.", fields={"citations": [{"title": "Weather"}]}),
        Part("tool_call", value=CALL, id="t1"),
    )
    result, question = turns_of({"role": "user", "content": [RESULT, {"type": "text", "text": "Well?"}]}, "f")
    part = Part("tool_result", "no rain", RESULT["content"], "t1", {"tool_call_id": "t1", "is_error": True})
    assert (result.role, result.parts, result.fields) == ("tool", (part,), {"tool_call_id": "t1", "is_error": True})
    assert question.parts == (part, Part("text", "Well?")), "what one turn of the row held"
    assert turns_of({"role": "user", "content": "plain"}, "f")[0].parts == ()


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (
            {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}},
            Part("picture", value={"url": "a.png", "detail": "low"}),
        ),
        (
            {"type": "image", "source": {"type": "url", "url": "a.png"}, **CACHED},
            Part("picture", value={"type": "url", "url": "a.png"}, fields=CACHED),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
            Part("sound", value={"data": "UklGRg==", "format": "wav"}),
        ),
        ({"type": "audio", "path": "a.wav"}, Part("sound", value="a.wav")),
        ({"type": "refusal", "refusal": "I cannot."}, Part("text", "I cannot.")),
        ({"text": "no type"}, Part("text", "no type")),
        ("bare", Part("text", "bare")),
    ],
)
def test_blocks_of_openai_anthropic_and_transformers(block, part):
    (found,) = parts_of(block, "f")
    named = {"type": block["type"]} if part.kind in ("picture", "sound") or "refusal" in block else {}
    assert found == Part(part.kind, part.text, part.value, part.id, {**part.fields, **named})


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "video"])
def test_what_no_model_here_looks_at_is_refused_by_its_name(kind):
    with pytest.raises(InputError, match=sentence("content cannot be read", field="f", kind=kind)):
        turns_of({"role": "user", "content": [{"type": "text", "text": "See:"}, {"type": kind, kind: {}}]}, "f")


def test_rows_written_again_say_the_same():
    """`luthier data --write` after a check: a signature and a citation are still there, and read the same."""
    talk = [{"role": "user", "content": "How wet?"}, {"role": "assistant", "content": ANSWER[:3]}]
    turns = messages_of(talk, "messages", "user")
    written = as_row(Chat(turns))["messages"]
    assert written[1]["content"] == ANSWER[:3]
    again = messages_of(written, "messages", "user")
    assert (again, [turn.parts for turn in again]) == (turns, [turn.parts for turn in turns])
    plain = messages_of(
        [talk[0], {"role": "assistant", "content": [{"type": "text", "text": "Dry."}]}], "messages", "user"
    )
    assert as_row(Chat(plain))["messages"][1]["content"] == "Dry."


def test_blocks_say_what_the_turn_says_now():
    """A content that was changed since, as a stop token that is taken off, is one block; the old ones say something else."""
    (turn,) = turns_of(
        {"role": "user", "content": [{"type": "text", "text": "a", **CACHED}, {"type": "text", "text": "b"}]}, "f"
    )
    assert turn.blocks() == [{"type": "text", "text": "a", **CACHED}, {"type": "text", "text": "b"}]
    assert Message("user", "c", parts=turn.parts).blocks() == [{"type": "text", "text": "c"}]
    assert Message("user", "c").blocks() == [{"type": "text", "text": "c"}]
