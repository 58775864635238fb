"""Judgments: which of two or more answers to a prompt an annotator, a person or a model, finds better.

One JSON object a line, written by `luthier judge` and by whoever else compares answers, read by `luthier elo`:

    prompt     what was asked: a text, or a list of {"role": ..., "content": ...}
    models     K names, K >= 2: who gave each answer
    answers    K texts
    order      the indices of the answers as they were shown, first to last
    verdict    K ranks, one for each answer in the order of `answers`: 1 is best, equal ranks are a tie
    annotator  who judged
    info       (optional) an object with whatever else is worth keeping; {"both_bad": true} marks a tie of bad answers

Rows of AlpacaEval (instruction, output_1, output_2, generator_1, generator_2, preference, annotator) are read too:
preference 1 to 2 says how far answer 2 is better, 1.5 and 0 are a tie.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from luthier.core.errors import InputError, nearest
from luthier.core.types.examples import ROLES, Message, Messages, Origin
from luthier.data.read import Row, read_rows

KEYS = ("prompt", "models", "answers", "order", "verdict", "annotator")
OPTIONAL = ("info",)


@dataclass(frozen=True, slots=True)
class Judgment:
    """One comparison; see the head of this module."""

    prompt: Messages
    models: tuple[str, ...]
    answers: tuple[str, ...]
    order: tuple[int, ...]
    verdict: tuple[int, ...]
    annotator: str
    info: Mapping[str, Any] = field(default_factory=dict, compare=False)
    origin: Origin = field(default=Origin(), compare=False)

    @property
    def key(self) -> tuple[Any, ...]:
        """What a judgment is about and who gives it, whatever the verdict: equal for a judgment made again."""
        return (prompt_key(self.prompt), self.models, self.answers, self.order, self.annotator)

    def as_record(self) -> dict[str, Any]:
        """The judgment as its line in a file."""
        record = {
            "prompt": prompt_value(self.prompt), "models": list(self.models), "answers": list(self.answers),
            "order": list(self.order), "verdict": list(self.verdict), "annotator": self.annotator,
        }  # fmt: skip
        return record | ({"info": dict(self.info)} if self.info else {})


@dataclass(frozen=True, slots=True)
class Duel:
    """What one annotator holds of two answers, whatever the order they were shown in.

    `first` < `second` by name. `outcome` is 1 when the first model's answer is better, 0 when the second's is, 0.5
    for a tie. `unit` numbers the pair of answers, `prompt` the prompt. `lengths` are the answers' characters.
    """

    prompt: int
    unit: int
    first: str
    second: str
    outcome: float
    annotator: str
    lengths: tuple[int, int]


def read(paths: Sequence[str]) -> list[Judgment]:
    """The judgments of files (.jsonl, .json, compressed or not). Raises InputError with file and line for a bad one."""
    return [_from_row(row) for row in read_rows(paths)]


def duels(judgments: Sequence[Judgment]) -> list[Duel]:
    """Every pair of answers of different models that an annotator compared, once.

    A ranking of K answers is K (K-1) / 2 duels. An annotator who judged a pair more than once, as a judge that sees
    both orders does, holds what the judgments agree on; where they do not, a tie (Zheng et al. 2023, "Judging
    LLM-as-a-Judge", section 3.4).
    """
    prompts: dict[Any, int] = {}
    units: dict[Any, int] = {}
    outcomes: dict[tuple[int, str], set[float]] = {}
    described: dict[int, tuple[int, str, str, tuple[int, int]]] = {}
    for judgment in judgments:
        prompt = prompts.setdefault(prompt_key(judgment.prompt), len(prompts))
        sides = sorted(zip(judgment.models, judgment.answers, judgment.verdict, strict=True))
        for (first, one, rank), (second, other, other_rank) in combinations(sides, 2):
            if first == second:
                continue
            unit = units.setdefault((prompt, first, second, one, other), len(units))
            described[unit] = (prompt, first, second, (len(one), len(other)))
            outcomes.setdefault((unit, judgment.annotator), set()).add(_outcome(rank, other_rank))
    return [
        Duel(described[unit][0], unit, described[unit][1], described[unit][2], found.pop() if len(found) == 1 else 0.5, annotator,
             described[unit][3])
        for (unit, annotator), found in outcomes.items()
    ]  # fmt: skip


def _outcome(rank: int, other_rank: int) -> float:
    return 0.5 if rank == other_rank else float(rank < other_rank)


def prompt_key(prompt: Messages) -> tuple[tuple[str, str], ...]:
    """What makes two prompts the same."""
    return tuple((message.role, message.content) for message in prompt)


def prompt_value(prompt: Messages) -> str | list[dict[str, str]]:
    """A prompt as JSON: the text alone when it is one message of the user."""
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].content
    return [{"role": message.role, "content": message.content} for message in prompt]


def _from_row(row: Row) -> Judgment:
    fields = row.fields
    if "verdict" not in fields and {"output_1", "output_2", "preference"} <= fields.keys():
        return _from_alpaca_eval(row)
    for key in fields:
        if key not in KEYS + OPTIONAL:
            guess = nearest(key, KEYS + OPTIONAL)
            fix = f"did you mean '{guess}'?" if guess else "put what you want to keep into 'info'"
            raise InputError(f"unknown key '{key}' in a judgment", where=row.origin, fix=fix)
    for key in KEYS:
        if key not in fields:
            raise InputError(f"a judgment without '{key}'", where=row.origin, fix=f"it has {', '.join(KEYS)}")
    models, answers = _texts(row, "models"), _texts(row, "answers")
    if len(models) < 2 or len(models) != len(answers):
        raise InputError(
            f"{len(models)} models and {len(answers)} answers",
            where=row.origin,
            fix="give two or more models, and one answer for each",
        )
    info = fields.get("info", {})
    if not isinstance(info, dict):
        raise InputError("'info' is not an object", where=row.origin)
    annotator = fields["annotator"]
    if not isinstance(annotator, str) or not annotator:
        raise InputError("'annotator' is not a name", where=row.origin)
    order, verdict = _integers(row, "order", len(models)), _integers(row, "verdict", len(models))
    if sorted(order) != list(range(len(models))):
        raise InputError(
            f"'order' {list(order)} does not name every answer once", where=row.origin,
            fix="such as [1, 0] when the second was shown first",
        )  # fmt: skip
    if min(verdict) != 1:
        raise InputError(
            f"'verdict' {list(verdict)} has no best answer of rank 1", where=row.origin,
            fix="give the rank of each answer: [1, 2], [2, 1], or [1, 1] for a tie",
        )  # fmt: skip
    return Judgment(prompt_of(row), models, answers, order, verdict, annotator, info, row.origin)


def prompt_of(row: Row) -> Messages:
    """The prompt of a row: a text, or messages. Raises InputError when it is neither."""
    if "prompt" not in row.fields:
        raise InputError(
            f"no field 'prompt': found {', '.join(row.fields)}", where=row.origin,
            fix='a line is {"prompt": ..., "answer": ...}',
        )  # fmt: skip
    value = row.fields["prompt"]
    if isinstance(value, str):
        return (Message("user", value),)
    turns = value if isinstance(value, list) and all(isinstance(turn, dict) for turn in value) else []
    valid = [t.keys() == {"role", "content"} and t["role"] in ROLES and isinstance(t["content"], str) for t in turns]
    if not valid or not all(valid):
        raise InputError(
            "'prompt' is neither a text nor messages", where=row.origin,
            fix='messages are [{"role": "user", "content": "..."}]',
        )  # fmt: skip
    return tuple(Message(m["role"], m["content"]) for m in turns)


def _texts(row: Row, key: str) -> tuple[str, ...]:
    value = row.fields[key]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"'{key}' is not a list of texts", where=row.origin)
    return tuple(value)


def _integers(row: Row, key: str, count: int) -> tuple[int, ...]:
    value = row.fields[key]
    whole = isinstance(value, list) and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    if not whole or len(value) != count:
        raise InputError(f"'{key}' is not a list of {count} whole numbers", where=row.origin)
    return tuple(value)


def _from_alpaca_eval(row: Row) -> Judgment:
    fields = row.fields
    for key in ("instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator"):
        if not isinstance(fields.get(key), str):
            raise InputError(f"a comparison without the text '{key}'", where=row.origin)
    preference = fields["preference"]
    if not isinstance(preference, int | float) or not (preference == 0 or 1 <= preference <= 2):
        raise InputError(f"'preference' is {preference!r}", where=row.origin, fix="1 to 2, or 0 for a tie")
    request = str(fields["instruction"]) + (f"\n\n{fields['input']}" if fields.get("input") else "")
    ranks = (1, 1) if preference in (0, 1.5) else (1, 2) if preference < 1.5 else (2, 1)
    return Judgment(
        (Message("user", request),), (fields["generator_1"], fields["generator_2"]),
        (fields["output_1"], fields["output_2"]), (0, 1), ranks, fields["annotator"], {"preference": preference}, row.origin,
    )  # fmt: skip


def lines(judgments: Sequence[Judgment]) -> Iterator[str]:
    """The lines of a file of judgments, without their ends."""
    return (json.dumps(judgment.as_record(), ensure_ascii=False) for judgment in judgments)
