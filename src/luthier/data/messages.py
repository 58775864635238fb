"""Conversations as people write them -> Messages: OpenAI's role/content, ShareGPT's from/value, Anthropic's blocks, HH
transcripts.

A fault raises InputError without a place; whoever knows the row adds file and line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import REASONING, Message, Messages, Part, PartKind
from luthier.data.learned_turns import FLAGS, learned
from luthier.data.tool_calls import calls_of

ROLE_OF = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
CALL_ROLES = ("function_call", "tool_call")  # roles whose content is a call, as JSON
# Keys with a field of their own.
CONTENT_KEYS = ("content", "value", "refusal")
READ_KEYS = frozenset({"role", "from", *CONTENT_KEYS, "tool_calls", "function_call", "name", *FLAGS})

# Types of blocks, as OpenAI, Anthropic and transformers name them.
PART_KINDS: dict[str, PartKind] = {
    **dict.fromkeys(("text", "input_text", "output_text", "refusal"), "text"),
    **dict.fromkeys(("thinking", "reasoning"), "reasoning"),
    **dict.fromkeys(("tool_use", "tool_call"), "tool_call"),
    "tool_result": "tool_result",
    **dict.fromkeys(("image", "image_url", "input_image", "picture"), "picture"),
    **dict.fromkeys(("audio", "audio_url", "input_audio", "sound"), "sound"),
}
SAID = ("text", "value", "content", "refusal")  # keys of a text, the first that is there
LIES = (
    "image_url",
    "image",
    "audio_url",
    "input_audio",
    "audio",
    "source",
    "url",
    "path",
    "data",
)  # of a picture or a sound
UNREADABLE = ("picture", "sound")  # no model here looks or listens


def text_of(value: Any, field: str) -> str:
    """A field as text: null is empty, a number is written out. Raises InputError for lists and objects."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(
            f"field '{field}' is {value}, which is not a number that can be written out", fix="write it as a string"
        )
    if isinstance(value, (int, float)):
        return str(value)
    raise InputError(f"field '{field}' is {_kind(value)}, not text", fix="write it as a string")


def messages_of(value: Any, field: str, role: str) -> Messages:
    """A text (a message of `role`, or a transcript), one message, or a list of messages. '' and null are none."""
    if isinstance(value, Mapping):
        return turns_of(value, field)
    if isinstance(value, (list, tuple)):
        return tuple(turn for i, item in enumerate(value) for turn in turns_of(item, f"{field}[{i}]"))
    text = text_of(value, field)
    return transcript(text) if is_transcript(text) else plain(text, role)


def plain(text: str, role: str) -> Messages:
    """One message, or none for an empty prompt; an empty answer stays, so that it can be counted."""
    return (Message(role, text),) if text or role == "assistant" else ()


def turns_of(item: Any, field: str) -> Messages:
    """What one object of a conversation says, in OpenAI's, ShareGPT's or Anthropic's form: one turn, or the answers of
    several tools and a turn.

    Keys that Luthier has no field for are kept in `fields`, for templates that read them; null stands for absent.
    Raises InputError for an unknown role, content that is not text, a tool call that is not JSON, two thoughts, and for
    a flag that is neither true nor false.
    """
    if not isinstance(item, Mapping):
        raise InputError(f"field '{field}' is {_kind(item)}, not a message", fix='write {"role": ..., "content": ...}')
    role, named = _role(item, field)
    content = _content(item, field)
    written = item.get("tool_calls") or item.get("function_call") or ()
    if named in CALL_ROLES:
        content, written = "", content
    blocks = _blocks(content, field) if isinstance(content, (list, tuple)) else _Blocks(text_of(content, field))
    if blocks.results and role == "assistant":
        raise InputError(f"field '{field}' holds a tool result in an assistant turn", fix="give it a turn of its own")
    name = item.get("name")
    turn = Message(
        role,
        blocks.text,
        tool_calls=(*calls_of(written, field), *blocks.calls),
        name=name if isinstance(name, str) else None,
        train=learned(item, field),
        bare=content is None,
        fields=_fields(item, blocks.thought, field),
        parts=blocks.parts,
    )
    alone = blocks.results and not blocks.text.strip()
    return (*blocks.results, *(() if alone else (turn,)))


def as_context(turns: Messages) -> Messages:
    """A prompt's turns: the assistant's in it are read, not learned; a last one is begun, and what follows goes on in it
    (as in TRL)."""
    turns = tuple(replace(turn, train=False) if turn.role == "assistant" else turn for turn in turns)
    last = turns[-1:]
    begun = last and last[0].role == "assistant" and not last[0].tool_calls
    return (*turns[:-1], replace(last[0], begun=True)) if begun else turns


def _role(item: Mapping[str, Any], field: str) -> tuple[str, str]:
    """The role, and how the row calls it."""
    named = item.get("role") if item.get("role") is not None else item.get("from")
    if not isinstance(named, str) or named.lower() not in ROLE_OF:
        known = ", ".join(ROLE_OF)
        raise InputError(f"field '{field}' has the unknown role {named!r}", fix=f"known: {known}")
    return ROLE_OF[named.lower()], named.lower()


def _content(item: Mapping[str, Any], field: str) -> Any:
    """What is said, in `content`, `value` or OpenAI's `refusal`; None where nothing is, but a call or a thought stands
    there."""
    given = [item[name] for name in CONTENT_KEYS if item.get(name) is not None]
    if len(given) > 1 and given[0] != given[1]:
        raise InputError(f"field '{field}' has content and another value", fix="keep one of them")
    if not given and not (
        {"content", "value", "tool_calls", "function_call", *REASONING, "tool_responses"} & set(item)
    ):
        raise InputError(f"field '{field}' has no content", fix='write {"role": ..., "content": ...}')
    return given[0] if given else None


def _fields(item: Mapping[str, Any], thought: str, field: str) -> dict[str, Any]:
    """What the turn says under other keys, the thought among them. Raises InputError when there are two thoughts."""
    out = {name: value for name, value in item.items() if name not in READ_KEYS and value is not None}
    if not isinstance(item.get("name"), str | None):
        out["name"] = item["name"]
    for name in REASONING:
        if not isinstance(out.get(name, ""), str):
            raise InputError(f"field '{field}': {name} is {_kind(out[name])}, not text", fix="write it as a string")
    thoughts = {value for value in (thought, *(out.get(name, "") for name in REASONING)) if value}
    if len(thoughts) > 1:
        raise InputError(
            f"field '{field}' holds two different reasoning texts", fix=f"keep one of {', '.join(REASONING)}"
        )
    return out | ({REASONING[0]: thought} if thought and thought not in out.values() else {})


def parts_of(block: Any, field: str) -> tuple[Part, ...]:
    """A block of a content with all that it says: one part, or several calls. Raises InputError for a type that is unknown, and
    for a value that is none of its type."""
    if not isinstance(block, Mapping):
        return (Part("text", text_of(block, field)),)
    name = block.get("type") or "text"
    kind = PART_KINDS.get(name) if isinstance(name, str) else None
    if kind == "text":
        rest = _rest(block, "type", *SAID) | ({"type": name} if name == "refusal" else {})
        return (Part("text", text_of(_first(block, *SAID), field), fields=rest),)
    if kind == "reasoning":
        keys = (name, "text", "value")
        return (Part(kind, joined_text(_first(block, *keys), field), fields=_rest(block, "type", *keys)),)
    if kind == "tool_call":
        calls = calls_of(_first(block, "value", "tool_call") or block, field)
        return tuple(Part(kind, value=call, id=str(call.get("id", ""))) for call in calls)
    if kind == "tool_result":
        content = block.get("content")
        value = None if isinstance(content, str) else content
        renamed = {"tool_use_id": "tool_call_id"}
        rest = {renamed.get(key, key): item for key, item in _rest(block, "type", "content").items()}
        return (Part(kind, joined_text(content, field), value, str(rest.get("tool_call_id", "")), rest),)
    if kind is None:
        raise InputError(f"field '{field}' holds content of type '{name}'", fix="only text can be read")
    return (Part(kind, value=_first(block, *LIES), fields=_rest(block, *LIES)),)


@dataclass
class _Blocks:
    """Content given as a list of typed blocks."""

    text: str = ""
    thought: str = ""
    calls: tuple[Mapping[str, Any], ...] = ()
    results: Messages = ()
    parts: tuple[Part, ...] = ()


def _blocks(content: Sequence[Any], field: str) -> _Blocks:
    """Texts joined, thoughts, tool calls, and the answers of tools. Raises InputError for images and what is unknown, and
    where the order of the blocks would be lost."""
    found = _Blocks()
    if sum(isinstance(block, str) and bool(block) for block in content) > 1:
        raise InputError(
            f"field '{field}' is a list of texts", fix="write it as one string, joined as it should be read"
        )
    for part in (part for block in content for part in parts_of(block, field)):
        found.parts += (part,)
        if part.kind in UNREADABLE:
            raise InputError(
                f"field '{field}' holds content of type '{part.fields['type']}'", fix="only text can be read"
            )
        if part.kind == "text":
            found.text += part.text
        elif part.kind == "reasoning":
            _refuse_after(bool(found.text.strip() or found.calls), "a thought after what was said", field)
            found.thought += ("\n\n" if found.thought else "") + part.text
        elif part.kind == "tool_call":
            found.calls += (part.value,)
        else:
            _refuse_after(bool(found.text.strip()), "a tool's answer after text", field)
            found.results += (Message("tool", part.text, fields=part.fields, parts=(part,)),)
    return found


def _rest(block: Mapping[str, Any], *read: str) -> dict[str, Any]:
    """What else a block says."""
    return {key: value for key, value in block.items() if key not in read and value is not None}


def joined_text(content: Any, field: str) -> str:
    """Text, or the text of a list of text blocks."""
    if not isinstance(content, (list, tuple)):
        return text_of(content, field)
    inner = _blocks(content, field)
    _refuse_after(bool(inner.thought or inner.calls or inner.results), "blocks within a block", field)
    return inner.text


def _first(block: Any, *names: str) -> Any:
    """The block itself where it is no object; else what it holds under the first of `names`."""
    if not isinstance(block, Mapping):
        return block
    return next((block[name] for name in names if block.get(name) is not None), None)


def _refuse_after(bad: bool, what: str, field: str) -> None:
    if bad:
        raise InputError(f"field '{field}' holds {what}", fix="split it into turns of their own")


TURN = re.compile(r"(?:^|\n\n)\s*(Human|Assistant):")


def is_transcript(text: str) -> bool:
    """Whether a text is a dialogue of 'Human:' and 'Assistant:' turns, as in Anthropic's HH data."""
    return text.lstrip().startswith("Human:") and "\n\nAssistant:" in text


def transcript(text: str) -> Messages:
    """The turns of an HH transcript, outer white space removed. A turn begins after an empty line only."""
    parts = TURN.split(text.strip())
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return tuple(Message("user" if who == "Human" else "assistant", said.strip()) for who, said in turns)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", tuple: "a list", bool: "a truth value", str: "text"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else f"a {type(value).__name__}")
