"""What a row means: one function a layout, from the values of its fields to an Example.

`values` holds the fields that are there, by the layout's own names. A fault raises InputError without a
place; `convert.to_pairs` adds file and line. `Unused` marks a sound row that yields no example.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Message, Messages, Pair, Prompt, Text
from luthier.data.messages import as_context, joined_text, messages_of, plain, text_of
from luthier.data.templated import MARK, turns_in
from luthier.data.tool_calls import kwargs_of, tools_of

Values = Mapping[str, Any]


class Unused(Exception):
    """A sound row without an example in it, such as a tie; the message says why."""


def text(values: Values) -> Text:
    return Text(text_of(values["text"], "text"))


def alpaca(values: Values) -> Chat:
    answer = (Message("assistant", text_of(values["output"], "output")),)
    turns = opened(values, (*_history(values.get("history")), *instruction_of(values), *_thought(values, answer)))
    return Chat(turns, **beside(values))


def conversation(values: Values) -> Chat:
    """ShareGPT and OpenAI chats, told apart message by message."""
    return Chat(conversation_of(values), **beside(values))


def prompt_completion(values: Values) -> Chat:
    """The completion is learned; assistant turns in the prompt are read only, as in TRL."""
    completion = _thought(values, _answer(values["completion"]))
    return Chat(opened(values, (*prompt_of(values), *completion)), **beside(values))


def _thought(values: Values, answer: Messages) -> Messages:
    """The answer with the reasoning that leads to it, where the row has it in a column of its own."""
    thought = text_of(values.get("reasoning_content"), "reasoning_content").strip()
    if not thought or any(thought in text for turn in answer for text in (turn.reasoning, turn.content)):
        return answer
    if len(answer) != 1 or answer[0].reasoning or "<think>" in answer[0].content:
        raise InputError(
            "a reasoning column beside an answer that has its own reasoning or several turns",
            fix="keep one of them",
        )
    return (replace(answer[0], fields={**answer[0].fields, "reasoning_content": thought}),)


def _answer(value: Any) -> Messages:
    """A completion; of SQuAD's answers, which are all right ones, the first."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), (list, tuple)):
        value = [{"text": text} for text in value["text"]]
    if isinstance(value, (list, tuple)) and all(isinstance(item, Mapping) and "text" in item for item in value):
        if not value:
            raise Unused("no answer: the question cannot be answered")
        value = value[0]["text"]
    return messages_of(value, "completion", "assistant")


def templated(values: Values) -> Chat:
    """A text that is a conversation in a known template, read turn by turn."""
    turns = turns_in(text_of(values["text"], "text"))
    if turns is None:
        raise InputError(
            "the text is not a conversation in one known chat template",
            fix="leave such rows out with --data.skip_bad, or read all as they stand with --data.layout text",
        )
    return Chat(opened(values, turns), **beside(values))


def labels(values: Values) -> Chat:
    """The label is a text or a number, or a list of them: several are joined with ', '."""
    content, label = text_of(values["text"], "text"), values["label"]
    if label is None or label == "":
        raise Unused("no label")
    if isinstance(label, (list, tuple)):
        if not all(isinstance(item, (str, int, float)) for item in label):
            raise InputError(
                "field 'label' holds no label but a list of lists or objects",
                fix="declare --data.layout spans if they mark spans of the text, or turn each row into a prompt and a completion",
            )
        if not label:
            raise Unused("no label")
        label = ", ".join(map(str, label))
    label = text_of(label, "label")
    return Chat(opened(values, (Message("user", content), Message("assistant", label))), **beside(values))


def pair(values: Values) -> Pair:
    score = values.get("score")
    texts = [text_of(values[name], name) for name in ("anchor", "positive", "negative") if name in values]
    return Pair(tuple(texts), None if score is None or score == "" else number(score, "score"))


def prompt(values: Values) -> Prompt:
    turns, answer = opened(values, prompt_of(values)), values.get("answer")
    return Prompt(turns, None if answer is None else text_of(answer, "answer"), **beside(values))


def instruction_of(values: Values) -> Messages:
    asked = (Message("user", text_of(values["instruction"], "instruction")),)
    return _about(asked, values["input"]) if values.get("input") else asked


def _history(value: Any) -> Messages:
    """Earlier turns of an Alpaca row: a list of [user, assistant] texts."""
    turns: list[Message] = []
    if value and not isinstance(value, (list, tuple)):  # an empty cell is none
        raise InputError("field 'history' is not a list of [question, answer]", fix="write pairs of texts")
    for item in value or ():
        if not isinstance(item, (list, tuple)) or len(item) != 2:
            raise InputError("field 'history' is not a list of [question, answer]", fix="write pairs of texts")
        turns += [Message("user", text_of(item[0], "history")), Message("assistant", text_of(item[1], "history"))]
    return tuple(turns)


def opened(values: Values, turns: Messages) -> Messages:
    """`turns` under the row's system prompt, when it has one and they do not bring their own."""
    own = plain(joined_text(values.get("system"), "system"), "system")
    if turns and turns[0].role == "system":
        if own and own[0].content.strip() != turns[0].content.strip():
            raise InputError("a system prompt beside a conversation that has another", fix="keep one of them")
        return turns
    return (*own, *turns)


def conversation_of(values: Values) -> Messages:
    if isinstance(values["messages"], str):
        raise InputError(
            "field 'messages' is text, not a list of messages", fix='write [{"role": ..., "content": ...}]'
        )
    written = values["messages"]
    if isinstance(written, (list, tuple)) and written and all(_is_round(item) for item in written):
        written = [turn for item in written for turn in _round(item)]
    turns = messages_of(written, "messages", "user")
    if not turns:
        raise InputError("the conversation is empty", fix="give it at least one message")
    return opened(values, turns)


def _is_round(item: Any) -> bool:
    """Whether an object is a question with its answer (Capybara's way to write a conversation)."""
    return isinstance(item, Mapping) and item.keys() == {"input", "output"}


def _round(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": item["input"]}, {"role": "assistant", "content": item["output"]}]


def prompt_of(values: Values) -> Messages:
    """The prompt in whichever field it stands, what it is about with it, its last turn begun where that is the assistant's;
    an empty one, such as a transcript's open 'Assistant:', is none."""
    if "instruction" in values and "messages" not in values:
        return instruction_of(values)
    name = next((name for name in ("messages", "prompt") if name in values), "input")
    turns = turns_of_text(values.get(name), name, "user")
    turns = turns[:-1] if turns and turns[-1] == Message("assistant", "") else turns
    about = values.get("input") if name == "prompt" else None
    return as_context(_about(turns, about) if about else turns)


def templated_text(value: Any) -> bool:
    """Whether a value is a text with marks of a chat template that can be read turn by turn."""
    return isinstance(value, str) and MARK.search(value) is not None and turns_in(value) is not None


def turns_of_text(value: Any, name: str, role: str) -> Messages:
    """As `messages_of`; a text that is written in a chat template is read turn by turn."""
    turns = turns_in(value) if isinstance(value, str) and MARK.search(value) else None
    return messages_of(value, name, role) if turns is None else turns


def _about(turns: Messages, about: Any) -> Messages:
    """The turns with what the last question is about: a passage, or several in a list."""
    if isinstance(about, (list, tuple)) and all(isinstance(part, str) for part in about):
        about = "\n\n".join(about)
    place = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
    if place is None:
        return (*turns, Message("user", text_of(about, "input")))
    asked = replace(turns[place], input=text_of(about, "input"))
    return (*turns[:place], asked, *turns[place + 1 :])


def beside(values: Values) -> dict[str, Any]:
    """What a row gives its chat template beside the turns."""
    return {"tools": tools_of(values.get("tools")), "template_kwargs": kwargs_of(values.get("chat_template_kwargs"))}


def number(value: Any, field: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"field '{field}' is not a number: {value!r}", fix="write a number") from None
    except OverflowError:  # a whole number of hundreds of digits
        raise InputError(f"field '{field}' is beyond what a number can be", fix="write a finite number") from None
    if not math.isfinite(number):
        raise InputError(f"field '{field}' is {value!r}", fix="write a finite number")
    return number
