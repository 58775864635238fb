"""What is measured of a run, and one measurement: the records of evals/*.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from luthier.core.types.examples import Example
from luthier.core.types.trees import Node, TokenTree
from luthier.evals import forgetting as forgot
from luthier.runs.held_out_rows import AskedAgain, MeasuredRow

AnswerPairs = Sequence[tuple[tuple[int, ...], tuple[int, ...]]]  # (prompt ids, answer ids)


@dataclass(frozen=True)
class RepeatedPrompt:
    """One prompt asked again: `place` among the held-out prompts, `samples` of it, and the answers to `paraphrases`, drawn as
    the held-out answers are."""

    place: int
    samples: tuple[str, ...]
    paraphrases: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeldOut:
    """What is measured: trees for the loss; prompts, with their rows, ids and references, for generation; general
    `texts` of the user's, whose likelihood is."""

    trees: Sequence[TokenTree]
    rows: Sequence[int] = ()
    prompts: Sequence[str] = ()
    prompt_ids: Sequence[tuple[int, ...]] = ()
    references: Sequence[str] = ()
    examples: Sequence[Example] = ()
    texts: Sequence[TokenTree] = ()


@dataclass(frozen=True)
class Measured:
    """One measurement: (row, loss, units) of each row, what the method reports of each beside it, generated answers,
    their token ids (which records do not keep), how each ended and log p of its tokens (see `Sample`; both absent from old
    records), their rewards, (log-likelihood, tokens) of the `general` answers, the model's `own` answers to the same
    prompts, the loss of general `texts`, and what it said when it was asked `again`."""

    losses: tuple[tuple[int, float, int], ...] = ()
    items: tuple[dict[str, Any], ...] = ()
    scored: tuple[dict[str, float], ...] = ()
    answers: tuple[str, ...] = ()
    ids: tuple[tuple[int, ...], ...] = ()
    ended: tuple[str, ...] = ()
    logps: tuple[tuple[float, ...], ...] = ()
    general: tuple[tuple[float, int], ...] = ()
    general_ids: AnswerPairs = ()
    own: tuple[forgot.OwnAnswer, ...] = ()
    texts: tuple[tuple[int, float, int], ...] = ()
    again: tuple[RepeatedPrompt, ...] = ()

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


def to_records(held_out: HeldOut, measured: Measured) -> list[dict[str, Any]]:
    """A measurement as JSONL lines: held-out rows first, then what was measured of general answers and texts."""
    rows: dict[int, MeasuredRow] = {}
    for (row, loss, count), items in zip(measured.losses, measured.items, strict=True):
        rows[row] = MeasuredRow(row, loss, count, items)
    again = {one.place: AskedAgain(one.samples, one.paraphrases, one.answers) for one in measured.again}
    for i, answer in enumerate(measured.answers):
        row = held_out.rows[i]
        rows[row] = replace(
            rows.get(row, MeasuredRow(row)), prompt=held_out.prompts[i], reference=held_out.references[i], answer=answer,
            ended=measured.ended[i] if measured.ended else None, logps=measured.logps[i] if measured.ended else None,
            rewards=measured.scored[i] if measured.scored else None, again=again.get(i),
        )  # fmt: skip
    general = [
        {"general": list(answer), "prompt_ids": list(prompt), "logp": logp, "tokens": count}
        for (logp, count), (prompt, answer) in zip(measured.general, measured.general_ids, strict=True)
    ]
    general += [
        {"own": list(one.ids), "prompt_ids": list(one.prompt_ids), "said": one.text, "ended": one.ended}
        for one in measured.own
    ]
    general += [{"text": row, "loss": loss, "units": count} for row, loss, count in measured.texts]
    return [rows[row].as_record() for row in sorted(rows)] + general


def from_records(records: Sequence[dict[str, Any]]) -> Measured:
    """The reverse of `to_records`."""
    rows = [MeasuredRow.from_record(record) for record in records if "row" in record]
    answered = [row for row in rows if row.answer is not None]
    general = [record for record in records if "general" in record]
    return Measured(
        losses=tuple((row.row, row.loss, row.units) for row in rows if row.loss is not None),
        items=tuple(dict(row.items) for row in rows if row.loss is not None),
        answers=tuple(row.answer for row in answered if row.answer is not None),
        ended=tuple(row.ended for row in answered if row.ended is not None),
        logps=tuple(row.logps for row in answered if row.logps is not None),
        scored=tuple(dict(row.rewards) for row in answered if row.rewards is not None),
        general=tuple((r["logp"], r["tokens"]) for r in general),
        general_ids=tuple((tuple(r["prompt_ids"]), tuple(r["general"])) for r in general),
        own=tuple(
            forgot.OwnAnswer(tuple(r["prompt_ids"]), tuple(r["own"]), r["said"], r["ended"])
            for r in records
            if "own" in r
        ),
        texts=tuple((r["text"], r["loss"], r["units"]) for r in records if "text" in r),
        again=tuple(
            RepeatedPrompt(i, row.again.samples, row.again.paraphrases, row.again.answers)
            for i, row in enumerate(answered)
            if row.again
        ),
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
