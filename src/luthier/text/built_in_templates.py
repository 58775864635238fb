"""The templates that Luthier brings, alpaca and plain: as functions, and as Jinja text for other programs.

Here too is how tools, calls and thoughts are put into words for templates that have no place for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from luthier.core.types.examples import REASONING, Message
from luthier.text.tokenizer import Tokenizer

Tools = Sequence[Mapping[str, Any]]
Text = Callable[[int, bool], str]  # (how many of the messages, whether to ask for an answer) -> text
Wanted = tuple[int, bool]


class Writer(Protocol):
    """Messages, tools, values -> their text."""

    def __call__(
        self, messages: Sequence[Message], tools: Tools, given: Mapping[str, Any], asked: Sequence[Wanted] = ..., /
    ) -> Text: ...


ALPACA_TASK = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)
ALPACA_TASK_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
INSTRUCTION, INPUT, RESPONSE = "\n\n### Instruction:\n", "\n\n### Input:\n", "\n\n### Response:\n"
WORDING = "\n".join((ALPACA_TASK, ALPACA_TASK_INPUT, INSTRUCTION, INPUT, RESPONSE))  # what makes alpaca what it is

THINK, THOUGHT = "<think>\n", "\n</think>\n\n"
TOOLS = (
    'These tools can be called by answering <tool_call>{"name": ..., "arguments": {...}}</tool_call>.\n'
    "<tools>\n%s\n</tools>"
)

# `words` writes a message with its thought and calls, `schemas` the tools: as the functions below do.
JINJA_WORDS = """\
{%- macro words(message) -%}
{%- set thought = message.reasoning_content or message.thinking or message.reasoning -%}
{{- THINK + thought + THOUGHT if thought -}}
{{- message.content or '' -}}
{%- for call in message.tool_calls or [] -%}
{{- '\\n' if thought or message.content or not loop.first -}}
{%- set called = call.function or call -%}
{%- if called.arguments is string -%}
{{- '<tool_call>{"name": ' + (called.name | tojson) + ', "arguments": ' + called.arguments + '}</tool_call>' -}}
{%- else -%}
{{- '<tool_call>' + (called | tojson) + '</tool_call>' -}}
{%- endif -%}
{%- endfor -%}
{%- endmacro -%}
{%- macro schemas() -%}
{%- for tool in tools %}{{ ('' if loop.first else '\\n') + (tool | tojson) }}{% endfor -%}
{%- endmacro -%}
{%- set told = TOOLS_BEFORE + schemas() + TOOLS_AFTER if tools else '' -%}
{%- set led = messages and messages[0].role == 'system' -%}
{%- set system = (words(messages[0]) if led else '') + ('\\n\\n' if led and told else '') + told -%}
"""
JINJA_ALPACA = """\
{%- set first = messages | selectattr('role', 'equalto', 'user') | first -%}
{%- if led or told %}{{ system }}{% elif first and first.input %}{{ TASK_INPUT }}{% else %}{{ TASK }}{% endif -%}
{%- for message in (messages[1:] if led else messages) -%}
{%- if message.role == 'assistant' -%}
{{- RESPONSE + words(message) + eos_token -}}
{%- else -%}
{{- (INPUT if message.role == 'tool' else INSTRUCTION) + words(message) -}}
{{- INPUT + message.input if message.input -}}
{%- endif -%}
{%- endfor -%}
{{- RESPONSE if add_generation_prompt -}}
"""
JINJA_PLAIN = """\
{{- system -}}
{%- for message in (messages[1:] if led else messages) -%}
{{- words(message) -}}
{{- '\\n\\n' + message.input if message.input -}}
{{- eos_token if message.role == 'assistant' -}}
{%- endfor -%}
"""


def alpaca(tokenizer: Tokenizer) -> Writer:
    """Stanford Alpaca's layout. A system message takes the place of its first paragraph; several turns repeat
    the headings. It differs from Stanford's in the newline after `### Response:`, as most later users have it."""

    def write(
        messages: Sequence[Message], tools: Tools, kwargs: Mapping[str, Any], asked: Sequence[Wanted] = ()
    ) -> Text:
        first = next((message for message in messages if message.role == "user"), None)
        task = ALPACA_TASK_INPUT if first and first.input else ALPACA_TASK
        parts = [_alpaca_part(message, tokenizer) for message in messages]
        if messages and messages[0].role == "system":
            task, parts[0] = tokenizer.seal(messages[0].content), ""
        return lambda count, prompt: tokenizer.opening + task + "".join(parts[:count]) + (RESPONSE if prompt else "")

    return write


def _alpaca_part(message: Message, tokenizer: Tokenizer) -> str:
    content = tokenizer.seal(message.content)
    if message.role == "assistant":
        return RESPONSE + content + tokenizer.eos
    heading = INPUT if message.role == "tool" else INSTRUCTION
    return heading + content + (INPUT + tokenizer.seal(message.input) if message.input else "")


def plain(tokenizer: Tokenizer) -> Writer:
    """Contents one after the other with nothing between; EOS after each answer."""

    def write(
        messages: Sequence[Message], tools: Tools, kwargs: Mapping[str, Any], asked: Sequence[Wanted] = ()
    ) -> Text:
        parts = [tokenizer.seal(message.said) for message in messages]
        answers = [message.role == "assistant" for message in messages]

        def text(count: int, prompt: bool) -> str:
            out, run = tokenizer.opening, ""
            for part, answer in zip(parts[:count], answers, strict=False):
                if answer:
                    out, run = out + run + part + tokenizer.eos, ""
                else:
                    run = tokenizer.guard(run + part)  # two harmless halves could make a control token
            return out + run

        return text

    return write


def as_jinja(name: str, opening: str) -> str:
    """The Jinja text that renders as 'alpaca' or 'plain' does; `opening` is what plain text starts with."""
    before, after = TOOLS.split("%s")
    wording = {
        "TASK_INPUT": ALPACA_TASK_INPUT, "TASK": ALPACA_TASK, "INSTRUCTION": INSTRUCTION, "INPUT": INPUT,
        "RESPONSE": RESPONSE, "TOOLS_BEFORE": before, "TOOLS_AFTER": after, "THINK": THINK, "THOUGHT": THOUGHT,
    }  # fmt: skip
    body = JINJA_WORDS + (JINJA_ALPACA if name == "alpaca" else JINJA_PLAIN)
    body = re.sub(rf"\b({'|'.join(wording)})\b", lambda found: json.dumps(wording[found[0]]), body)
    return ("{{- bos_token -}}\n" if opening else "") + body


def tools_in_words(messages: Sequence[Message], tools: Tools) -> list[Message]:
    """The messages, the tools told of in the system prompt."""
    words = TOOLS % "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    if messages and messages[0].role == "system":
        return [replace(messages[0], content=f"{messages[0].content}\n\n{words}"), *messages[1:]]
    return [Message("system", words), *messages]


def calls_in_words(message: Message) -> Message:
    """The message, its calls written below its content."""
    lines = [message.content] if message.content else []
    for call in message.tool_calls:
        function = call.get("function", call)
        written = json.dumps(function, ensure_ascii=False)
        if isinstance(arguments := function.get("arguments"), str):  # JSON already, as OpenAI writes them
            written = f'{{"name": {json.dumps(function["name"], ensure_ascii=False)}, "arguments": {arguments}}}'
        lines.append(f"<tool_call>{written}</tool_call>")
    return replace(message, content="\n".join(lines), tool_calls=())


def thought_in_words(message: Message) -> Message:
    """The message, its thought written before its content in the tags that most thinking models know."""
    rest = {name: value for name, value in message.fields.items() if name not in REASONING}
    return replace(message, content=f"{THINK}{message.reasoning}{THOUGHT}{message.content}", fields=rest)


def in_words(message: Message) -> Message:
    """The message with its thought and its calls in its content."""
    message = thought_in_words(message) if message.reasoning else message
    return calls_in_words(message) if message.tool_calls else message
