"""A conversation as text, cut where what is learned begins and ends.

It is found by rendering, so it holds for every template, with or without marks in it. P is the conversation up to an
answer, rendered as a prompt; F is the conversation through the answer. F must start with P, and what it adds, up to and
with the token that ends the turn, is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.core.errors import InputError
from luthier.core.types import Message
from luthier.text.template import Template, Tools


@dataclass(frozen=True, slots=True)
class Segment:
    """Text that is tokenized on its own. `answer` marks a whole assistant turn: it ends in a stop token."""

    text: str
    trained: bool
    answer: bool = False


@dataclass(frozen=True, slots=True)
class _Answer:
    """Where an assistant turn stands in the text, or why that cannot be told."""

    index: int
    start: int = 0
    end: int = 0
    fault: InputError | None = None


def spans(
    messages: Sequence[Message],
    tools: Tools,
    template: Template,
    train_on: Literal["assistant", "last", "all"] = "assistant",
    *,
    first: int = 0,
) -> list[Segment]:
    """The conversation's text, cut where answers begin and end; joined, the segments are `render(messages)`.

    train_on: 'assistant' learns every assistant turn from message `first` on, 'last' the last one, 'all' the
    whole text. Turns with `train=False` are never learned. White space that a template puts after the
    end-of-turn token belongs to no answer.

    Raises InputError when a turn to be learned cannot be told from the text: its prompt is not a prefix of
    prompt and answer, it has no stop token, or the template writes it otherwise once turns follow (as those
    do that remove the thinking of earlier turns; 'last' works with them).
    """
    whole, answers = _answers(messages, tools, template, prompt=False)
    wanted = answers[-1:] if train_on != "assistant" else [answer for answer in answers if answer.index >= first]
    wanted = [answer for answer in wanted if messages[answer.index].train]
    for answer in wanted:
        if answer.fault:
            raise answer.fault
    every = train_on == "all"
    learned = {i for i, message in enumerate(messages) if message.train} if every else {a.index for a in wanted}
    return _segments(whole, answers, learned, every)


def prompt_spans(messages: Sequence[Message], tools: Tools, template: Template) -> list[Segment]:
    """What the model sees before it answers, cut as `spans` cuts it."""
    whole, answers = _answers(messages, tools, template, prompt=True)
    return _segments(whole, answers, set(), False)


def _segments(whole: str, answers: Sequence[_Answer], learned: set[int], every: bool) -> list[Segment]:
    out, done = [], 0
    for answer in answers:
        if answer.fault:
            continue
        out.append(Segment(whole[done : answer.start], every))
        out.append(Segment(whole[answer.start : answer.end], answer.index in learned, answer=True))
        done = answer.end
    out.append(Segment(whole[done:], every))
    return [segment for segment in out if segment.text]


def _answers(
    messages: Sequence[Message], tools: Tools, template: Template, *, prompt: bool
) -> tuple[str, list[_Answer]]:
    """The text of the conversation, and where each assistant turn stands in it."""
    text = template.open(messages, tools)
    whole = text(len(messages), prompt)
    out = []
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        final = index == len(messages) - 1 and not prompt
        try:
            through = whole if final else text(index + 1, False)
            out.append(_locate(index, text(index, True), through, whole, template))
        except InputError as error:
            out.append(_Answer(index, fault=error))
    return whole, out


def _locate(index: int, before: str, through: str, whole: str, template: Template) -> _Answer:
    """Where the turn lies. Raises InputError when it cannot be told."""
    turn = f"turn {index + 1}"
    if not through.startswith(before):
        same = next((i for i, (a, b) in enumerate(zip(before, through, strict=False)) if a != b), len(through))
        raise InputError(
            f"{turn}: the prompt is not a prefix of prompt and answer: after {before[max(0, same - 20) : same]!r} the"
            f" prompt has {before[same : same + 20]!r} and the answer {through[same : same + 20]!r}",
            mend="use another --text.template, or leave this turn unlearned" if index else "give the row a prompt",
        )
    ends = [through.rfind(stop, len(before)) + len(stop) for stop in template.stops if stop in through[len(before) :]]
    after = template.tokenizer.control_pattern.sub("", through[max(ends) :]) if ends else ""
    if not ends or after.strip():  # a stop token before the answer ends an earlier turn
        raise InputError(
            f"{turn}: the template {template.name} writes no stop token after the answer, so the model would never"
            f" learn to stop; the turn ends in {through[-20:]!r}",
            mend="write the EOS token after assistant turns in the template",
        )
    kept = [end for end in ends if whole.startswith(through[:end])]  # a last stop token may close the whole text
    if not kept:
        raise InputError(
            f"{turn}: the template {template.name} writes this turn otherwise once others follow",
            mend="give --text.train_on last",
        )
    return _Answer(index, len(before), max(kept))
