"""What a row means: one function a layout, from the values of its fields to an Example.

`values` holds the fields that are there, by the layout's own names. A fault raises InputError without a
place; `schema.to_examples` adds file and line. `Unused` marks a sound row that yields no example.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types import Chat, Labelled, Message, Messages, Pair, Preference, Prompt, Ranking, Text
from luthier.data.calls import kwargs_of, tools_of
from luthier.data.flags import truth
from luthier.data.messages import as_context, messages_of, plain, text_of

Values = Mapping[str, Any]


class Unused(Exception):
    """A sound row without an example in it, such as a tie; the message says why."""


def text(values: Values) -> Text:
    return Text(text_of(values["text"], "text"))


def alpaca(values: Values) -> Chat:
    answer = Message("assistant", text_of(values["output"], "output"))
    turns = _opened(values, (*_history(values.get("history")), *_instruction(values), answer))
    return Chat(turns, **_beside(values))


def conversation(values: Values) -> Chat:
    """ShareGPT and OpenAI chats, told apart message by message."""
    return Chat(_conversation(values), **_beside(values))


def prompt_completion(values: Values) -> Chat:
    """The completion is learned; assistant turns in the prompt are read only, as in TRL."""
    completion = messages_of(values["completion"], "completion", "assistant")
    return Chat(_opened(values, (*_prompt(values), *completion)), **_beside(values))


def labels(values: Values) -> Chat:
    content, label = text_of(values["text"], "text"), text_of(values["label"], "label")
    return Chat(_opened(values, (Message("user", content), Message("assistant", label))), **_beside(values))


def preference(values: Values) -> Preference:
    """Without a prompt of its own, the prompt is what both conversations begin with."""
    chosen = messages_of(values["chosen"], "chosen", "assistant")
    rejected = messages_of(values["rejected"], "rejected", "assistant")
    prompt = _prompt(values)
    if _whole(chosen) or _whole(rejected):
        shared = _common(chosen, rejected)
        prompt, chosen, rejected = chosen[:shared] or prompt, chosen[shared:], rejected[shared:]
        if _whole(chosen) or _whole(rejected):
            raise InputError(
                "chosen and rejected do not answer the same prompt", mend="give both the same turns before the answer"
            )
    margin = None if values.get("margin") is None else _float(values["margin"], "margin")
    return Preference(_opened(values, prompt), chosen, rejected, margin, **_beside(values))


def comparison(values: Values) -> Preference:
    """AlpacaEval's annotations: preference 1 means output_1 is better, 2 output_2; 1.5 and 0 are ties, and
    what lies between 1 and 2 is the judge's leaning."""
    outputs = [messages_of(values[name], name, "assistant") for name in ("output_1", "output_2")]
    verdict = values["preference"]
    leaning = 0.0 if verdict is None else _float(verdict, "preference")
    if leaning in (0.0, 1.5):
        raise Unused("a tie: neither answer is preferred")
    if not 1 <= leaning <= 2:
        raise InputError(f"preference {leaning:g} is not from 1 to 2", mend="1: output_1 is better, 2: output_2 is")
    chosen, rejected = outputs if leaning < 1.5 else outputs[::-1]
    return Preference(_opened(values, _instruction(values)), chosen, rejected, **_beside(values))


def unpaired(values: Values) -> Labelled:
    """The completion is its own field, or the last assistant turn of a conversation."""
    label = truth(values["label"])
    if label is None:
        raise InputError(f"label {values['label']!r} is neither true nor false", mend="write true (wanted) or false")
    if "completion" in values:
        prompt = _opened(values, _prompt(values))
        completion = messages_of(values["completion"], "completion", "assistant")
        return Labelled(prompt, completion, label, **_beside(values))
    turns = _conversation(values)
    if turns[-1].role != "assistant":
        raise InputError("the conversation does not end with an answer", mend="end it with an assistant turn")
    return Labelled(turns[:-1], turns[-1:], label, **_beside(values))


def ranking(values: Values) -> Ranking:
    """Responses best first, or in any order with their ranks (1 is best, equal ranks are ties)."""
    responses, ranks = values["responses"], values.get("ranks")
    if not isinstance(responses, list) or len(responses) < 2:
        raise InputError("field 'responses' is not a list of two or more answers", mend="write them as a list")
    if ranks is None:
        ranks = list(range(1, len(responses) + 1))
    whole = isinstance(ranks, list) and all(
        isinstance(rank, int) or (isinstance(rank, float) and rank.is_integer()) for rank in ranks
    )
    if not whole or len(ranks) != len(responses):
        raise InputError("field 'ranks' is not one whole number a response", mend="give each response its rank")
    answers = [messages_of(item, f"responses[{i}]", "assistant") for i, item in enumerate(responses)]
    order = tuple(int(rank) for rank in ranks)
    return Ranking(_opened(values, _prompt(values)), tuple(answers), order, **_beside(values))


def pair(values: Values) -> Pair:
    score = values.get("score")
    texts = [text_of(values[name], name) for name in ("anchor", "positive", "negative") if name in values]
    return Pair(tuple(texts), None if score is None or score == "" else _float(score, "score"))


def prompt(values: Values) -> Prompt:
    turns, answer = _opened(values, _prompt(values)), values.get("answer")
    return Prompt(turns, None if answer is None else text_of(answer, "answer"), **_beside(values))


def _instruction(values: Values) -> Messages:
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


def _opened(values: Values, turns: Messages) -> Messages:
    """`turns` under the row's system prompt, when it has one and they do not bring their own."""
    if turns and turns[0].role == "system":
        return turns
    return (*plain(text_of(values.get("system"), "system"), "system"), *turns)


def _conversation(values: Values) -> Messages:
    if isinstance(values["messages"], str):
        raise InputError(
            "field 'messages' is text, not a list of messages", mend='write [{"role": ..., "content": ...}]'
        )
    turns = messages_of(values["messages"], "messages", "user")
    if not turns:
        raise InputError("the conversation is empty", mend="give it at least one message")
    return _opened(values, turns)


def _prompt(values: Values) -> Messages:
    """The prompt in whichever field it stands, its last turn begun where that is the assistant's; an empty one, such as
    a transcript's open 'Assistant:', is none."""
    if "instruction" in values and "messages" not in values:
        return _instruction(values)
    written = values["messages"] if "messages" in values else values.get("prompt", values.get("input"))
    turns = messages_of(written, "messages" if "messages" in values else "prompt", "user")
    return as_context(turns[:-1] if turns and turns[-1] == Message("assistant", "") else turns)


def _beside(values: Values) -> dict[str, Any]:
    """What a row gives its chat template beside the turns."""
    return {"tools": tools_of(values.get("tools")), "template_kwargs": kwargs_of(values.get("chat_template_kwargs"))}


def _whole(turns: Messages) -> bool:
    """Whether an answer is a whole conversation, prompt included."""
    return len(turns) > 0 and turns[0].role != "assistant"


def _common(first: Messages, second: Messages) -> int:
    """How many turns both conversations begin with, leaving at least one to each."""
    limit = min(len(first), len(second)) - 1
    return next((i for i in range(limit) if first[i] != second[i]), limit)


def _float(value: Any, field: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"field '{field}' is not a number: {value!r}", mend="write a number") from None
    except OverflowError:  # a whole number of hundreds of digits
        raise InputError(f"field '{field}' is beyond what a number can be", mend="write a finite number") from None
    if not math.isfinite(number):
        raise InputError(f"field '{field}' is {value!r}", mend="write a finite number")
    return number
