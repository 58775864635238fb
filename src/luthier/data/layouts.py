"""What a row means: one function a layout, from the values of its fields to an Example.

`values` holds the fields that are there, by the layout's own names. A fault raises InputError without a
place; `schema.to_examples` adds file and line. `Unused` marks a sound row that yields no example.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types import Chat, Message, Messages, Pair, Prompt, Text
from luthier.data.calls import kwargs_of, tools_of
from luthier.data.messages import as_context, messages_of, plain, text_of

Values = Mapping[str, Any]


class Unused(Exception):
    """A sound row without an example in it, such as a tie; the message says why."""


def text(values: Values) -> Text:
    return Text(text_of(values["text"], "text"))


def alpaca(values: Values) -> Chat:
    answer = Message("assistant", text_of(values["output"], "output"))
    turns = opened(values, (*_history(values.get("history")), *instruction_of(values), answer))
    return Chat(turns, **beside(values))


def conversation(values: Values) -> Chat:
    """ShareGPT and OpenAI chats, told apart message by message."""
    return Chat(conversation_of(values), **beside(values))


def prompt_completion(values: Values) -> Chat:
    """The completion is learned; assistant turns in the prompt are read only, as in TRL."""
    completion = messages_of(values["completion"], "completion", "assistant")
    return Chat(opened(values, (*prompt_of(values), *completion)), **beside(values))


def labels(values: Values) -> Chat:
    content, label = text_of(values["text"], "text"), text_of(values["label"], "label")
    return Chat(opened(values, (Message("user", content), Message("assistant", label))), **beside(values))


def pair(values: Values) -> Pair:
    score = values.get("score")
    texts = [text_of(values[name], name) for name in ("anchor", "positive", "negative") if name in values]
    return Pair(tuple(texts), None if score is None or score == "" else number(score, "score"))


def prompt(values: Values) -> Prompt:
    turns, answer = opened(values, prompt_of(values)), values.get("answer")
    return Prompt(turns, None if answer is None else text_of(answer, "answer"), **beside(values))


def instruction_of(values: Values) -> Messages:
    content = text_of(values["instruction"], "instruction")
    return (Message("user", content, input=text_of(values.get("input"), "input")),)


def _history(value: Any) -> Messages:
    """Earlier turns of an Alpaca row: a list of [user, assistant] texts."""
    turns: list[Message] = []
    if value and not isinstance(value, (list, tuple)):  # an empty cell is none
        raise InputError("field 'history' is not a list of [question, answer]", mend="write pairs of texts")
    for item in value or ():
        if not isinstance(item, (list, tuple)) or len(item) != 2:
            raise InputError("field 'history' is not a list of [question, answer]", mend="write pairs of texts")
        turns += [Message("user", text_of(item[0], "history")), Message("assistant", text_of(item[1], "history"))]
    return tuple(turns)


def opened(values: Values, turns: Messages) -> Messages:
    """`turns` under the row's system prompt, when it has one and they do not bring their own."""
    if turns and turns[0].role == "system":
        return turns
    return (*plain(text_of(values.get("system"), "system"), "system"), *turns)


def conversation_of(values: Values) -> Messages:
    if isinstance(values["messages"], str):
        raise InputError(
            "field 'messages' is text, not a list of messages", mend='write [{"role": ..., "content": ...}]'
        )
    turns = messages_of(values["messages"], "messages", "user")
    if not turns:
        raise InputError("the conversation is empty", mend="give it at least one message")
    return opened(values, turns)


def prompt_of(values: Values) -> Messages:
    """The prompt in whichever field it stands, its last turn begun where that is the assistant's; an empty one, such as
    a transcript's open 'Assistant:', is none."""
    if "instruction" in values and "messages" not in values:
        return instruction_of(values)
    written = values["messages"] if "messages" in values else values.get("prompt", values.get("input"))
    turns = messages_of(written, "messages" if "messages" in values else "prompt", "user")
    return as_context(turns[:-1] if turns and turns[-1] == Message("assistant", "") else turns)


def beside(values: Values) -> dict[str, Any]:
    """What a row gives its chat template beside the turns."""
    return {"tools": tools_of(values.get("tools")), "template_kwargs": kwargs_of(values.get("chat_template_kwargs"))}


def number(value: Any, field: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"field '{field}' is not a number: {value!r}", mend="write a number") from None
    except OverflowError:  # a whole number of hundreds of digits
        raise InputError(f"field '{field}' is beyond what a number can be", mend="write a finite number") from None
    if not math.isfinite(number):
        raise InputError(f"field '{field}' is {value!r}", mend="write a finite number")
    return number
