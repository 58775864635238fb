"""What is put right in an example as it is read, and what of it deserves a word: each is counted and told.

To add one: a function of the values of a row and its example, and a line in `corrected`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from luthier.core.types.examples import Chat, Example, Labelled, Message, Messages, Preference, Ranking, Text

STOPS = (
    "</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|end_of_text|>", "<eos>", "<|eos|>",
    "<｜end▁of▁sentence｜>", "<|eot|>", "<|return|>", "<|END_OF_TURN_TOKEN|>", "<turn|>", "[EOS]", "<|end_of_turn|>", "[|endofturn|]",
)  # fmt: skip
DOCUMENT_STOPS = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "<｜end▁of▁sentence｜>")
TRAILING_STOPS = re.compile(rf"(?:\s*(?:{'|'.join(map(re.escape, STOPS))}))+\s*\Z")

CUT_STOP = "a stop token written at the end of an answer was cut off: the template writes its own"
CUT_PROMPT = "the answers began with their prompt, which was cut off"
OTHER_PROMPT = "the prompt is not what the conversations of both answers begin with, which was read instead"
LABELS_JOINED = "several labels were joined with ', '"
NEGATIVE_MARGIN = "the margin is below 0, as if the rejected answer were the better one"
OTHER_SCORE = "the rejected answer has the higher score"


def corrected(values: Mapping[str, Any], example: Example) -> tuple[Example, tuple[str, ...]]:
    """The example as it is learned from, and what was done to it or is odd about it."""
    said: list[str] = []
    if (whole := _without_prompt(example)) is not None:
        example = whole
        said.append(CUT_PROMPT)
    if (ended := _without_stops(example)) is not None:
        example = ended
        said.append(CUT_STOP)
    if isinstance(values.get("label"), (list, tuple)) and len(values["label"]) > 1:
        said.append(LABELS_JOINED)
    if isinstance(example, Preference):
        said += _contradictions(values, example)
    return example, tuple(said)


def _without_prompt(example: Example) -> Example | None:
    """Answers without the text of their prompt, where all of them begin with it; None where they do not."""
    match example:
        case Preference(prompt=(Message(content=asked),), chosen=(one, *more), rejected=(other, *rest)):
            if _begin_with(asked, (one, other)):
                chosen, rejected = _without_beginning(asked, one), _without_beginning(asked, other)
                return replace(example, chosen=(chosen, *more), rejected=(rejected, *rest))
        case Ranking(prompt=(Message(content=asked),), responses=responses):
            firsts = [response[0] for response in responses if response]
            if len(firsts) == len(responses) and _begin_with(asked, firsts):
                cut = tuple((_without_beginning(asked, response[0]), *response[1:]) for response in responses)
                return replace(example, responses=cut)
    return None


def _begin_with(asked: str, answers: Any) -> bool:
    asked = asked.strip()
    return len(asked) > 1 and all(
        answer.role == "assistant" and answer.content.lstrip().startswith(asked) for answer in answers
    )


def _without_beginning(asked: str, answer: Message) -> Message:
    return replace(answer, content=answer.content.lstrip()[len(asked.strip()) :].lstrip())


def _without_stops(example: Example) -> Example | None:
    """Answers and documents without a stop token spelled out at their end; None where there is none."""
    match example:
        case Text(text=text):
            ended = text.rstrip().endswith(DOCUMENT_STOPS)
            new: Example = replace(example, text=_unstopped(text)) if ended else example
        case Chat(messages=turns):
            new = replace(example, messages=_cut_stops(turns))
        case Preference(chosen=chosen, rejected=rejected):
            new = replace(example, chosen=_cut_stops(chosen), rejected=_cut_stops(rejected))
        case Ranking(responses=responses):
            new = replace(example, responses=tuple(map(_cut_stops, responses)))
        case Labelled(completion=completion):
            new = replace(example, completion=_cut_stops(completion))
        case _:
            return None
    return None if new is example or new == example else new


def _cut_stops(turns: Messages) -> Messages:
    return tuple(
        replace(turn, content=_unstopped(turn.content))
        if turn.role == "assistant" and turn.content[-1:] in _LAST
        else turn
        for turn in turns
    )


_LAST = {stop[-1] for stop in STOPS} | {" ", "\n"}


def _unstopped(text: str) -> str:
    if text[-1:] not in _LAST or not (found := TRAILING_STOPS.search(text[-200:])):
        return text
    left = text[: len(text) - len(found[0])]
    return text if "</s>" in found[0] and left.count("<s>") > left.count("</s>") else left  # struck out, as in HTML


def _contradictions(values: Mapping[str, Any], example: Preference) -> list[str]:
    """What the row says beside its conversations, and they do not."""
    said = []
    asked = values.get("prompt")
    if isinstance(asked, str) and asked.strip() and example.prompt:
        read = _plain(" ".join(f"{turn.content} {turn.input}" for turn in example.prompt))
        words = [_plain(part) for part in re.split(r"\n\n(?:Human|Assistant):", "\n\n" + asked.strip())]
        if not all(part in read for part in words if part):
            said.append(OTHER_PROMPT)
    if example.margin is not None and example.margin < 0:
        said.append(NEGATIVE_MARGIN)
    try:
        if float(values["score_chosen"]) < float(values["score_rejected"]):
            said.append(OTHER_SCORE)
    except (KeyError, TypeError, ValueError):
        pass
    return said


def _plain(text: str) -> str:
    return " ".join(text.split())
