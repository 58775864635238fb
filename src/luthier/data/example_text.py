"""The words of an example: what is asked, what is answered, and the example as a row again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from luthier.core.types.examples import (
    Chat,
    Conversation,
    Example,
    Labelled,
    Message,
    Messages,
    Pair,
    Preference,
    Prompt,
    Ranking,
    Text,
)


def prompt_and_answer(example: Example) -> tuple[Messages, Messages]:
    """(prompt, answer) as messages; the answer of a chat is its last assistant turn, that of a preference the
    chosen one, that of a ranking the best. Texts and pairs are shown as messages too: a text is an answer
    without a prompt, the first text of a pair is the prompt of the others."""
    match example:
        case Text(text=text):
            return (), (Message("assistant", text),)
        case Chat(messages=turns):
            last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=len(turns))
            return turns[:last], turns[last:]
        case Preference(prompt=prompt, chosen=chosen):
            return prompt, chosen
        case Ranking(prompt=prompt, responses=responses, ranks=ranks):
            return prompt, responses[ranks.index(min(ranks))]
        case Labelled(prompt=prompt, completion=completion):
            return prompt, completion
        case Prompt(messages=turns, answer=answer):
            return turns, () if answer is None else (Message("assistant", answer),)
        case Pair(texts=(anchor, *others)):
            return (Message("user", anchor),), tuple(Message("assistant", other) for other in others)
    raise AssertionError(f"no such example: {type(example).__name__}")


def prompt_text(example: Example) -> str:
    """What the answer answers, turns separated by an empty line; '' for a text."""
    return joined(prompt_and_answer(example)[0])


def answer_text(example: Example) -> str:
    """What is to be learned: see `prompt_and_answer`. Tool calls are written as JSON."""
    return joined(prompt_and_answer(example)[1])


def full_text(example: Example) -> str:
    """Prompt and every answer, rejected ones too."""
    prompt, answer = prompt_and_answer(example)
    others: tuple[Messages, ...] = ()
    if isinstance(example, Preference):
        others = (example.rejected,)
    elif isinstance(example, Ranking):
        others = tuple(response for response in example.responses if response is not answer)
    return "\n\n".join(text for text in (joined(prompt), joined(answer), *map(joined, others)) if text)


def prompt_key(example: Example) -> str:
    """What makes two prompts the same one: the prompt without case and spacing; where there is none, the answer."""
    return " ".join((prompt_text(example) or answer_text(example)).casefold().split())


def identity(example: Example) -> bytes:
    """A digest that is equal for examples with equal content, wherever they stand."""
    text = json.dumps([type(example).__name__, as_row(example)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def empty_fields(example: Example) -> tuple[str, ...]:
    """The fields that hold nothing but white space: prompt, answer, rejected, turn.

    A preference may do without a prompt, and so may an unpaired answer or a ranking; a chat may not, nor do
    without an answer. A `turn` is an earlier message of a conversation.
    """
    prompt, answer = prompt_and_answer(example)
    needs_prompt = isinstance(example, (Chat, Prompt, Pair))
    out = []
    if (prompt and not joined(prompt).strip()) or (needs_prompt and not any(turn.role != "system" for turn in prompt)):
        out.append("prompt")
    elif not all(_said(turn).strip() for turn in prompt):
        out.append("turn")
    if not isinstance(example, Prompt) and not (answer and all(_said(turn).strip() for turn in answer)):
        out.append("answer")
    if isinstance(example, Preference) and not joined(example.rejected).strip():
        out.append("rejected")
    if isinstance(example, Ranking) and not all(joined(response).strip() for response in example.responses):
        out.append("response")
    return tuple(out)


def joined(turns: Messages) -> str:
    """The contents of messages, separated by an empty line."""
    return "\n\n".join(_said(turn) for turn in turns)


def _said(turn: Message) -> str:
    """The thought, the content and the calls of a turn; arguments written as JSON text are shown as what they say."""
    content = f"{turn.content}\n\n{turn.input}" if turn.input else turn.content
    calls = [json.dumps(call, ensure_ascii=False, sort_keys=True) for call in turn.calls_as(dict)]
    return "\n\n".join([part for part in (turn.reasoning, content) if part] + calls)


def as_row(example: Example) -> dict[str, Any]:
    """The example as a row of JSON in Luthier's own layout of its type, which reads back to an equal example.

    The group and the place are not written; an Alpaca input is joined to its instruction.
    """
    row = _own_row(example)
    if isinstance(example, Conversation):
        row |= {"tools": list(example.tools)} if example.tools else {}
        row |= {"chat_template_kwargs": dict(example.template_kwargs)} if example.template_kwargs else {}
    return row


def _own_row(example: Example) -> dict[str, Any]:
    match example:
        case Text(text=text):
            return {"text": text}
        case Chat(messages=turns):
            begun = next((i + 1 for i, turn in enumerate(turns) if turn.begun), 0)
            if begun:
                return {"prompt": _rows(turns[:begun]), "completion": _rows(turns[begun:])}
            return {"messages": _rows(turns)}
        case Preference(prompt=prompt, chosen=chosen, rejected=rejected, margin=margin):
            row = {"prompt": _rows(prompt), "chosen": _rows(chosen), "rejected": _rows(rejected)}
            if _ended(prompt):
                row = {"chosen": _rows(prompt + chosen), "rejected": _rows(prompt + rejected)}
            return row | ({} if margin is None else {"margin": margin})
        case Ranking(prompt=prompt, responses=responses, ranks=ranks):
            return {"prompt": _rows(prompt), "responses": [_rows(r) for r in responses], "ranks": list(ranks)}
        case Labelled(prompt=prompt, completion=completion, label=label):
            if _ended(prompt):
                return {"messages": _rows(prompt + completion), "label": label}
            return {"prompt": _rows(prompt), "completion": _rows(completion), "label": label}
        case Prompt(messages=turns, answer=answer):
            return {"prompt": _rows(turns)} | ({} if answer is None else {"answer": answer})
        case Pair(texts=texts, score=score):
            named: dict[str, Any] = dict(zip(("anchor", "positive", "negative"), texts, strict=False))
            return named if score is None else named | {"score": score}
    raise AssertionError(f"no such example: {type(example).__name__}")


def _ended(prompt: Messages) -> bool:
    """Whether a prompt closes with an assistant's whole turn; as a field `prompt` it would be one that is gone on with."""
    return bool(prompt) and prompt[-1].role == "assistant" and not (prompt[-1].begun or prompt[-1].tool_calls)


def _rows(turns: Messages) -> list[dict[str, Any]]:
    return [_row(turn) for turn in turns]


def _row(turn: Message) -> dict[str, Any]:
    out = turn.as_dict()
    if any(part.fields for part in turn.parts if part.kind in ("text", "reasoning")):  # what a plain text cannot say
        out["content"] = turn.blocks(reasoning=True)
    if not ({"content", "tool_calls"} & set(out)):
        out["content"] = None
    return out | ({} if turn.train else {"weight": 0})
