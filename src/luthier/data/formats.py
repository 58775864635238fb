"""Examples -> rows as other tools and services take them. What is written is read again first: what a format cannot say is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Example, Message, Messages, Preference
from luthier.data.convert import to_examples
from luthier.data.detect import detect
from luthier.data.example_text import as_row
from luthier.data.read import Row

SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def rows_in(name: str, examples: Iterable[Example]) -> Iterator[Mapping[str, Any]]:
    """The examples as rows of the format `name`. Raises InputError, with its place, for one that the format has no form for, or would
    read as another."""
    for example in examples:
        row = WRITERS[name](example)
        if row is None or not _reads_back(row, example):
            kind = type(example).__name__.lower()
            raise InputError(
                f"the format '{name}' cannot say what this {kind} says", where=example.origin,
                fix="write it as another of " + ", ".join(WRITERS),
            )  # fmt: skip
        yield row


def _reads_back(row: Mapping[str, Any], example: Example) -> bool:
    rows = [Row(json.loads(json.dumps(row)), example.origin)]
    try:
        (read,) = to_examples(rows, detect(rows, {}), {})
    except (InputError, ValueError):  # refused, or no example
        return False
    return type(read) is type(example) and _plain(as_row(read)) == _plain(as_row(example))


def _plain(value: Any) -> Any:
    """A row with the arguments of calls as what they say, in whichever way they are written."""
    if isinstance(value, Mapping):
        found = {key: _plain(item) for key, item in value.items()}
        if isinstance(found.get("arguments"), str):
            found["arguments"] = json.loads(found["arguments"])
        return found
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _trl(example: Example) -> Mapping[str, Any]:
    """As TRL's trainers take it, which is what Luthier writes too."""
    return as_row(example)


def _openai(example: Example) -> Mapping[str, Any] | None:
    """As OpenAI's fine-tuning takes it: supervised, or of preferences."""
    if isinstance(example, Chat):
        return (
            {"messages": _spelled(as_row(example).get("messages"))} | _tools(example)
            if "messages" in as_row(example)
            else None
        )
    if isinstance(example, Preference) and example.margin is None:
        row = as_row(example)
        asked = {"messages": _spelled(row["prompt"])} | _tools(example) if "prompt" in row else None
        answers = {"preferred_output": _spelled(row["chosen"]), "non_preferred_output": _spelled(row["rejected"])}
        return asked and {"input": asked, **answers}
    return None


def _spelled(turns: Any) -> list[dict[str, Any]]:
    """Turns with the arguments of their calls as JSON text."""
    out = []
    for turn in turns:
        calls = [
            {**call, "function": {**call["function"], "arguments": _text(call["function"].get("arguments", {}))}}
            if "function" in call else call
            for call in turn.get("tool_calls", ())
        ]  # fmt: skip
        out.append({**turn, **({"tool_calls": calls} if calls else {})})
    return out


def _text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _tools(example: Chat | Preference) -> dict[str, Any]:
    return {"tools": list(example.tools)} if example.tools else {}


def _alpaca(example: Example) -> Mapping[str, Any] | None:
    """An instruction, what it is about, and its output; earlier turns in pairs."""
    if not isinstance(example, Chat) or example.tools:
        return None
    system = [turn.content for turn in example.messages[:1] if turn.role == "system"]
    turns = example.messages[len(system) :]
    pairs = list(zip(turns[::2], turns[1::2], strict=False))
    if not pairs or len(turns) % 2 or any((one.role, two.role) != ("user", "assistant") for one, two in pairs):
        return None
    *earlier, (asked, answer) = pairs
    row: dict[str, Any] = {"instruction": asked.content, "input": asked.input, "output": answer.content}
    row |= {"history": [[one.said, two.content] for one, two in earlier]} if earlier else {}
    return row | ({"system": system[0]} if system else {})


def _sharegpt(example: Example) -> Mapping[str, Any] | None:
    """Turns of from and value; a call is a turn of its own."""
    if not isinstance(example, Chat):
        return None
    turns = [turn for message in example.messages for turn in _said(message)]
    tools = {"tools": json.dumps(list(example.tools), ensure_ascii=False)} if example.tools else {}
    return {"conversations": turns, **tools}


def _said(message: Message) -> Messages | list[dict[str, str]]:
    calls = message.calls_as(dict)
    said = [{"from": SPEAKERS[message.role], "value": message.said}] if message.said or not calls else []
    functions = [call.get("function", call) for call in calls]
    written: Any = functions[0] if len(functions) == 1 else functions
    return said + ([{"from": "function_call", "value": json.dumps(written, ensure_ascii=False)}] if calls else [])


WRITERS: dict[str, Callable[[Example], Mapping[str, Any] | None]] = {
    "openai": _openai,
    "trl": _trl,
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
}
