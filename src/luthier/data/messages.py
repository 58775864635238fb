"""Conversations as people write them -> Messages: OpenAI's role/content, ShareGPT's from/value, HH transcripts.

A fault raises InputError without a place; whoever knows the row adds file and line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types import Message, Messages

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
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
}


def text_of(value: Any, field: str) -> str:
    """A field as text: null is empty, a number is written out. Raises InputError for lists and objects."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value)
    raise InputError(f"field '{field}' is {_kind(value)}, not text", mend="write it as a string")


def messages_of(value: Any, field: str, role: str) -> Messages:
    """A text (a message of `role`, or a transcript), one message, or a list of messages. '' and null are none."""
    if isinstance(value, Mapping):
        return (message_of(value, field),)
    if isinstance(value, (list, tuple)):
        return tuple(message_of(item, f"{field}[{i}]") for i, item in enumerate(value))
    text = text_of(value, field)
    return transcript(text) if is_transcript(text) else plain(text, role)


def plain(text: str, role: str) -> Messages:
    """One message, or none for an empty prompt; an empty answer stays, so that it can be counted."""
    return (Message(role, text),) if text or role == "assistant" else ()


def message_of(item: Any, field: str) -> Message:
    """One turn in OpenAI's or ShareGPT's form. `weight: 0` marks a turn that is read but not learned.

    Raises InputError for an unknown role, content that is not text, or a tool call that is not JSON.
    """
    if not isinstance(item, Mapping):
        raise InputError(f"field '{field}' is {_kind(item)}, not a message", mend='write {"role": ..., "content": ...}')
    named = item.get("role", item.get("from"))
    if not isinstance(named, str) or named.lower() not in ROLE_OF:
        known = ", ".join(ROLE_OF)
        raise InputError(f"field '{field}' has the unknown role {named!r}", mend=f"known: {known}")
    role = ROLE_OF[named.lower()]
    content = item.get("content", item.get("value"))
    if content is None and not ({"content", "value", "tool_calls", "function_call"} & set(item)):
        raise InputError(f"field '{field}' has no content", mend='write {"role": ..., "content": ...}')
    written = item.get("tool_calls") or item.get("function_call") or ()
    if named.lower() == "function_call":
        content, written = "", content
    text, inner = _blocks(content, field)
    reasoning = item.get("reasoning_content")
    if isinstance(reasoning, str) and reasoning:
        text = _thought(reasoning) + text
    weight = item.get("weight")
    return Message(
        role,
        text,
        tool_calls=(*calls_of(written, field), *inner),
        name=item["name"] if isinstance(item.get("name"), str) else None,
        train=weight is None or bool(weight),
    )


def _blocks(content: Any, field: str) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    """Content given as a list of typed blocks: texts are joined, reasoning stands in <think> tags before them."""
    if not isinstance(content, (list, tuple)):
        return text_of(content, field), ()
    text = ""
    calls: list[Mapping[str, Any]] = []
    for block in content:
        kind = block.get("type", "text") if isinstance(block, Mapping) else "text"
        value = block.get("text", block.get("value")) if isinstance(block, Mapping) else block
        if kind == "text":
            text += text_of(value, field)
        elif kind == "reasoning":
            text += _thought(text_of(value, field))
        elif kind == "tool_call":
            calls += calls_of(value, field)
        else:
            raise InputError(f"field '{field}' holds content of type '{kind}'", mend="only text can be read")
    return text, tuple(calls)


def _thought(text: str) -> str:
    return f"<think>\n{text}\n</think>\n\n"


def calls_of(value: Any, field: str) -> tuple[Mapping[str, Any], ...]:
    """Tool calls as chat templates read them: {"type": "function", "function": {"name", "arguments": object}}.

    Takes a list or a single call, each with or without the outer "function", as an object or as JSON text.
    """
    value = _json(value, field, "a tool call")
    calls = value if isinstance(value, (list, tuple)) else [value]
    return tuple(_call(call, field) for call in calls)


def _call(call: Any, field: str) -> Mapping[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InputError(f"field '{field}' has a tool call without a name", mend='write {"name": ..., "arguments": {}}')
    arguments = _json(function.get("arguments") or {}, field, "the arguments of a tool call")
    identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {**identity, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def tools_of(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Tool descriptions, a list or its JSON text, each as {"type": "function", "function": {...}}."""
    value = _json(value, "tools", "the tools")
    if not value:
        return ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(tool, Mapping) for tool in value):
        raise InputError("field 'tools' is not a list of tools", mend='write [{"name": ..., "parameters": {...}}]')
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in value)


def _json(value: Any, field: str, what: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else ()
    except (ValueError, RecursionError):
        raise InputError(f"field '{field}': {what} is not JSON: {value[:60]!r}", mend="mend the JSON text") from None


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
