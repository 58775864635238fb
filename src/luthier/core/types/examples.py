"""What a person wrote: the rows of a data set, whatever file they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ROLES = ("system", "user", "assistant", "tool")
REASONING = ("reasoning_content", "thinking", "reasoning")  # the names of a thought, in transformers' order
# What a chat template is given anyway: no value of a row or a setting may take its place.
TEMPLATE_GIVEN = ("messages", "tools", "add_generation_prompt", "continue_final_message", "tokenize")


@dataclass(frozen=True, slots=True)
class Origin:
    """The place an example came from; printed as `file:line` in every message about it."""

    file: str = "<memory>"
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


PartKind = Literal["text", "picture", "sound", "reasoning", "tool_call", "tool_result"]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of what a turn says.

    text    what is said, thought, or answered by a tool; "" for the others
    value   a call, in OpenAI's form; a tool's answer where it is no plain text; where a picture or a sound lies, as the row has it
    id      of a call, or of the call that a tool answers
    fields  what else the row says of the piece, under its own names: `cache_control`, `signature`, `is_error`, ...
    """

    kind: PartKind
    text: str = ""
    value: Any = None
    id: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    content     what was said. `bare` marks an empty one that the row did not write (null, or no such key): chat
                templates get no content then, as transformers gives them none
    input       the input field of an Alpaca row: the alpaca template shows it apart, every other template after the
                content
    tool_calls  plain JSON objects, as chat templates take them; the arguments as the row has them, an object or text
    train       False for an assistant turn that is read but not learned (OpenAI's `weight: 0`)
    begun       the turn is a beginning only: the assistant's next turn goes on in it (TRL's prompts that end in one)
    fields      what else the row says of the turn, under its own names: `tool_call_id`, `reasoning_content`, ...
    parts       the content piece by piece, in its order, where the row has a list of them: what is above comes from these
    """

    role: str
    content: str
    input: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    name: str | None = None
    train: bool = True
    begun: bool = False
    bare: bool = field(default=False, compare=False)
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    parts: tuple[Part, ...] = field(default=(), compare=False)

    @property
    def said(self) -> str:
        """The content, and the input below it."""
        return f"{self.content}\n\n{self.input}" if self.input else self.content

    @property
    def reasoning(self) -> str:
        """The thought before the answer, under whichever of REASONING the row has it; "" for none."""
        return next((self.fields[name] for name in REASONING if self.fields.get(name)), "")

    def blocks(self, *, reasoning: bool = False) -> list[dict[str, Any]]:
        """What is said as a list of typed blocks, as some templates read it: those of the row where they still say it, else one.

        With `reasoning`, the thoughts among the row's blocks too.
        """
        own = [part for part in self.parts if part.kind == "text"]
        if not own or "".join(part.text for part in own) != self.said:
            return [{"type": "text", "text": self.said}]
        named = {"text": "text"} | ({"reasoning": "thinking"} if reasoning else {})
        kept = [part for part in self.parts if part.kind in named]
        return [{"type": named[part.kind], named[part.kind]: part.text, **part.fields} for part in kept]

    def calls_as(self, kind: type) -> list[dict[str, Any]]:
        """The tool calls with their arguments as objects (dict) or as JSON text (str), whichever way the row has them."""
        out = []
        for call in self.tool_calls:
            function = call.get("function", call)
            arguments = function.get("arguments", {})
            if kind is dict and isinstance(arguments, str):
                arguments = json.loads(arguments)
            elif kind is str and not isinstance(arguments, str):
                arguments = json.dumps(arguments, ensure_ascii=False)
            function = {**function, "arguments": arguments}
            out.append({**call, "function": function} if "function" in call else function)
        return out

    def as_dict(self) -> dict[str, Any]:
        """The message as chat templates read it; absent fields are left out."""
        out: dict[str, Any] = {"role": self.role}
        if self.said or not self.bare:
            out["content"] = self.said
        out |= self.fields
        if self.tool_calls:
            out["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.name is not None:
            out["name"] = self.name
        return out


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What a person wrote. `group` keeps related rows on one side of a split; "" means none."""

    origin: Origin = Origin()
    group: str = ""


@dataclass(frozen=True, slots=True)
class Text(Example):
    """A document, for self-supervised training."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation(Example):
    """An example that a chat template writes: with the tools that may be called, and values that the template reads
    (TRL's `chat_template_kwargs`, such as {"enable_thinking": false})."""

    tools: tuple[Mapping[str, Any], ...] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Chat(Conversation):
    """A conversation. An instruction with its answer is a chat of two or three messages."""

    messages: Messages


@dataclass(frozen=True, slots=True)
class Preference(Conversation):
    """Two answers to one prompt, the first preferred. The prompt is empty for bare accepted/rejected texts."""

    prompt: Messages
    chosen: Messages
    rejected: Messages
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Ranking(Conversation):
    """K answers to one prompt. `ranks[i]` is the rank of answer i: 1 is best, equal ranks are ties.

    `pairs` are the comparisons that were made, (better, worse) by index; empty when all were ranked together.
    """

    prompt: Messages
    responses: tuple[Messages, ...]
    ranks: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Labelled(Conversation):
    """One answer and whether it was wanted (KTO)."""

    prompt: Messages
    completion: Messages
    label: bool


@dataclass(frozen=True, slots=True)
class Prompt(Conversation):
    """A prompt without an answer, for online methods; `answer` is a reference a reward may use."""

    messages: Messages
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Pair(Example):
    """Texts that belong together: (anchor, positive) or (anchor, positive, negative), with a score or none."""

    texts: tuple[str, ...]
    score: float | None = None
