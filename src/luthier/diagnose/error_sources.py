"""From what is wrong with answers back to the rows that taught it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

from luthier.core import log
from luthier.core.seeds import generator
from luthier.diagnose.doubtful_rows import DoubtfulRow, conflicts, rank_doubtful
from luthier.diagnose.nearest import Nearest
from luthier.diagnose.run_data import Answers, TrainingRow
from luthier.evals.detectors.answer import Finding, GivenAnswer
from luthier.evals.detectors.table import detect
from luthier.evals.detectors.task import Task
from luthier.training.method_table import method

MOST_ROWS = 5000  # training rows whose answers are looked at for defects
NEAREST = 2  # training rows of each example
FIRST = 5  # training rows that are named
T = TypeVar("T")
NOT_IN_ROWS = ("uncertain", "copied_training")  # in training rows: these need the model's probabilities, or a reference


def sample(rows: Sequence[T], seed: int, most: int | None = None) -> list[T]:
    """At most LOOKED_AT of the rows, or `most`, drawn with the run's seed, in order."""
    most = MOST_ROWS if most is None else most
    if len(rows) <= most:
        return list(rows)
    drawn = generator(seed, "training rows looked at").permutation(len(rows))[:most]
    return [rows[i] for i in sorted(drawn.tolist())]


def defects(rows: Sequence[TrainingRow], task: Task) -> list[list[Finding]]:
    """What the detectors find in the answers of training rows."""
    with log.progress("training rows", len(rows)) as bar:
        out = []
        for row in rows:
            out.append(detect(GivenAnswer(row.question, row.answer, row=row.row), task))
            bar.advance()
    return out


def by_category(rows: Sequence[TrainingRow], found: Sequence[Sequence[Finding]]) -> dict[str, dict[str, Any]]:
    """For each category found in training rows: how many, of how many looked at, and the first few."""
    out: dict[str, dict[str, Any]] = {}
    for row, findings in zip(rows, found, strict=True):
        for finding in findings:
            entry = out.setdefault(finding.category, {"rows": 0, "of": len(rows), "first": []})
            entry["rows"] += 1
            if len(entry["first"]) < FIRST:
                entry["first"].append({"where": row.where, "why": finding.why, "answer": row.answer})
    return out


def nearest(index: Nearest, rows: Sequence[TrainingRow], prompt: str) -> list[dict[str, Any]]:
    """The rows whose prompts are nearest to `prompt`; `index` is of the prompts of `rows`."""
    return [
        {"where": rows[i].where, "prompt": rows[i].question, "answer": rows[i].answer, "score": round(score, 3)}
        for i, score in index.find(prompt, NEAREST)
    ]


def doubtful_rows(answers: Answers, rows: Sequence[TrainingRow]) -> list[DoubtfulRow]:
    """The rows whose answer is doubtful, `row` being the place in `rows`: by their losses in training (not of methods that
    learn from rewards, whose losses say nothing of a row's answer) and by their neighbours."""
    records = answers.folder.records("losses.jsonl") or []
    if not method(answers.config.method).is_likelihood:
        records = []
    place = {row.row: i for i, row in enumerate(rows)}
    losses: dict[int, list[tuple[int, float, int]]] = {}
    for record in records:
        for number, loss, units in record["rows"]:
            if number in place:
                losses.setdefault(place[number], []).append((record["step"], loss, units))
    with log.progress("doubtful rows", len(rows)) as bar:
        return rank_doubtful(losses, [row.prompt for row in rows], [row.answer for row in rows], bar.advance)


def contradictions(rows: Sequence[TrainingRow]) -> list[tuple[int, ...]]:
    """Groups of places in `rows` with one prompt and different answers."""
    return [tuple(group) for group in conflicts([row.prompt for row in rows], [row.answer for row in rows])]


def summary(answers: Answers, rows: Sequence[TrainingRow]) -> dict[str, Any]:
    """Rows whose label is doubtful and rows that contradict each other: how many, and the first few."""
    doubts, groups = doubtful_rows(answers, rows), contradictions(rows)
    return {
        "suspects": {
            "rows": len(doubts),
            "first": [
                {"where": rows[s.row].where, "why": s.why, "prompt": rows[s.row].question, "answer": rows[s.row].answer}
                for s in doubts[:FIRST]
            ],
        },
        "conflicts": {
            "groups": len(groups),
            "rows": sum(map(len, groups)),
            "first": [_conflict(rows, group) for group in groups[:FIRST]],
        },
    }


def _conflict(rows: Sequence[TrainingRow], group: Sequence[int]) -> dict[str, Any]:
    answers = Counter(rows[i].answer for i in group)
    return {
        "prompt": rows[group[0]].question,
        "where": [rows[i].where for i in group],
        "answers": dict(answers.most_common()),
    }
