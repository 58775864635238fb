"""Models and runs on the same items: held-out rows, a test suite, or the records of benchmarks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from luthier.comparison import benchmark_records, row_questions
from luthier.comparison.changes import Item, QuestionItems, changes
from luthier.comparison.contestants import label_contestants
from luthier.config.run import RunConfig
from luthier.core.errors import InputError
from luthier.core.stop import stopping
from luthier.core.storage.files import writing
from luthier.core.storage.opening import require_writable
from luthier.evals.benchmarks.tasks import SUITES
from luthier.evals.detectors.refusals import refusal
from luthier.evals.detectors.same_answer import NAME as SAME
from luthier.evals.detectors.same_answer import repeated_answer
from luthier.evals.judging.judges import JudgeSpec
from luthier.evals.stats.paired import Question, compare, false_alarms
from luthier.evals.suites.evaluation import PreparedSuite, SuiteResult
from luthier.runs.locate import base_for

SHOWN = 5  # items of each question that changed most


@dataclass(frozen=True)
class CompareOptions:
    """What the user wants compared: NAME or LABEL=NAME,NAME of models and runs, the first being compared with, and on
    what: rows (`config.data.path`), a suite (a file of tests, or the name of benchmarks), or tasks. `given` are the settings
    that the user gave."""

    sides: tuple[str, ...]
    config: RunConfig
    given: Mapping[str, Any] = field(default_factory=dict)
    suite: Path | None = None
    tasks: str = ""
    judge: JudgeSpec = field(default_factory=JudgeSpec)
    check: bool = False
    out: Path | None = None


def compare_all(options: CompareOptions) -> dict[str, Any]:
    """Compare: the keys of `luthier compare --json`."""
    began = time.monotonic()
    chosen = [bool(options.config.data.path), options.suite is not None, bool(options.tasks)]
    if sum(chosen) != 1:
        what = "nothing to compare on" if not any(chosen) else "more than one thing to compare on"
        raise InputError(what, fix="give one of --data FILE, --suite FILE and --tasks NAMES")
    _refuse_unread(options)
    if options.out:
        require_writable(options.out)
    sides = {
        label: _runs_of_side(label, name) for label, name in label_contestants(options.sides, "luthier compare").items()
    }
    with stopping() as stop:
        if str(options.suite) in SUITES:
            question_items = benchmark_records.questions(sides, [str(options.suite)])
        elif options.suite is not None:
            question_items = _suite(sides, options, options.suite, stop)
        elif options.tasks:
            question_items = benchmark_records.questions(sides, [name.strip() for name in options.tasks.split(",")])
        else:
            question_items = row_questions.questions(sides, options.config, options.given, stop)
    if not question_items:
        raise InputError("nothing was measured for all", fix="raise --eval.rows, or look at the notes above")
    rows = compare([item.question for item in question_items], options.config.seed)
    worse, better = changes(question_items, SHOWN)
    baselines = {item.question.name: {"baseline": item.baseline} for item in question_items if item.baseline}
    if options.out:
        _write(options.out, question_items)
    return {
        "models": {label: list(names) for label, names in sides.items()},
        "first": critical_findings(question_items) if options.config.data.path else [],
        "rows": [row.as_dict() | baselines.get(row.name, {}) for row in rows],
        "regressions": worse,
        "gains": better,
        "false_alarms": _false_alarms(question_items, options) if options.check else None,
        "out": str(options.out) if options.out else None,
        "seconds": round(time.monotonic() - began, 2),
    }


def critical_findings(question_items: Sequence[QuestionItems]) -> list[dict[str, Any]]:
    """What is told before the table, of each model against the first: prompts that the first declined and this one does not, and one
    answer for different prompts; `name`, `model`, `text`, `answers`. Of several runs of a model, the first."""
    items = next((one.items for one in question_items if one.items and one.items[0].texts), ())
    findings: list[dict[str, Any]] = []
    if not items:
        return findings
    first_model, *others = items[0].texts
    declined = {label: [refusal(item.texts[label]) is not None for item in items] for label in (first_model, *others)}
    for model in others:
        lost = sum(old and not new for old, new in zip(declined[first_model], declined[model], strict=True))
        if lost:
            text = f"{first_model} declined {lost} of {len(items)} prompts that {model} does not decline"
            findings.append({"name": "lost_refusal", "model": model, "text": text, "answers": lost})
        answers = [item.texts[model] for item in items]
        if found := repeated_answer([item.prompt for item in items], answers, [item.reference or "" for item in items]):
            findings.append(
                {"name": SAME, "model": model, "text": f"{model} gives {found.words}", "answers": found.count}
            )
    return findings


def _refuse_unread(options: CompareOptions) -> None:
    """Raise InputError for settings of rows where no rows are measured."""
    if options.config.data.path:
        return
    unread = [name for name in options.given if name.partition(".")[0] in ("data", "eval", "text")]
    if unread:
        raise InputError(
            "this is for the rows of --data", where=f"--{unread[0]}", fix="leave it out, or compare with --data FILE"
        )


def _runs_of_side(label: str, name: str) -> tuple[str, ...]:
    names = tuple(part for part in name.split(",") if part)
    if len(set(names)) < len(names):
        raise InputError("a run is given twice", where=label, fix="name each training run once")
    return names


def _open_settings(name: str, config: RunConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """How a model is opened: `open_model`'s arguments."""
    system = given.get("text.system")
    return {"device": config.device, "dtype": config.dtype, "base": base_for(name, config.base), "system": system}


def _suite(
    sides: Mapping[str, Sequence[str]], options: CompareOptions, path: Path, stop: Callable[[], bool]
) -> list[QuestionItems]:
    """The share of its answers that pass, of every case: for all cases, and for each group."""
    config = options.config
    with PreparedSuite(path, options.judge, config.reward) as suite:
        found = {
            label: [suite.run(name, stop, **_open_settings(name, config, options.given)) for name in names]
            for label, names in sides.items()
        }
    first_result = next(iter(found.values()))[0]
    groups = [group.name for group in first_result.groups]
    chosen = {"all cases": [o.case.number for o in first_result.outcomes]} | {
        name: [o.case.number for o in first_result.outcomes if o.case.group == name]
        for name in groups
        if len(groups) > 1
    }
    out = []
    for name, numbers in chosen.items():
        values = {
            label: np.array([[run.outcomes[i].rate for i in numbers] for run in runs]) for label, runs in found.items()
        }
        items = [_item(i, found) for i in numbers] if name == "all cases" else []
        out.append(QuestionItems(Question(name, values, title=name, unit="%", top=1.0), items))
    return out


def _item(number: int, found: Mapping[str, Sequence[SuiteResult]]) -> Item:
    """A case, with an answer of each side: one that fails, and why, where there is one."""
    texts = {}
    for label, runs in found.items():
        outcome = runs[0].outcomes[number]
        failures = outcome.failures
        texts[label] = f"{failures[0][0]}\n✗ {'; '.join(failures[0][1])}" if failures else outcome.answers[0]
    case = next(iter(found.values()))[0].outcomes[number].case
    return Item(case.where, case.prompt, case.reference, texts)


def _false_alarms(question_items: Sequence[QuestionItems], options: CompareOptions) -> dict[str, dict[str, Any]]:
    """How often equal models would be called different, for every question of single runs."""
    single = [
        one.question for one in question_items if all(len(values) == 1 for values in one.question.values.values())
    ]
    if not single:
        raise InputError("each model has several runs here", where="--false-alarms", fix="give it with single runs")
    return {question.name: asdict(false_alarms(question, options.config.seed)) for question in single}


def _write(path: Path, question_items: Sequence[QuestionItems]) -> None:
    """Every item of every question, a line each."""
    with writing(path) as handle:
        for one in question_items:
            for i, item in enumerate(one.items):
                record = {
                    "question": one.question.name, "place": item.place,
                    "values": {label: [float(v) for v in values[:, i]] for label, values in one.question.values.items()},
                    "weight": None if one.question.weights is None else float(one.question.weights[i]),
                    "prompt": item.prompt, "reference": item.reference, "texts": dict(item.texts),
                }  # fmt: skip
                handle.write(json.dumps(record, ensure_ascii=False) + "\n")
