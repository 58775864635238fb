"""What a reward looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.core.types.examples import Message


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled answer with all that a reward may know of it.

    prompt     the last user message
    text       the answer, without what ended it
    reference  the row's right answer, None where it has none
    tokens     tokens of `text`: a stop token is not counted
    ended      the model ended it by its stop token; False when it was cut, at the longest length or at a text that stops it
    messages   the whole prompt, as the model was asked
    tools, template_kwargs  what the row gives the chat template beside the messages
    """

    prompt: str
    text: str
    reference: str | None
    tokens: int
    ended: bool
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)


Component = Callable[[Sequence[Answer]], list[float]]
"""A batch of answers -> one finite number each."""


def opening(text: str, width: int = 60) -> str:
    """The first characters of a prompt on one line, for messages about it."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[:width] + "…"
