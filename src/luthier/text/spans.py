"""A conversation as text, cut where what is learned begins and ends.

It is found by rendering, so it holds for every template, with or without marks in it. P is the conversation up to an
answer, rendered as a prompt; F is the conversation through the answer. F must start with P, and what it adds, up to and
with the token that ends the turn, is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from luthier.core.errors import InputError
from luthier.core.types.examples import Message
from luthier.text.built_in_templates import Text, Tools, Wanted
from luthier.text.lost_content import refuse_loss
from luthier.text.template import NO_VALUES, Template


@dataclass(frozen=True, slots=True)
class Segment:
    """Text that is tokenized on its own. `answer` marks a whole assistant turn: it ends in a stop token."""

    text: str
    trained: bool
    answer: bool = False


Later = Callable[[], list[Segment]]


@dataclass(frozen=True, slots=True)
class _Answer:
    """Where an assistant turn stands in the text, or why that cannot be told."""

    index: int
    start: int = 0
    end: int = 0
    fault: InputError | None = None


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn as it is written: one message, or an answer with its beginning before it. `index` is the place of the
    message that ends it."""

    message: Message
    index: int
    begun: Message | None = None


def spans(
    messages: Sequence[Message],
    tools: Tools,
    template: Template,
    train_on: Literal["assistant", "last", "all"] = "assistant",
    *,
    kwargs: Mapping[str, Any] = NO_VALUES,
    first: int = 0,
) -> list[Segment]:
    """The conversation's text, cut where answers begin and end; joined, the segments are `render(messages)`.

    train_on: 'assistant' learns every assistant turn from message `first` on, 'last' the last one, 'all' the
    whole text. Turns with `train=False` are never learned. White space that a template puts after the
    end-of-turn token belongs to no answer. An answer that goes on in a turn that was begun is learned from there.

    Raises InputError when a turn to be learned cannot be told from the text: its prompt is not a prefix of
    prompt and answer, it has no stop token, or the template writes it otherwise once turns follow (as those
    do that remove the thinking of earlier turns; 'last' works with them); and when what is learned lacks the thought or
    the calls of its turn.
    """
    return spans_later(messages, tools, template, train_on, kwargs=kwargs, first=first)()


def spans_later(
    messages: Sequence[Message],
    tools: Tools,
    template: Template,
    train_on: Literal["assistant", "last", "all"] = "assistant",
    *,
    kwargs: Mapping[str, Any] = NO_VALUES,
    first: int = 0,
) -> Later:
    """`spans` in two steps: of several conversations, all that take the first one before the second are rendered together."""
    turns = _turns(messages)
    places = _answered(turns)
    asked = [(len(turns), False), *_asked(turns, [place for place in places if place < len(turns) - 1])]
    asked += [(place, True) for place in places[-1:] if place == len(turns) - 1 and not turns[place].begun]
    text = template.open([turn.message for turn in turns], tools, kwargs, asked)

    def cut() -> list[Segment]:
        whole = text(len(turns), False)
        answers = [_answer(turns, place, text, whole, template, tools, kwargs) for place in places]
        wanted = answers[-1:] if train_on != "assistant" else [answer for answer in answers if answer.index >= first]
        wanted = [answer for answer in wanted if messages[answer.index].train]
        for answer in wanted:
            if answer.fault:
                raise answer.fault
            refuse_loss(messages[answer.index], whole[answer.start : answer.end], answer.index + 1, template)
        every = train_on == "all"
        learned = {i for i, message in enumerate(messages) if message.train} if every else {a.index for a in wanted}
        for index in learned if every else ():
            refuse_loss(messages[index], whole, index + 1, template)
        return _segments(whole, answers, learned, every)

    return cut


def prompt_spans(
    messages: Sequence[Message], tools: Tools, template: Template, kwargs: Mapping[str, Any] = NO_VALUES
) -> list[Segment]:
    """What the model sees before it answers, cut as `spans` cuts it. A last turn that is begun is what it goes on with."""
    return prompt_spans_later(messages, tools, template, kwargs)()


def prompt_spans_later(
    messages: Sequence[Message], tools: Tools, template: Template, kwargs: Mapping[str, Any] = NO_VALUES
) -> Later:
    """`prompt_spans` in two steps, as `spans_later`."""
    begun = bool(messages) and messages[-1].begun
    turns = _turns(messages[:-1] if begun else messages)
    said, places = [turn.message for turn in turns], _answered(turns)
    asked = [*([] if begun else [(len(turns), True)]), *_asked(turns, places)]
    text = template.open(said, tools, kwargs, asked)

    def cut() -> list[Segment]:
        whole = template.begin([*said, messages[-1]], tools, kwargs) if begun else text(len(turns), True)
        answers = [_answer(turns, place, text, whole, template, tools, kwargs, last=False) for place in places]
        return _segments(whole, answers, set(), False)

    return cut


def _answered(turns: Sequence[_Turn]) -> list[int]:
    """The places of the assistant's turns."""
    return [place for place, turn in enumerate(turns) if turn.message.role == "assistant"]


def _asked(turns: Sequence[_Turn], places: Sequence[int]) -> list[Wanted]:
    """The texts between which the answers at `places` lie."""
    through = [(place + 1, False) for place in places]
    return through + [(place, True) for place in places if not turns[place].begun]


def _turns(messages: Sequence[Message]) -> list[_Turn]:
    """The messages, each beginning joined to the answer that goes on in it."""
    out: list[_Turn] = []
    for index, message in enumerate(messages):
        before = out[-1].message if out else None
        if before and before.begun and message.role == "assistant":
            joined = replace(
                message, content=before.content + message.content, fields={**before.fields, **message.fields}
            )
            out[-1] = _Turn(joined, index, before)
        else:
            out.append(_Turn(message, index))
    return out


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


def _answer(
    turns: Sequence[_Turn], place: int, text: Text, whole: str, template: Template, tools: Tools,
    kwargs: Mapping[str, Any], *, last: bool = True,
) -> _Answer:  # fmt: skip
    """Where an assistant turn stands in the text; `last` says that the text ends with the last turn."""
    turn = turns[place]
    try:
        through = whole if last and place == len(turns) - 1 else text(place + 1, False)
        if turn.begun:
            before = template.begin([*(other.message for other in turns[:place]), turn.begun], tools, kwargs)
        else:
            before = _before(text, place, template)
        return _locate(turn.index, before, through, whole, template)
    except InputError as error:
        return _Answer(turn.index, fault=error)


def _before(text: Text, place: int, template: Template) -> str:
    """The conversation up to an answer, as a prompt. Raises InputError where the template cannot ask for one yet."""
    try:
        return text(place, True)
    except InputError as error:
        if place:
            raise
        raise InputError(
            f"turn 1: the conversation begins with an answer, and the template {template.name} cannot prompt for one"
            " without a message",
            fix='give it a prompt, or write "train": false in this turn so that it is only read',
        ) from error


def _locate(index: int, before: str, through: str, whole: str, template: Template) -> _Answer:
    """Where the turn lies. Raises InputError when it cannot be told."""
    turn = f"turn {index + 1}"
    if not through.startswith(before):
        same = next((i for i, (a, b) in enumerate(zip(before, through, strict=False)) if a != b), len(through))
        raise InputError(
            f"{turn}: the prompt is not a prefix of prompt and answer: after {before[max(0, same - 20) : same]!r} the"
            f" prompt has {before[same : same + 20]!r} and the answer {through[same : same + 20]!r}",
            fix=_aligned(template) if index else "give the row a prompt",
        )
    ends = [through.rfind(stop, len(before)) + len(stop) for stop in template.stops if stop in through[len(before) :]]
    after = template.tokenizer.control_pattern.sub("", through[max(ends) :]) if ends else ""
    if not ends or after.strip():  # a stop token before the answer ends an earlier turn
        raise InputError(
            f"{turn}: the template {template.name} writes no stop token after the answer, so the model would never"
            f" learn to stop; the turn ends in {through[-20:]!r}",
            fix="write the EOS token after assistant turns in the template",
        )
    kept = [end for end in ends if whole.startswith(through[:end])]  # a last stop token may close the whole text
    if not kept:
        raise InputError(
            f"{turn}: the template {template.name} writes this turn differently when others follow",
            fix="give --text.train_on last",
        )
    return _Answer(index, len(before), max(kept))


def _aligned(template: Template) -> str:
    """How to fix a prompt that is not what its answer begins with: often the template opens a thought there."""
    read = template.reads.variables | (template.for_tools.reads.variables if template.for_tools else frozenset())
    switch = next((name for name in ("enable_thinking", "thinking") if name in read), None)
    other = f"set --text.template_kwargs {switch}=false (or true)" if switch else "leave this turn unlearned"
    return f"use another --text.template, or {other}"
