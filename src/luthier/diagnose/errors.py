"""What is wrong with a run's held-out answers, where it is worse than elsewhere, and which rows taught it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from luthier.config.run import RunConfig
from luthier.core.errors import InputError, unknown
from luthier.core.types.examples import Example
from luthier.core.types.run_result import RunFinding
from luthier.data.example_text import prompt_text
from luthier.diagnose import error_sources
from luthier.diagnose.nearest import Nearest
from luthier.diagnose.run_data import (
    Answers,
    RunData,
    TrainingRow,
    answers_of,
    columns,
    read_answers,
    read_data,
    training_rows,
)
from luthier.diagnose.slices import slices
from luthier.diagnose.topics import length_bands, topics
from luthier.evals.detectors import same_answer
from luthier.evals.detectors.answer import Finding, GivenAnswer
from luthier.evals.detectors.critical import critical_findings
from luthier.evals.detectors.table import CATEGORIES, detect
from luthier.evals.detectors.task import Task
from luthier.evals.metrics import measure_answers
from luthier.evals.metrics.answer_metrics import CORRECTNESS, auto
from luthier.evals.metrics.labels import named as label_named
from luthier.evals.stats.paired import Question, compare
from luthier.runs.folder import RunFolder
from luthier.runs.held_out_rows import ERRORS, STAGES, MeasuredRow, RowErrors, write_errors

TASK_ROWS = 2000  # rows that the task is learned from when a run ends
EXAMPLES = 3  # of each category
CONFUSIONS = 10  # of labels
SOUND, WRONG = "sound", "wrong"

SAME = same_answer.NAME
WRONG_MEANS = {
    "accuracy": "Another label than the reference, several, or none.",
    "labels": "Other labels than the reference.",
    "first_line": "Another label in the first line than the reference's.",
    "number": "Another number than the reference.",
    "tool_calls": "Another function is called than in the reference, with other arguments, or none, or one too many.",
    "json_f1": "A field of the JSON differs from the reference's, is missing or too much.",
    "match": "Another short answer than the reference.",
}  # what a wrong answer is, by the metric that tells

Findings = Sequence[Sequence[Finding]]  # of each answer


@dataclass(frozen=True)
class Diagnosis:
    """A run's answers, and what was found of each. `wrong`: by which metric of RIGHT an answer counts as bad, where the task has
    right answers; None where whatever was found counts."""

    answers: Answers
    task: Task
    before: Findings
    after: Findings
    wrong: str | None

    @property
    def bad_means(self) -> str:
        """What an answer that counts as bad is, in words."""
        return title(WRONG) if self.wrong else "anything found"

    def bad(self, stage: str) -> list[float]:
        """1 for every answer of 'before' or 'after' that counts as bad, else 0."""
        if self.wrong is None:
            return [float(bool(found)) for found in getattr(self, stage)]
        answers, references, prompts = _texts(self.answers.of(stage))
        return [float(x < 1) for x in measure_answers.score(answers, references, prompts, (self.wrong,))[self.wrong]]


def errors(run: Path, category: str | None = None) -> dict[str, Any]:
    """The whole analysis, or all answers of one category: the keys of `luthier errors --json` (docs/errors.md).

    Raises InputError for a run that is not finished, has no generated answers, or whose data is not what it was.
    """
    if category not in (None, WRONG, SAME, *CATEGORIES):
        raise unknown("category", str(category), (WRONG, SAME, *CATEGORIES), where="--category")
    answers = read_answers(run)
    data = read_data(answers)
    diagnosis = diagnose(answers, data.train)
    groups = slice_values(diagnosis, data, columns(answers, data) if data.can_be_fixed else {})
    write_found(diagnosis, data, groups)
    shown = {
        "run": str(run), "answers": len(answers.rows), "records": str(answers.folder.path / ERRORS),
    }  # fmt: skip
    if category is not None:
        if category == WRONG and diagnosis.wrong is None:
            raise InputError(
                "it is not known which answers are wrong", where="--category", fix="see the other categories"
            )
        return shown | one_category(diagnosis, data, category)
    rows = error_sources.sample(data.train, answers.config.seed)
    parts = slices(groups, diagnosis.bad("after"))
    return shown | {
        "bad": diagnosis.bad_means,
        "first": critical_findings(diagnosis.before, diagnosis.after),
        "rows": table(indicators(diagnosis, "before"), indicators(diagnosis, "after"), answers.config.seed),
        "categories": categories(diagnosis, data, rows),
        "confusions": confusions(diagnosis),
        "slices": [asdict(part) | {"clear": part.clear, "verdict": part.verdict} for part in parts],
        "training": {"rows": data.total, "looked_at": len(rows), **error_sources.summary(answers, data.train)},
        "fixable": data.can_be_fixed,
        "notes": _notes(answers, data, len(rows)),
    }


def record(
    folder: RunFolder, config: RunConfig, train: Sequence[Example], held_out: Sequence[Example]
) -> list[RunFinding]:
    """Look for errors in the answers of a run that ends, and keep them for its page; returns what is told `critical_findings` of
    them. Of a run without answers, nothing. What the task is, at most LEARNED of the rows to learn from show: nobody asked for this, so
    it must be quick."""
    if (answers := answers_of(folder, config)) is None:
        return []
    rows = list(training_rows(error_sources.sample(train, config.seed, TASK_ROWS)))
    data, diagnosis = RunData(rows, held_out, len(train)), diagnose(answers, rows)
    write_found(diagnosis, data, slice_values(diagnosis, data, {}))
    return critical_findings(diagnosis.before, diagnosis.after)


def diagnose(answers: Answers, rows: Sequence[TrainingRow], task: Task | None = None) -> Diagnosis:
    """Run every detector on every answer, before and after. The task is what `rows` show, unless it is known."""
    learned = [row.answer for row in rows]
    task = task or Task.learn([row.question for row in rows], learned)
    before, after = (_found(answers.of(stage), task) for stage in STAGES)
    metric = auto(learned or [row.reference for row in answers.rows])[0]
    return Diagnosis(answers, task, before, after, metric if metric in CORRECTNESS else None)


def _texts(rows: Sequence[MeasuredRow]) -> tuple[list[str], list[str], list[str]]:
    """Their answers, references and prompts."""
    return [row.answer or "" for row in rows], [row.reference for row in rows], [row.prompt for row in rows]


def _found(rows: Sequence[MeasuredRow], task: Task) -> list[list[Finding]]:
    """What is wrong with each answer by itself, and whether it is one for all prompts."""
    answers, references, prompts = _texts(rows)
    alike = same_answer.findings(same_answer.repeated_answer(prompts, answers, references), answers)
    return [[*([one] if one else []), *detect(_answered(row), task)] for row, one in zip(rows, alike, strict=True)]


def _answered(row: MeasuredRow) -> GivenAnswer:
    """A row as detectors see it."""
    return GivenAnswer(row.prompt, row.answer or "", row.reference, row.row, row.ended or "", row.logps or ())


def indicators(diagnosis: Diagnosis, stage: str) -> dict[str, list[float]]:
    """What the table counts, of the answers of 'before' or 'after': name -> 1 or 0 for each answer."""
    found: Findings = getattr(diagnosis, stage)
    out = {SOUND: [float(not findings) for findings in found]}
    if diagnosis.wrong is not None:
        out[WRONG] = diagnosis.bad(stage)
        out[SOUND] = [float(not findings and not bad) for findings, bad in zip(found, out[WRONG], strict=True)]
    return out | {name: category_indicator(found, name) for name in (SAME, *CATEGORIES)}


def category_indicator(found: Findings, category: str) -> list[float]:
    """1 for every answer with a finding of the category, else 0."""
    return [float(any(finding.category == category for finding in findings)) for findings in found]


def table(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], seed: int
) -> list[dict[str, Any]]:
    """Sound answers and wrong ones, then every category that was found, the most frequent after first; where nothing tells
    whether answers are right, sound ones last. Keys as in `luthier compare`: paired intervals, p-values corrected for all rows (Holm)."""
    questions = []
    for name in shown_names(before, after):
        values = {"before": np.array([before[name]]), "after": np.array([after[name]])}
        questions.append(Question(name, values, title=title(name), unit="%", top=None, higher_is_better=name == SOUND))
    return ordered([row.as_dict() for row in compare(questions, seed)])


def shown_names(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> list[str]:
    """The names worth a row: the summary, and what was found at all."""
    return [name for name in after if name in (SOUND, WRONG) or any(before[name]) or any(after[name])]


def title(name: str) -> str:
    """The name of a row for people."""
    own = {SOUND: "nothing found", WRONG: "wrong answer", SAME: same_answer.TITLE}
    return own.get(name) or CATEGORIES[name].title


def ordered(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The summary first, then categories, the most frequent after first. That nothing was found says little where nobody can tell
    whether an answer is right: there it comes last."""
    correctness_known = any(row["name"] == WRONG for row in rows)
    heads = [SOUND, WRONG] if correctness_known else []

    def place(row: Mapping[str, Any]) -> tuple[int, float, float]:
        if row["name"] in heads:
            return heads.index(row["name"]), 0.0, 0.0
        return 3 if row["name"] == SOUND else 2, -row["after"], -row["before"]

    return sorted(rows, key=place)


def categories(diagnosis: Diagnosis, data: RunData, looked_at: Sequence[TrainingRow]) -> list[dict[str, Any]]:
    """Wrong answers, where that can be told, then every category found in tuned answers, the most frequent first: what it
    means, examples with the training rows nearest to them, and how many of the training rows looked at have the same defect."""
    by_category = error_sources.by_category(looked_at, error_sources.defects(looked_at, diagnosis.task))
    index = Nearest([row.prompt for row in data.train])
    bad = diagnosis.bad("after")
    out = []
    for name, values in indicators(diagnosis, "after").items():
        places = [i for i, there in enumerate(values) if there]
        if name == SOUND or not places:
            continue
        examples = []
        for i in sorted(places, key=lambda i: (-bad[i], -len(diagnosis.after[i])))[:EXAMPLES]:
            whole = prompt_text(data.held_out[diagnosis.answers.rows[i].row])
            examples.append(
                _item(diagnosis, data, i, name) | {"nearest": error_sources.nearest(index, data.train, whole)}
            )
        training = (
            None
            if name in (WRONG, SAME, *error_sources.NOT_IN_ROWS)
            else by_category.get(name, {"rows": 0, "first": []})
        )
        out.append(about(name, diagnosis.wrong) | {"answers": len(places), "examples": examples, "training": training})
    return sorted(out, key=lambda entry: (entry["name"] != WRONG, -entry["answers"]))


def about(name: str, wrong: str | None = None) -> dict[str, Any]:
    """What a category is; `wrong` is the metric that tells wrong answers, where it is known."""
    if name == WRONG:
        meaning = WRONG_MEANS.get(wrong or "", "Other than the reference.")
        rule = f"The metric `{wrong}` is below 1." if wrong else "see the metric"
        return {"name": name, "title": title(name), "meaning": meaning, "rule": rule, "fix": None}
    if name == SAME:
        return {
            "name": name,
            "title": title(name),
            "meaning": same_answer.MEANING,
            "rule": same_answer.RULE,
            "fix": None,
        }
    kind = CATEGORIES[name]
    return {"name": name, "title": kind.title, "meaning": kind.meaning, "rule": kind.rule, "fix": kind.fix}


def confusions(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    """Which label was given for which, in tuned answers, the most frequent first; none where answers are no labels."""
    if diagnosis.wrong != "accuracy":
        return []
    answers, references, _ = _texts(diagnosis.answers.of("after"))
    kinds = {reference.strip() for reference in references}
    pairs = (
        (reference.strip(), label_named(answer, kinds) or answer.strip())
        for answer, reference in zip(answers, references, strict=True)
    )
    counts = Counter(pair for pair in pairs if pair[0] != pair[1]).most_common(CONFUSIONS)
    return [{"reference": wanted, "answer": given, "answers": count} for (wanted, given), count in counts]


def one_category(diagnosis: Diagnosis, data: RunData, name: str) -> dict[str, Any]:
    """All answers of one category, after or before."""
    before, after = indicators(diagnosis, "before"), indicators(diagnosis, "after")
    old, new = before[name], after[name]
    return {
        "category": about(name, diagnosis.wrong),
        "rows": [row for row in table(before, after, diagnosis.answers.config.seed) if row["name"] == name],
        "shown": [_item(diagnosis, data, i, name) for i, there in enumerate(new) if there],
        "gone": [_item(diagnosis, data, i, name) for i in range(len(new)) if old[i] and not new[i]],
    }


def _item(diagnosis: Diagnosis, data: RunData, i: int, category: str) -> dict[str, Any]:
    """Answer i with its finding of the category; of the base's answer, where the tuned one has none."""
    row = diagnosis.answers.rows[i]
    findings = (f for f in (*diagnosis.after[i], *diagnosis.before[i]) if f.category == category)
    finding = Finding(WRONG, f"should be {row.reference.strip()}") if category == WRONG else next(findings)
    return {
        "row": row.row, "where": str(data.held_out[row.row].origin), "prompt": row.prompt, "reference": row.reference,
        "before": row.before.answer, "after": row.after.answer, "why": finding.why, "span": finding.span,
    }  # fmt: skip


def slice_values(diagnosis: Diagnosis, data: RunData, more: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """For each answer the slices it belongs to: kind -> value. The label where answers are a closed set; the source file
    where there are several; the columns `more`."""
    rows = diagnosis.answers.rows
    prompts = [row.prompt for row in rows]
    files = [data.held_out[row.row].origin.file for row in rows]
    kinds: dict[str, Sequence[str]] = {
        "length of the prompt": length_bands(prompts),
        "topic": topics(prompts, seed=diagnosis.answers.config.seed),
    }
    if diagnosis.wrong == "accuracy":
        kinds["label"] = [row.reference.strip() for row in rows]
    if len(set(files)) > 1:
        kinds["file"] = files
    kinds |= {f"column {name}" if name in kinds else name: values for name, values in more.items()}
    return [dict(zip(kinds, values, strict=True)) for values in zip(*kinds.values(), strict=True)]


def write_found(diagnosis: Diagnosis, data: RunData, groups: Sequence[Mapping[str, str]]) -> None:
    """Keep what was found of each answer in the run."""
    old, new = diagnosis.bad("before"), diagnosis.bad("after")
    rows = []
    for i, row in enumerate(diagnosis.answers.rows):
        origin = data.held_out[row.row].origin
        found = RowErrors(
            tuple(diagnosis.before[i]), tuple(diagnosis.after[i]), bool(old[i]), bool(new[i]), diagnosis.bad_means, origin.file,
            origin.line, groups[i],
        )  # fmt: skip
        rows.append(replace(row, errors=found))
    write_errors(diagnosis.answers.folder, rows)


def _notes(answers: Answers, data: RunData, looked_at: int) -> list[str]:
    """What the reader should know of how far this can be trusted."""
    notes = []
    if not answers.complete:
        notes.append(
            "this run does not record how answers ended and how likely they were, so some errors are not found"
        )
    if looked_at < len(data.train):
        notes.append(
            f"defects of training rows: {looked_at:,} of {len(data.train):,} were looked at, drawn with the seed"
        )
    if data.is_partial:
        notes.append(f"the data is a stream: its first {data.total:,} rows were looked at")
    return notes
