"""Which of two answers is better, and whether a single one was wanted: the functions of such layouts.

As in `layouts`, a fault raises InputError without a place, and `Unused` marks a sound row that yields no example.
Coded values have been understood before (`codes`): `values` holds what they mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import Labelled, Messages, Preference
from luthier.data.codes import BOTH, FIRST, SECOND, Codes, compared, declared, natural, plain_code
from luthier.data.layouts import (
    Unused,
    Values,
    beside,
    conversation_of,
    number,
    opened,
    prompt_of,
    templated_text,
    turns_of_text,
)
from luthier.data.learned_turns import truth
from luthier.data.messages import messages_of

TIE = "a tie: neither answer is preferred"
Found = Sequence[tuple[Mapping[str, Any], Mapping[str, str]]]  # rows: their columns, and the column of each field


def preference(values: Values) -> Preference:
    """Without a prompt of its own, the prompt is what both conversations begin with."""
    asked = values.get("input")
    if isinstance(asked, Mapping) and "messages" in asked:  # OpenAI's way: {"messages": ..., "tools": ...}
        values = {**values, "messages": asked["messages"], "tools": values.get("tools") or asked.get("tools")}
    prompt, chosen, rejected = _answers(values, "chosen", "rejected")
    margin = None if values.get("margin") is None else number(values["margin"], "margin")
    return Preference(prompt, chosen, rejected, margin, **beside(values))


def comparison(values: Values) -> Preference:
    """Two outputs and the better one of them: as `preference` says, as one of `winner_1`, `winner_2` and `winner_tie` is
    true, or as the scores of both are."""
    prompt, first, second = _answers(values, "output_1", "output_2")
    better = _better(values)
    if better == BOTH:
        raise Unused(TIE)
    chosen, rejected = (first, second) if better == FIRST else (second, first)
    return Preference(prompt, chosen, rejected, **beside(values))


def comparison_list(values: Values) -> Preference:
    """As `comparison`, the two outputs in a list."""
    outputs = values["outputs"]
    if not isinstance(outputs, (list, tuple)) or len(outputs) != 2:
        raise InputError("field 'outputs' is not a list of two answers", fix="give each row two")
    texts = [item["text"] if isinstance(item, Mapping) and "text" in item else item for item in outputs]
    return comparison({**values, "output_1": texts[0], "output_2": texts[1]})


def unpaired(values: Values) -> Labelled:
    """The completion is its own field, or the last assistant turn of a conversation."""
    label = truth(values["label"])
    if label is None:
        raise InputError(
            f"label {values['label']!r} is neither true nor false",
            fix="write true (wanted) or false, or say which is which, such as --data.values 'good=true,bad=false'",
        )
    if "completion" in values:
        prompt = opened(values, prompt_of(values))
        completion = messages_of(values["completion"], "completion", "assistant")
        return Labelled(prompt, completion, label, **beside(values))
    turns = conversation_of(values)
    if turns[-1].role != "assistant":
        raise InputError("the conversation does not end with an answer", fix="end it with an assistant turn")
    return Labelled(turns[:-1], turns[-1:], label, **beside(values))


def comparison_codes(found: Found, given: Mapping[str, str]) -> Codes | None:
    """What the values of `preference` mean, from all rows. Raises InputError as `codes.compared` does, and where scores
    say the contrary of most codes."""
    where = found[0][1]
    if "preference" not in where:
        return None
    # The outputs of a list go by their places, from 0.
    columns = (where["output_1"], where["output_2"]) if "output_1" in where else ("0", "1")
    if given:
        return declared(given, (FIRST, SECOND, BOTH), columns)
    seen: Counter[str] = Counter()
    scored: list[tuple[str, float, float]] = []
    for fields, at in found:
        code = plain_code(fields[at["preference"]]) if "preference" in at else ""
        seen[code] += 1
        if (scores := _scores(fields, at, "score_1", "score_2")) is not None:
            scored.append((code, *scores))
    meant = compared(seen, columns, where["preference"], scored)
    told = [(meant(code), one, two) for code, one, two in scored if one != two]
    told = [item for item in told if item[0] != BOTH]
    against = sum((means == FIRST) != (one > two) for means, one, two in told)
    if 2 * against > len(told):
        raise InputError(
            f"the scores contradict column '{where['preference']}' in {against} of {len(told)} rows",
            fix="say what its values mean with --data.values, or rename the scores if lower ones are better",
        )
    return meant


def check_scores(found: Found, given: Mapping[str, str]) -> Codes | None:
    """Raises InputError where most rejected answers have the higher score."""
    scores = [_scores(fields, at, "score_chosen", "score_rejected") for fields, at in found]
    told = [pair for pair in scores if pair is not None and pair[0] != pair[1]]
    against = sum(chosen < rejected for chosen, rejected in told)
    if 2 * against > len(told):
        raise InputError(
            f"the rejected answer has the higher score in {against} of {len(told)} rows: the preference is reversed",
            fix="swap them with --data.columns chosen=... and rejected=..., or rename the scores if lower ones are better",
        )
    return None


def _scores(fields: Mapping[str, Any], where: Mapping[str, str], one: str, two: str) -> tuple[float, float] | None:
    try:
        return float(fields[where[one]]), float(fields[where[two]])
    except (KeyError, TypeError, ValueError):
        return None


def _answers(values: Values, one: str, other: str) -> tuple[Messages, Messages, Messages]:
    """(prompt, first answer, second answer) of two fields that hold answers, or whole conversations that begin alike."""
    # One answer alone that looks like a conversation is an answer that quotes one.
    read = turns_of_text if templated_text(values[one]) and templated_text(values[other]) else messages_of
    first, second = (read(values[name], name, "assistant") for name in (one, other))
    if "prompt" in values and "messages" in values:  # the conversation beside a prompt is the prompt with an answer
        values = {name: value for name, value in values.items() if name != "messages"}
    prompt = prompt_of(_with_text(values))
    if _whole(first) or _whole(second):
        shared = _common(first, second)
        prompt, first, second = first[:shared] or prompt, first[shared:], second[shared:]
        if _whole(first) or _whole(second):
            raise InputError(
                f"{one} and {other} do not answer the same prompt", fix="give both the same turns before the answer"
            )
    return opened(values, prompt), first, second


def _with_text(values: Values) -> Values:
    """A prompt that is an object without a role, such as a post with its title, as its text."""
    for name in ("instruction", "prompt"):
        item = values.get(name)
        if isinstance(item, Mapping) and not {"role", "from"} & set(item):
            text = next((item[key] for key in ("full_text", "text", "post", "article", "body") if item.get(key)), None)
            if not isinstance(text, str):
                raise InputError(f"field '{name}' is an object without a text", fix="write it as a string")
            return {**values, name: text}
        if isinstance(item, (list, tuple)):  # turns: an instruction is one text, a prompt may be a conversation
            rest = {key: value for key, value in values.items() if key != name}
            return {**rest, "prompt": item}
    return values


def _better(values: Values) -> str:
    """FIRST, SECOND or BOTH."""
    if "preference" in values:
        return natural(values["preference"])
    if "winner_1" in values and "winner_2" in values:
        won = [truth(values.get(name, False)) for name in ("winner_1", "winner_2", "winner_tie")]
        if None in won or won.count(True) != 1:
            raise InputError("not one of winner_1, winner_2 and winner_tie is true", fix="mark one of them")
        return (FIRST, SECOND, BOTH)[won.index(True)]
    if "score_1" not in values or "score_2" not in values:
        raise InputError(
            "nothing says which output is better", fix="map a column with --data.columns preference=COLUMN"
        )
    one, two = (number(values[name], name) for name in ("score_1", "score_2"))
    return BOTH if one == two else FIRST if one > two else SECOND


def _whole(turns: Messages) -> bool:
    """Whether an answer is a whole conversation, prompt included."""
    return len(turns) > 0 and turns[0].role != "assistant"


def _common(first: Messages, second: Messages) -> int:
    """How many turns both conversations begin with, leaving at least one to each."""
    limit = min(len(first), len(second)) - 1
    return next((i for i in range(limit) if first[i] != second[i]), limit)
