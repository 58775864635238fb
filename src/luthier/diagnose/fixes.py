"""Fixes of training rows: proposed by rule, for a person to accept, edit or leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from luthier.core.storage.opening import require_new
from luthier.core.types.examples import Chat, Prompt
from luthier.data.example_text import identity
from luthier.data.write import check_lines, write_jsonl
from luthier.diagnose import error_sources
from luthier.diagnose.corrections import Labels, corrected
from luthier.diagnose.doubtful_rows import folded
from luthier.diagnose.errors import Diagnosis, category_indicator, diagnose
from luthier.diagnose.run_data import Answers, TrainingRow, read_answers, read_files, training_rows
from luthier.evals.detectors.answer import Finding
from luthier.evals.detectors.table import CATEGORIES
from luthier.evals.detectors.task import Task

Action = Literal["drop", "correct", "shorten", "rewrite"]
ACTIONS: tuple[Action, ...] = get_args(Action)
CONFLICT, DOUBTFUL = "conflict", "doubtful"
# What no detector of answers can tell.
ROW_CATEGORIES = {CONFLICT: "contradicts another row", DOUBTFUL: "doubtful answer"}


@dataclass(frozen=True)
class Fix:
    """One line of the file: what to do with a row, why, and the new answer (None where a person must write it).

    row        its number among the rows that the run learned from
    sha        the identity of its content: a row that changed is not corrected
    accept     None until a person writes true or false
    """

    row: int
    file: str
    line: int
    sha: str
    action: Action
    category: str
    why: str
    before: str
    after: str | None = None
    accept: bool | None = None

    @property
    def complete(self) -> bool:
        """Whether nobody has to write anything before it can be accepted."""
        return self.action == "drop" or self.after is not None


@dataclass(frozen=True)
class FixProposal:
    """What one category says of a row; `place` is its place among those of its category, 0 where they have no order."""

    category: str
    action: Action
    why: str
    after: str | None = None
    place: int = 0


def propose(run: Path, out: Path) -> dict[str, Any]:
    """Write a fix for every row to learn from that has a defect, contradicts another or is doubtful; one a row.

    Rows that contradict each other come first, then doubtful ones, then the categories that are most frequent in the
    held-out answers. The keys of `luthier errors --fix --json`. Raises InputError when `out` exists, and as
    `run_data.read_files` does.
    """
    check_new(out)
    answers = read_answers(run)
    rows = [row for row in training_rows(read_files(answers).train) if isinstance(row.example, (Chat, Prompt))]
    diagnosis = diagnose(answers, rows)
    held_out = {name: int(sum(category_indicator(diagnosis.after, name))) for name in CATEGORIES}
    order = [CONFLICT, DOUBTFUL, *sorted(held_out, key=lambda name: -held_out[name])]
    proposed = [
        fix_for(row, proposals) for row, proposals in zip(rows, _proposals(diagnosis, rows), strict=True) if proposals
    ]
    fixes = [fix for fix, _ in sorted(proposed, key=lambda item: (order.index(item[0].category), item[1]))]
    if fixes:
        write_jsonl([asdict(fix) for fix in fixes], out)
    kinds = []
    for (category, action), count in sorted(
        Counter((fix.category, fix.action) for fix in fixes).items(), key=lambda item: order.index(item[0][0])
    ):
        complete = sum(fix.complete for fix in fixes if (fix.category, fix.action) == (category, action))
        about = {
            "category": category,
            "title": ROW_CATEGORIES.get(category) or CATEGORIES[category].title,
            "action": action,
        }
        kinds.append(about | {"rows": count, "ready": complete, "held_out": held_out.get(category)})
    return {
        "run": str(run), "out": str(out) if fixes else None, "rows": len(rows), "fixes": len(fixes), "kinds": kinds,
        "first": [asdict(fix) for fix in fixes[:3]],
    }  # fmt: skip


def _proposals(diagnosis: Diagnosis, rows: Sequence[TrainingRow]) -> list[list[FixProposal]]:
    """What is said of each row."""
    labels = Labels(rows) if diagnosis.wrong == "accuracy" else None
    proposals: list[list[FixProposal]] = [[] for _ in rows]
    for place, proposal in chain(_contradictions(rows, labels), _doubts(diagnosis.answers, rows, labels)):
        proposals[place].append(proposal)
    for place, findings in enumerate(error_sources.defects(rows, diagnosis.task)):
        proposals[place] += [_proposal(rows[place], finding, diagnosis.task, labels) for finding in findings]
    return proposals


def check_new(path: Path) -> None:
    """Raise InputError when the file exists, or its name does not say that it holds JSON Lines."""
    check_lines(path)
    check_free(path)


def check_free(path: Path) -> None:
    """Raise InputError when the file exists, or cannot be written."""
    require_new(path, "give another name")


def fix_for(row: TrainingRow, proposals: Sequence[FixProposal]) -> tuple[Fix, int]:
    """The fix of a row, and its place, with every reason: what a contradiction asks for, else the right label where it is
    known, because such a row need not be lost, else the first action of ACTIONS that is asked for."""
    known = (CONFLICT, "drop"), (CONFLICT, "correct"), (DOUBTFUL, "correct")
    best = min(
        proposals,
        key=lambda proposal: ((proposal.category, proposal.action) not in known, ACTIONS.index(proposal.action)),
    )
    why = "; ".join(dict.fromkeys(proposal.why for proposal in (best, *proposals)))
    origin, sha = row.example.origin, identity(row.example).hex()
    fix = Fix(row.row, origin.file, origin.line, sha, best.action, best.category, why, row.answer, best.after)
    return fix, best.place


def _contradictions(rows: Sequence[TrainingRow], labels: Labels | None) -> Iterator[tuple[int, FixProposal]]:
    """The rows of each group that answer otherwise than most (than the first, where none is in the majority)."""
    for group in error_sources.contradictions(rows):
        votes = Counter(folded(rows[i].answer) for i in group).most_common(2)
        usual, clear = votes[0][0], votes[0][1] > votes[1][1]
        first = next(rows[i] for i in group if folded(rows[i].answer) == usual)
        for i in group:
            if folded(rows[i].answer) != usual:
                why = f"the same prompt is answered differently at {first.where}: {_cut(first.answer)}"
                correction = first.answer if labels and clear else None
                yield i, FixProposal(CONFLICT, "correct" if correction else "drop", why, correction)


def _doubts(answers: Answers, rows: Sequence[TrainingRow], labels: Labels | None) -> Iterator[tuple[int, FixProposal]]:
    for place, suspect in enumerate(error_sources.doubtful_rows(answers, rows)):
        likely = labels.likely(suspect.row) if labels else None
        yield suspect.row, FixProposal(DOUBTFUL, "correct" if likely else "rewrite", suspect.why, likely, place)


def _proposal(row: TrainingRow, finding: Finding, task: Task, labels: Labels | None) -> FixProposal:
    """What to do about a finding: as its category says, where a rule can; else a person must write."""
    action: Action = CATEGORIES[finding.category].fix
    after = None
    if action in ("shorten", "correct"):
        after = corrected(row, finding, action, task, labels)
        action = action if after is not None else "rewrite"
    return FixProposal(finding.category, action, finding.why, after)


def _cut(text: str, width: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
