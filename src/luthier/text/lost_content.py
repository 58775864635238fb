"""What a row says that its text does not: looked for after rendering, whatever the template is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import Message
from luthier.text.template import Template
from luthier.text.template_reads import calls_missing, quoted_again, unread
from luthier.text.tokenizer import SEPARATOR

TAGS = re.compile(r"</?(?:think|thinking|thought|reasoning|analysis|reflection|scratchpad)>|\[/?THINK\]")


def refuse_loss(message: Message, text: str, turn: int, template: Template) -> None:
    """Raise InputError where `text`, what is learned of the answer `message`, lacks its thought or one of its calls."""
    text = text.replace(SEPARATOR, "")
    thoughts = [message.reasoning, *(TAGS.split(message.content) if TAGS.search(message.content) else ())]
    if not all(_plain(thought) in text for thought in thoughts):
        raise InputError(
            f"turn {turn}: the template {template.name} leaves out the reasoning of this answer, so it would not be learned",
            fix="give one that writes it with --text.template, or remove the reasoning from the row",
        )
    if calls_missing([message], text):
        raise InputError(
            f"turn {turn}: the template {template.name} leaves a tool call of this answer out",
            fix="give one that writes it with --text.template",
        )
    names = [str(call.get("function", call).get("name")) for call in message.tool_calls]
    if message.reasoning and any(text.find(name) < text.find(_plain(message.reasoning)) for name in names):
        raise InputError(
            f"turn {turn}: the template {template.name} writes the reasoning of this answer after its tool call",
            fix="give one that writes it before with --text.template, or remove the reasoning from the row",
        )


def unwritten(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], kwargs: Mapping[str, Any], text: str, template: Template
) -> set[str]:  # fmt: skip
    """What of the row is not in its `text`, in words that follow on 'the template'. Thoughts of earlier turns may be
    dropped: models are asked without them."""
    text = text.replace(SEPARATOR, "")
    out = set()
    for message in messages:
        said = (TAGS.split(message.content)[-1], message.input)
        if not all(_plain(part) in text for part in said):
            beside = " beside a tool call" if message.tool_calls else ""
            out.add(f"leaves out what the {message.role} says{beside}")
    if not all(str(tool.get("function", tool).get("name")) in text for tool in tools):
        out.add("leaves out tools")
    if quoted_again(messages, text):
        out.add("quotes arguments of tool calls that are JSON text once more: write them as objects")
    own = template.for_tools if tools and template.for_tools else template
    return out | {f"does not read {name}" for name in unread(messages, kwargs, own.reads)}


def _plain(part: str) -> str:
    return part.replace(SEPARATOR, "").strip()
