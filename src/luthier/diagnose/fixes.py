"""Mends of training rows: proposed by rule, for a person to accept, edit or leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from luthier.core.storage.opening import require_new
from luthier.core.types.examples import Chat, Prompt
from luthier.data.texts import identity
from luthier.data.write import check_lines, write_jsonl
from luthier.diagnose import sources
from luthier.diagnose.corrections import Labels, corrected
from luthier.diagnose.errors import Diagnosis, having, look
from luthier.diagnose.run_data import Answers, TrainingRow, read_answers, read_files, taught
from luthier.diagnose.suspects import folded
from luthier.evals.detectors.answered import Finding
from luthier.evals.detectors.table import CATEGORIES
from luthier.evals.detectors.task import Task

Action = Literal["drop", "correct", "shorten", "rewrite"]
ACTIONS: tuple[Action, ...] = get_args(Action)
CONFLICT, DOUBTFUL = "conflict", "doubtful"
OWN = {CONFLICT: "contradicts another row", DOUBTFUL: "doubtful answer"}  # what no detector of answers can tell


@dataclass(frozen=True)
class Fix:
    """One line of the file: what to do with a row, why, and the new answer (None where a person must write it).

    row        its number among the rows that the run learned from
    sha        the identity of its content: a row that changed is not mended
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
    def ready(self) -> bool:
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
    """Write a mend for every row to learn from that has a defect, contradicts another or is doubtful; one a row.

    Rows that contradict each other come first, then doubtful ones, then the categories that are most frequent in the
    held-out answers. The keys of `luthier errors --fix --json`. Raises InputError when `out` exists, and as
    `run_data.read_files` does.
    """
    check_new(out)
    answers = read_answers(run)
    rows = [row for row in taught(read_files(answers).train) if isinstance(row.example, (Chat, Prompt))]
    seen = look(answers, rows)
    held_out = {name: int(sum(having(seen.after, name))) for name in CATEGORIES}
    order = [CONFLICT, DOUBTFUL, *sorted(held_out, key=lambda name: -held_out[name])]
    found = [_mend(row, ideas) for row, ideas in zip(rows, _ideas(seen, rows), strict=True) if ideas]
    mends = [mend for mend, _ in sorted(found, key=lambda item: (order.index(item[0].category), item[1]))]
    if mends:
        write_jsonl([asdict(mend) for mend in mends], out)
    kinds = []
    for (category, action), count in sorted(
        Counter((mend.category, mend.action) for mend in mends).items(), key=lambda item: order.index(item[0][0])
    ):
        ready = sum(mend.ready for mend in mends if (mend.category, mend.action) == (category, action))
        about = {"category": category, "title": OWN.get(category) or CATEGORIES[category].title, "action": action}
        kinds.append(about | {"rows": count, "ready": ready, "held_out": held_out.get(category)})
    return {
        "run": str(run), "out": str(out) if mends else None, "rows": len(rows), "mends": len(mends), "kinds": kinds,
        "first": [asdict(mend) for mend in mends[:3]],
    }  # fmt: skip


def _ideas(seen: Diagnosis, rows: Sequence[TrainingRow]) -> list[list[FixProposal]]:
    """What is said of each row."""
    labels = Labels(rows) if seen.wrong == "accuracy" else None
    ideas: list[list[FixProposal]] = [[] for _ in rows]
    for place, idea in chain(_contradictions(rows, labels), _doubts(seen.answers, rows, labels)):
        ideas[place].append(idea)
    for place, findings in enumerate(sources.defects(rows, seen.task)):
        ideas[place] += [_idea(rows[place], finding, seen.task, labels) for finding in findings]
    return ideas


def check_new(path: Path) -> None:
    """Raise InputError when the file exists, or its name does not say that it holds JSON Lines."""
    check_lines(path)
    check_free(path)


def check_free(path: Path) -> None:
    """Raise InputError when the file exists, or cannot be written."""
    require_new(path, "give another name")


def _mend(row: TrainingRow, ideas: Sequence[FixProposal]) -> tuple[Fix, int]:
    """The mend of a row, and its place, with every reason: what a contradiction asks for, else the right label where it is
    known, because such a row need not be lost, else the first action of ACTIONS that is asked for."""
    known = (CONFLICT, "drop"), (CONFLICT, "correct"), (DOUBTFUL, "correct")
    best = min(ideas, key=lambda idea: ((idea.category, idea.action) not in known, ACTIONS.index(idea.action)))
    why = "; ".join(dict.fromkeys(idea.why for idea in (best, *ideas)))
    origin, sha = row.example.origin, identity(row.example).hex()
    mend = Fix(row.row, origin.file, origin.line, sha, best.action, best.category, why, row.answer, best.after)
    return mend, best.place


def _contradictions(rows: Sequence[TrainingRow], labels: Labels | None) -> Iterator[tuple[int, FixProposal]]:
    """The rows of each group that answer otherwise than most (than the first, where none is in the majority)."""
    for group in sources.disagreeing(rows):
        votes = Counter(folded(rows[i].answer) for i in group).most_common(2)
        kept, clear = votes[0][0], votes[0][1] > votes[1][1]
        first = next(rows[i] for i in group if folded(rows[i].answer) == kept)
        for i in group:
            if folded(rows[i].answer) != kept:
                why = f"the same prompt is answered differently at {first.where}: {_cut(first.answer)}"
                right = first.answer if labels and clear else None
                yield i, FixProposal(CONFLICT, "correct" if right else "drop", why, right)


def _doubts(answers: Answers, rows: Sequence[TrainingRow], labels: Labels | None) -> Iterator[tuple[int, FixProposal]]:
    for place, suspect in enumerate(sources.doubtful(answers, rows)):
        likely = labels.likely(suspect.row) if labels else None
        yield suspect.row, FixProposal(DOUBTFUL, "correct" if likely else "rewrite", suspect.why, likely, place)


def _idea(row: TrainingRow, finding: Finding, task: Task, labels: Labels | None) -> FixProposal:
    """What to do about a finding: as its category says, where a rule can; else a person must write."""
    action: Action = CATEGORIES[finding.category].mend
    after = None
    if action in ("shorten", "correct"):
        after = corrected(row, finding, action, task, labels)
        action = action if after is not None else "rewrite"
    return FixProposal(finding.category, action, finding.why, after)


def _cut(text: str, width: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
