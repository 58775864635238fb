"""What a chat template reads of a conversation, and the forms in which it can be given one.

Templates expect different things of the same message: arguments as objects or as text, a thought under this name or
that, a content that is there. They get it as transformers gives it, and another form where that fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from luthier.core.errors import InputError
from luthier.core.types.examples import REASONING, Message

Thoughts = Literal["fields", "blocks", "content"]  # where a template finds them


PROBE_THOUGHT, PROBE_TEXT = "luthier-thought", "luthier-text"


@dataclass(frozen=True)
class TemplateReads:
    """variables: names it looks up, such as `tools` and `enable_thinking`; fields: those of messages and their like;
    words: texts that it compares with or looks for."""

    variables: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()


def find_thoughts(read: TemplateReads, render: Callable[[list[dict[str, Any]]], str]) -> Thoughts:
    """Where a template that reads `read` finds a thought, by what `render` makes of conversations with one.

    Where a thought comes out of none of them, the template that names such a field gets it there: a value that a row
    gives may show it.
    """
    named = bool(set(REASONING) & read.fields)
    ways: dict[Thoughts, bool] = {"fields": named, "blocks": "thinking" in read.words}
    for way, likely in ways.items():
        for turns in (turns for probe in _probes() for turns in forms(probe, partial(_itself, way)) if likely):
            with suppress(InputError):
                if PROBE_THOUGHT in render(turns):
                    return way
    return "fields" if named else "content"


def find_blocks(read: TemplateReads, render: Callable[[list[dict[str, Any]]], str]) -> bool:
    """Whether a template takes what is said as typed blocks alone, as those of some models of text and pictures do, by what
    `render` makes of a conversation in either form."""
    if "type" not in read.fields | read.words:
        return False
    probe = [Message("user", PROBE_TEXT), Message("assistant", "!")]
    for blocks in (False, True):
        with suppress(InputError):
            if PROBE_TEXT in render(next(forms(probe, partial(_itself, "content"), partial(bool, blocks)))):
                return blocks
    return False


def _itself(way: Thoughts) -> Thoughts:
    return way


def forms(
    messages: Sequence[Message], thoughts: Callable[[], Thoughts], blocks: Callable[[], bool] = lambda: False
) -> Iterator[list[dict[str, Any]]]:
    """The messages as plain dicts: first as the row writes them, then with what templates may want instead.

    Arguments of calls as objects, then as JSON text; an empty content in the place of none. Where the template reads typed
    `blocks` alone, what is said is given as such.
    """
    written = [_given(message, thoughts) for message in messages]
    if blocks():
        pairs = zip(written, messages, strict=True)
        written = [
            turn | {"content": m.blocks()} if isinstance(turn.get("content"), str) else turn for turn, m in pairs
        ]
    yield written
    kinds = {type(call.get("function", call).get("arguments")) for m in messages for call in m.tool_calls}
    others: list[type | None] = [None, *([dict] if str in kinds else []), *([str] if kinds - {str} else [])]
    bare = any("content" not in turn for turn in written)
    for kind in others:
        turns = [
            turn | {"tool_calls": message.calls_as(kind)} if kind and message.tool_calls else turn
            for turn, message in zip(written, messages, strict=True)
        ]
        if kind:
            yield turns
        if bare:
            yield [{"role": turn["role"], "content": "", **turn} for turn in turns]


def _given(message: Message, thoughts: Callable[[], Thoughts]) -> dict[str, Any]:
    """As transformers' apply_chat_template hands it on: a thought under each name that templates read."""
    turn = message.as_dict()
    thought = next((turn[name] for name in REASONING if turn.get(name) is not None), None)
    if thought is None:
        return turn
    if not thought or thoughts() == "fields":
        return {"thinking": thought, "reasoning": thought, **turn, "reasoning_content": thought}
    blocks = [{"type": "thinking", "thinking": thought}]
    if message.said:
        blocks.append({"type": "text", "text": message.said})
    return {name: value for name, value in turn.items() if name not in REASONING} | {"content": blocks}


def _probes() -> Iterator[list[Message]]:
    """Conversations with a thought, by which is seen where a template finds it: at an end, beside a call, in between."""
    call = {"id": "luthier00", "type": "function", "function": {"name": "luthier_tool", "arguments": {}}}
    asked, thought = Message("user", "?"), {REASONING[0]: PROBE_THOUGHT}
    answer = Message("assistant", "!", fields=thought)
    yield [asked, answer]
    calling = Message("assistant", "", tool_calls=(call,), bare=True, fields=thought)
    told = Message("tool", "!", name="luthier_tool", fields={"tool_call_id": "luthier00"})
    yield [asked, calling, told, replace(answer, fields={})]
    yield [asked, answer, asked, answer]


def calls_missing(messages: Sequence[Message], text: str) -> bool:
    """Whether `text` lacks the name of a function that is called."""
    for message in messages:
        for call in message.tool_calls:
            if str(call.get("function", call).get("name")) not in text:
                return True
    return False


def quoted_again(messages: Sequence[Message], text: str) -> bool:
    """Whether the template writes arguments that are JSON text as a JSON string: quoted twice."""
    for message in messages:
        for call in message.tool_calls:
            arguments = call.get("function", call).get("arguments")
            if isinstance(arguments, str) and '"' in arguments and arguments not in text:
                spelt = (json.dumps(arguments, ensure_ascii=ascii)[1:-1] for ascii in (False, True))
                if any(quoted in text for quoted in spelt):
                    return True
    return False


def unread(messages: Sequence[Message], kwargs: Mapping[str, Any], read: TemplateReads) -> set[str]:
    """What a row says that no way through the template looks at: keys of its turns, and values for the template."""
    seen = read.fields | read.words
    out = {f"messages.{name}" for message in messages for name in message.fields if name not in seen}
    paired = {
        *REASONING,
        "tool_call_id",
    }  # thoughts are looked for in the text; answers follow the order of their calls
    return {name for name in out if name.split(".")[1] not in paired} | {
        f"chat_template_kwargs.{name}" for name in kwargs if name not in read.variables
    }
