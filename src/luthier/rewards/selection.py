"""Which sampled answers teach, and as what: rows of training data from the scored answers of one prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.types.examples import (
    Chat,
    Conversation,
    Example,
    Labelled,
    Message,
    Messages,
    Origin,
    Preference,
    Prompt,
    Ranking,
)
from luthier.data.example_text import as_row, joined
from luthier.rewards.answer import Answer
from luthier.rewards.best_of_n import best, ranks, worst
from luthier.rewards.sample_journal import SampledAnswer
from luthier.rewards.specs import Rewards
from luthier.text.built_in_templates import in_words

OutputFormat = Literal["sft", "pairs", "rankings", "all"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = ("sft", "pairs", "rankings", "all")


@dataclass(frozen=True)
class PromptRecord:
    """A prompt as the model is asked it, and the right answer of its row, if it has one."""

    messages: Messages
    tools: tuple[Mapping[str, Any], ...]
    reference: str | None
    origin: Origin
    ids: tuple[int, ...] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def beside(self) -> dict[str, Any]:
        """What the row gives the chat template beside the messages."""
        return {"tools": self.tools, "template_kwargs": self.template_kwargs}

    @property
    def prompt(self) -> str:
        """The last user message; where there is none, the last message."""
        users = [message for message in self.messages if message.role == "user"]
        return (users or self.messages)[-1].said

    def answer(self, given: SampledAnswer) -> Answer:
        """A sampled answer as rewards see it."""
        return Answer(self.prompt, given.text, self.reference, given.tokens, given.ended, self.messages, **self.beside)


def prompt_record(example: Example) -> PromptRecord | None:
    """What the row asks; None for rows without a prompt, such as texts.

    Of a chat, the messages before the last assistant turn, which is the right answer (a tool call is none). The right
    answer is the chosen one of a preference, the best of a ranking, the completion of a labelled row if it was wanted.
    """
    match example:
        case Chat(messages=turns):
            last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=len(turns))
            messages, answer = turns[:last], turns[last : last + 1]
        case Prompt(messages=messages, answer=text):
            answer = () if text is None else (Message("assistant", text),)
        case Labelled(prompt=messages, completion=completion, label=wanted):
            answer = completion if wanted else ()
        case Preference(prompt=messages, chosen=answer):
            pass
        case Ranking(prompt=messages, responses=responses, ranks=order):
            answer = responses[order.index(min(order))]
        case _:
            return None
    assert isinstance(example, Conversation)
    if all(message.role == "system" for message in messages):
        return None
    known = answer and not any(message.tool_calls for message in answer)
    reference = joined(tuple(in_words(message) for message in answer)) if known else None
    return PromptRecord(messages, example.tools, reference, example.origin, template_kwargs=example.template_kwargs)


def require_references(rewards: Rewards, rows: Iterable[tuple[str | None, Origin]]) -> None:
    """Raise InputError when a reward compares with the right answer and one of `rows` (right answer, place) has none, or when it
    can read none of them; say how many it cannot."""
    if not rewards.referring:
        return
    asked, unread = list(rows), []
    for reference, origin in asked:
        if reference is None or not reference.strip():
            raise InputError(
                f"reward '{rewards.referring[0]}' compares with the reference answer, and this row has none", where=origin,
                fix="map its column, such as --data.columns answer=COLUMN, or use another reward",
            )  # fmt: skip
        if name := rewards.unusable(reference):
            unread.append((name, origin))
    if not unread:
        return
    name, origin = unread[0]
    what = f"reward '{name}' cannot read the right answer of {len(unread)} of {len(asked)} rows, and gives 0 to whatever is answered"
    if len(unread) == len(asked):
        raise InputError(what, where=origin, fix="use another reward, or correct the reference answers")
    log.warn(f"{origin}: {what}; fix these rows, or remove them")


@dataclass(frozen=True)
class SelectedRows:
    """The rows of one prompt, and which of its answers is the best of those written."""

    rows: list[dict[str, Any]]
    best: int


def select_rows(
    write: OutputFormat, asked: PromptRecord, given: Sequence[SampledAnswer], totals: Sequence[float], parts: Mapping[str, Sequence[float]],
    *, above: float | None, only_ended: bool,
) -> SelectedRows | str:  # fmt: skip
    """The rows that the answers of one prompt make, or why they make none.

    Answers without text, and with `only_ended` those that were cut, are left out of all but 'all'. No rows when the
    largest total is not above `above`.
    """
    if write == "all":
        fit = list(range(len(given)))
    else:
        fit = [i for i, answer in enumerate(given) if answer.text.strip() and (answer.ended or not only_ended)]
    if not fit:
        return "no answer ended by itself" if only_ended else "no answer with text"
    values = [totals[i] for i in fit]
    first, last = fit[best(values, [given[i].ended for i in fit])], fit[worst(values)]
    if above is not None and totals[first] <= above:
        return f"best not above {above:g}"
    if write in ("pairs", "rankings") and totals[first] == totals[last]:
        return "equal rewards"
    if write == "pairs" and given[first].text == given[last].text:
        return "equal answers"
    return SelectedRows(_rows(write, asked, given, totals, parts, fit, first, last), first)


def _rows(
    write: OutputFormat, asked: PromptRecord, given: Sequence[SampledAnswer], totals: Sequence[float], parts: Mapping[str, Sequence[float]],
    fit: Sequence[int], first: int, last: int,
) -> list[dict[str, Any]]:  # fmt: skip
    if write == "sft":
        return [_completed(asked, given[first], totals[first])]
    if write == "pairs":
        pair = as_row(
            Preference(asked.messages, _answer_message(given[first]), _answer_message(given[last]), **asked.beside)
        )
        return [pair | {"reward_chosen": totals[first], "reward_rejected": totals[last]}]
    if write == "rankings":
        values = [totals[i] for i in fit]
        ranking = as_row(
            Ranking(asked.messages, tuple(_answer_message(given[i]) for i in fit), ranks(values), **asked.beside)
        )
        return [ranking | {"rewards": values}]
    return [
        _completed(asked, given[i], totals[i]) | {
            "parts": {name: part[i] for name, part in parts.items()}, "number": i,
            "reference": asked.reference, "tokens": given[i].tokens, "ended": given[i].ended,
        }
        for i in fit
    ]  # fmt: skip


def _answer_message(given: SampledAnswer) -> Messages:
    return (Message("assistant", given.text),)


def _completed(asked: PromptRecord, given: SampledAnswer, total: float) -> dict[str, Any]:
    said = {"role": "assistant", "content": given.text}
    turns = [message.as_dict() for message in asked.messages]
    last = asked.messages[-1]
    ended = last.role == "assistant" and not last.begun  # as a prompt, it would be gone on with
    row: dict[str, Any] = {"messages": [*turns, said]} if ended else {"prompt": turns, "completion": [said]}
    row |= {"tools": list(asked.tools)} if asked.tools else {}
    row |= {"chat_template_kwargs": dict(asked.template_kwargs)} if asked.template_kwargs else {}
    return row | {"reward": total}


def as_prompts(examples: Sequence[Example]) -> list[Example]:
    """The examples as prompts with their right answers; those without a prompt are left out."""
    out: list[Example] = []
    for example in examples:
        asked = prompt_record(example)
        if asked and asked.messages:
            out.append(
                Prompt(asked.messages, asked.reference, origin=example.origin, group=example.group, **asked.beside)
            )
    return out
