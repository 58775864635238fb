"""A held-out row of a run: what was asked, what the model made of it before and after, and what is wrong with the answers.

    evals/before.jsonl, after.jsonl   a line a row: its loss, its answer and how that ended; written as each is measured
    errors/records.jsonl              a line an answered row: what was found in both answers; written when both are there

`read` joins them. Lines of earlier versions lack some keys, which are None or empty here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.findings import Finding
from luthier.runs.folder import RunFolder
from luthier.runs.records import MEND

STAGES = ("before", "after")
ERRORS = "errors/records.jsonl"


def stage_file(stage: str) -> str:
    """Where a stage's rows stand in a run."""
    return f"evals/{stage}.jsonl"


@dataclass(frozen=True, slots=True)
class AskedAgain:
    """What a model said when it was asked a prompt again: `samples` of it, and the `answers` to `paraphrases`."""

    samples: tuple[str, ...]
    paraphrases: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """What one model made of a row: `loss`, a sum over `units` (tokens, or examples), with what the method reports beside it
    (`items`), and its `answer` to `prompt`, how that `ended`, log p of its tokens and its rewards by name."""

    row: int
    loss: float | None = None
    units: int = 0
    items: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = ""
    reference: str = ""
    answer: str | None = None
    ended: str | None = None
    logps: tuple[float, ...] | None = None
    rewards: Mapping[str, float] | None = None
    again: AskedAgain | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> MeasuredRow:
        """The row that a line of evals/ holds."""
        again = record.get("again")
        logps = record.get("logps")
        return cls(
            record["row"], record.get("loss"), record.get("units", 0), record.get("items", {}), record.get("prompt", ""),
            record.get("reference", ""), record.get("answer"), record.get("ended"), None if logps is None else tuple(logps),
            record.get("rewards"), again and AskedAgain(*(tuple(again[key]) for key in ("samples", "paraphrases", "answers"))),
        )  # fmt: skip

    def as_record(self) -> dict[str, Any]:
        """The row as its line, without what was not measured."""
        out: dict[str, Any] = {"row": self.row}
        if self.loss is not None:
            out |= {"loss": self.loss, "units": self.units} | ({"items": dict(self.items)} if self.items else {})
        if self.answer is not None:
            out |= {"prompt": self.prompt, "reference": self.reference, "answer": self.answer}
        if self.ended is not None:
            out |= {"ended": self.ended, "logps": list(self.logps or ())}
        if self.rewards is not None:
            out["rewards"] = self.rewards
        if self.again is not None:
            out["again"] = {name: list(texts) for name, texts in asdict(self.again).items()}
        return out


@dataclass(frozen=True, slots=True)
class RowErrors:
    """What was found in the answers to a row, before and after; whether each counts as bad, and what that means; where the row
    stands, and the slices it belongs to (kind -> value)."""

    before: tuple[Finding, ...]
    after: tuple[Finding, ...]
    before_bad: bool = False
    bad: bool = False
    bad_means: str = ""
    file: str = ""
    line: int = 0
    slices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeldOutRow:
    """A row that was answered before and after; `errors` where somebody looked for them."""

    before: MeasuredRow
    after: MeasuredRow
    errors: RowErrors | None = None

    @property
    def row(self) -> int:
        """Its number among the held-out rows."""
        return self.after.row

    @property
    def prompt(self) -> str:
        """What was asked."""
        return self.after.prompt

    @property
    def reference(self) -> str:
        """The expected answer."""
        return self.after.reference

    def answers(self) -> tuple[str, str]:
        """Both answers."""
        return self.before.answer or "", self.after.answer or ""


def read(folder: RunFolder) -> list[HeldOutRow]:
    """The answered rows of a run that was measured before and after, in the order of their numbers; none where nothing was
    answered. Raises InputError for a file that was damaged, and where the stages are not of the same rows."""
    before, after = (_answered(folder, stage) for stage in STAGES)
    if list(before) != list(after):
        raise InputError("before and after are for different rows", where=folder.path / "evals", fix=MEND)
    errors = {record["row"]: _errors(record) for record in folder.records(ERRORS) or ()}
    return [HeldOutRow(before[row], after[row], errors.get(row)) for row in after]


def write_errors(folder: RunFolder, rows: Sequence[HeldOutRow]) -> None:
    """Keep what was found in the answers of these rows."""
    folder.write_records(ERRORS, [_record_of_errors(row, row.errors) for row in rows if row.errors])


def _answered(folder: RunFolder, stage: str) -> dict[int, MeasuredRow]:
    records = folder.records(stage_file(stage)) or ()
    return {record["row"]: MeasuredRow.from_record(record) for record in records if "answer" in record}


def _errors(record: Mapping[str, Any]) -> RowErrors:
    before, after = (
        tuple(Finding(f["category"], f["why"], f["span"] and tuple(f["span"])) for f in record[f"{stage}_findings"])
        for stage in STAGES
    )
    names = ("before_bad", "bad", "bad_means", "file", "line", "slices")
    return RowErrors(before, after, **{name: record[name] for name in names if name in record})


def _record_of_errors(row: HeldOutRow, found: RowErrors) -> dict[str, Any]:
    before, after = row.answers()
    return {
        "row": row.row, "file": found.file, "line": found.line, "prompt": row.prompt, "reference": row.reference, "before": before,
        "after": after, "before_findings": [asdict(one) for one in found.before], "after_findings": [asdict(one) for one in found.after],
        "before_bad": found.before_bad, "bad": found.bad, "bad_means": found.bad_means, "slices": found.slices,
    }  # fmt: skip
