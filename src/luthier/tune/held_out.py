"""What is measured of a run, and one measurement: the records of evals/*.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from luthier.core.types.examples import Example
from luthier.core.types.trees import Node, TokenTree
from luthier.runs.held_out_rows import AskedAgain, MeasuredRow
from luthier.tune.retention import AnswerPairs, MeasuredRetention


@dataclass(frozen=True)
class HeldOut:
    """What is measured: trees for the loss; prompts, with their rows, ids and references, for generation; beside the held-out
    rows `general_texts` of the user's, whose likelihood is."""

    trees: Sequence[TokenTree]
    rows: Sequence[int] = ()
    prompts: Sequence[str] = ()
    prompt_ids: Sequence[tuple[int, ...]] = ()
    references: Sequence[str] = ()
    examples: Sequence[Example] = ()
    general_texts: Sequence[TokenTree] = ()


@dataclass(frozen=True)
class Measured:
    """One measurement: (row, loss, units) of each row, what the method reports of each beside it, generated answers,
    their token ids (which records do not keep), how each ended and log p of its tokens (see `Sample`; both absent from old
    records), their rewards, what it said when it was asked `again` (by the place among the held-out prompts), and beside the
    held-out rows what tells what it kept of other things (`retention`)."""

    losses: tuple[tuple[int, float, int], ...] = ()
    items: tuple[dict[str, Any], ...] = ()
    scored: tuple[dict[str, float], ...] = ()
    answers: tuple[str, ...] = ()
    ids: tuple[tuple[int, ...], ...] = ()
    ended: tuple[str, ...] = ()
    logps: tuple[tuple[float, ...], ...] = ()
    again: Mapping[int, AskedAgain] = field(default_factory=dict)
    retention: MeasuredRetention = field(default_factory=MeasuredRetention)

    @property
    def reward(self) -> float | None:
        """Mean reward of the answers, for methods that learn from rewards."""
        return sum(row["reward"] for row in self.scored) / len(self.scored) if self.scored else None

    @property
    def loss(self) -> float | None:
        """Mean loss over all units (tokens, or examples), whatever the batches."""
        units = sum(count for _, _, count in self.losses)
        return sum(loss for _, loss, _ in self.losses) / units if units else None


def answer_trees(pairs: AnswerPairs) -> list[TokenTree]:
    """Prompts with answers, of which the answers count."""
    return [
        TokenTree((Node(prompt + answer, (False,) * len(prompt) + (True,) * len(answer)),), row=i)
        for i, (prompt, answer) in enumerate(pairs)
    ]


def measured_rows(held_out: HeldOut, measured: Measured) -> dict[int, MeasuredRow]:
    """The record of every held-out row that was measured, by its number."""
    rows: dict[int, MeasuredRow] = {}
    for (row, loss, count), items in zip(measured.losses, measured.items, strict=True):
        rows[row] = MeasuredRow(row, loss, count, items)
    for i, answer in enumerate(measured.answers):
        row = held_out.rows[i]
        rows[row] = replace(
            rows.get(row, MeasuredRow(row)), prompt=held_out.prompts[i], reference=held_out.references[i], answer=answer,
            ended=measured.ended[i] if measured.ended else None, logps=measured.logps[i] if measured.ended else None,
            rewards=measured.scored[i] if measured.scored else None, again=measured.again.get(i),
        )  # fmt: skip
    return {row: rows[row] for row in sorted(rows)}


def to_records(held_out: HeldOut, measured: Measured) -> list[dict[str, Any]]:
    """A measurement as JSONL lines: held-out rows first, then what was measured beside them."""
    rows = measured_rows(held_out, measured).values()
    return [row.as_record() for row in rows] + measured.retention.as_records()


def from_records(records: Sequence[dict[str, Any]]) -> Measured:
    """The reverse of `to_records`."""
    rows = [MeasuredRow.from_record(record) for record in records if "row" in record]
    answered = [row for row in rows if row.answer is not None]
    return Measured(
        losses=tuple((row.row, row.loss, row.units) for row in rows if row.loss is not None),
        items=tuple(dict(row.items) for row in rows if row.loss is not None),
        answers=tuple(row.answer for row in answered if row.answer is not None),
        ended=tuple(row.ended for row in answered if row.ended is not None),
        logps=tuple(row.logps for row in answered if row.logps is not None),
        scored=tuple(dict(row.rewards) for row in answered if row.rewards is not None),
        again={i: row.again for i, row in enumerate(answered) if row.again},
        retention=MeasuredRetention.from_records(records),
    )


def is_complete(held_out: HeldOut, measured: Measured) -> bool:
    """Whether a measurement that was read is one of all of these rows and prompts."""
    answers = len(measured.answers)
    beside = (measured.ended, measured.logps, measured.scored)
    return (
        len(measured.losses) in (0, len(held_out.trees))
        and answers in (0, len(held_out.prompts))
        and all(len(values) in (0, answers) for values in beside)
    )
