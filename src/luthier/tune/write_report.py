"""A run directory -> pages to read in a browser. Reads files only: no model is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from luthier.config.run import RunConfig
from luthier.core.errors import InputError
from luthier.core.storage.files import writing
from luthier.core.types.run_result import RunResult, require_page
from luthier.core.verdicts import verdict
from luthier.diagnose import errors
from luthier.evals.benchmarks import results
from luthier.evals.consistency import TITLES
from luthier.evals.detectors.table import CATEGORIES
from luthier.evals.forgetting import GENERAL_PROMPTS
from luthier.evals.metrics import measure_answers
from luthier.evals.metrics.answer_metrics import METRICS, USER_METRIC
from luthier.report.page.coding_page import CodingRecord, render_coding_page
from luthier.report.page.compare_page import COLOURS, PairedMetrics, render_compare_page
from luthier.report.page.run_page import render_run_page
from luthier.report.page.run_report import (
    Category,
    ErrorCounts,
    ForgottenAnswer,
    RewardedAnswer,
    Rollout,
    RunReport,
    Sample,
)
from luthier.runs import held_out_rows
from luthier.runs.folder import RunFolder, read_run, understood
from luthier.runs.held_out_rows import STAGES, HeldOutRow, stage_file
from luthier.runs.records import MEND
from luthier.training.method_table import method
from luthier.tune import forgetting, repeated_prompts
from luthier.tune.held_out import Measured, from_records
from luthier.tune.retention import MeasuredRetention

PAGE, CODING, DATA = "report.html", "errors/coding.html", "data.json"
CODES = "errors/codes.jsonl"


def write_run_page(folder: RunFolder, config: RunConfig, result: RunResult, out: Path | None = None) -> Path:
    """Write the page of a finished run into its folder, or to `out`."""
    return _write_page(out or folder.path / PAGE, render_run_page(read_run_report(folder, config, result)))


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of one run into its folder, or of several side by side as report-compare.html here, or to `out`.

    Raises InputError for a folder that is no run or not finished, and for more runs than a page tells apart.
    """
    found = [_finished(path) for path in runs]
    if len(found) == 1:
        return write_run_page(*found[0], out)
    if len(found) > COLOURS:
        raise InputError(f"{len(found)} runs", where="luthier report", fix=f"give at most {COLOURS}")
    views = _with_unique_names([read_run_report(*one) for one in found])
    return _write_page(
        out or Path("report-compare.html"), render_compare_page(views, [_paired(views[0], v) for v in views[1:]])
    )


def rewrite_run_page(run: Path) -> Path | None:
    """Write the page of a run again, where it has one."""
    return write_report([run]) if (run / PAGE).is_file() else None


def write_coding_page(run: Path, out: Path | None = None) -> Path:
    """Write the page on which the answers of a run are coded by hand.

    Raises InputError for a run that is not finished or generated no answers.
    """
    folder, config, _ = _finished(run)
    with understood(folder):
        rows = held_out_rows.read(folder)
    if not rows:
        raise InputError(
            "this run generated no answers to read", where=run, fix="train with --eval.samples above 0 on rows with answers"
        )  # fmt: skip
    records = [
        CodingRecord(
            row.row, row.prompt, row.reference, *row.answers(),
            findings=[(_category(one.category), one.why) for one in (row.errors.after if row.errors else ())],
        )
        for row in rows
    ]  # fmt: skip
    page = render_coding_page(run.resolve().name, config.fingerprint(), records, _codes(folder))
    return _write_page(out or folder.path / CODING, page)


def read_run_report(folder: RunFolder, config: RunConfig, result: RunResult) -> RunReport:
    """What the run directory holds, as pages want it. Raises InputError for files that were damaged."""
    with understood(folder):
        return _read_run_report(folder, config, result)


def _read_run_report(folder: RunFolder, config: RunConfig, result: RunResult) -> RunReport:
    before, after = (from_records(folder.records(stage_file(stage)) or []) for stage in STAGES)
    answered = held_out_rows.read(folder)
    return RunReport(
        name=folder.path.resolve().name, path=str(folder.path), config=config,
        method=f"{config.method}, {method(config.method).summary}", result=result,
        rows=_rows(result, after), retention=_retention_rows(before.retention, after.retention, result, config.seed),
        steps=folder.records("metrics.jsonl") or (), samples=_samples(answered), rollouts=rollouts_of(folder),
        forgotten=_forgotten_answers(before.retention, after.retention), errors=errors_section(answered, config), codes=_codes(folder),
        lineage=folder.lineage, data_description=folder.read_json(DATA) or {},
    )  # fmt: skip


def _finished(path: Path) -> tuple[RunFolder, RunConfig, RunResult]:
    folder, config = read_run(path)
    if (result := folder.result) is None:
        raise InputError("this run is not finished", where=path, fix="run its command again to continue it")
    require_page(result, path / "result.json", MEND)
    return folder, config, result


def _write_page(path: Path, page: str) -> Path:
    with writing(path) as handle:
        handle.write(page)
    return path


def _rows(result: RunResult, after: Measured) -> list[dict[str, Any]]:
    """The metrics of a result with what people call them. A name that a method reports of its rows and that is also a
    metric of answers, `accuracy`, means what this run has."""
    of_method = {name for item in after.items for name in item}
    rows = []
    for name, values in result["metrics"].items():
        if name == "loss":
            about = measure_answers.about_loss([units for _, _, units in after.losses])
        elif name in TITLES:
            about = repeated_prompts.about(name)
        elif (name in METRICS or name.startswith(USER_METRIC)) and name not in of_method:
            about = measure_answers.about_metric(name)
        else:
            about = measure_answers.about_item(name)
        rows.append(_with_verdict({"name": name, **about, **values}))
    return rows


def _with_verdict(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its verdict: runs of earlier versions kept none, and theirs is not corrected for being one of many."""
    if "verdict" in row:
        return row
    return row | {"verdict": verdict(row["difference"], row["low"], row["high"], row["higher_is_better"])}


def _samples(rows: Sequence[HeldOutRow]) -> list[Sample]:
    """The answers that were generated before and after, as pages show them."""
    return [
        Sample(
            row.row, row.prompt, row.reference, *row.answers(),
            (row.before.rewards["reward"], row.after.rewards["reward"]) if row.before.rewards and row.after.rewards else None,
            row.after.ended or "",
        )
        for row in rows
    ]  # fmt: skip


def rollouts_of(folder: RunFolder) -> list[Rollout]:
    """The best and the worst answers of the first rollout, of that half way, and of the last; older versions kept the best
    of one prompt."""
    lines: dict[int, list[dict[str, Any]]] = {}
    for line in folder.records("samples.jsonl") or ():
        if "rollout" in line and "reward" in line:
            lines.setdefault(line["rollout"], []).append(line)
    numbers = sorted(lines)
    found = []
    for number in sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]} if numbers else ()):
        best, worst = (
            [
                RewardedAnswer(
                    line.get("prompt", ""), line["answer"], line["reward"], line.get("ended", ""), line.get("length")
                )
                for line in lines[number]
                if line.get("among", "best") == among
            ]
            for among in ("best", "worst")
        )
        found.append(Rollout(number, best, worst))
    return found


def _forgotten_answers(before: MeasuredRetention, after: MeasuredRetention) -> list[ForgottenAnswer]:
    """What the model answered to general questions before and after, with what each earlier answer lost."""
    if len(before.own) != len(GENERAL_PROMPTS) or len(after.own) != len(before.own):
        return []
    answers = zip(GENERAL_PROMPTS, before.own, after.own, before.logps, after.logps, strict=True)
    return [
        ForgottenAnswer(prompt, old.text, new.text, (a - b) / n) for prompt, old, new, (a, n), (b, _) in answers if n
    ]


def _retention_rows(
    before: MeasuredRetention, after: MeasuredRetention, result: RunResult, seed: int
) -> list[dict[str, Any]]:
    """The rows of what was not to change: general texts and answers, and the benchmarks of the result."""
    tasks = [
        {"name": name, "title": f"{name}, {(metric := results.METRICS[found['metric']]).title}", "unit": metric.unit,
         "top": None, "higher_is_better": metric.higher_is_better, **found}
        for name, found in ((result["forgetting"] or {}).get("benchmarks") or {}).items()
    ]  # fmt: skip
    forgetting_result = result["forgetting"] or {}
    figures: dict[str, Any] = {
        **(forgetting_result.get("answers") or {}),
        "general": forgetting_result.get("general") or {},
    }
    others = forgetting.retention_rows(before, after, forgetting.Probes(), ({}, {}), seed)
    return [_with_verdict(row) for row in (*(row | figures.get(row["name"], {}) for row in others), *tasks)]


def errors_section(rows: Sequence[HeldOutRow], config: RunConfig) -> ErrorCounts | None:
    """What was found at the end of the run, or by `luthier errors`, as that counts and tests it; None when nobody looked."""
    found = [row.errors for row in rows if row.errors]
    if not found:
        return None
    known = (errors.SAME, *CATEGORIES)
    sides = ([one.before for one in found], [one.after for one in found])
    before, after = (
        {errors.SOUND: [float(not findings) for findings in side]}
        | {name: errors.category_indicator(side, name) for name in known}
        for side in sides
    )
    if all(one.bad_means == errors.title(errors.WRONG) for one in found):
        for shares, bad in ((before, [one.before_bad for one in found]), (after, [one.bad for one in found])):
            shares[errors.WRONG] = [float(one) for one in bad]
            shares[errors.SOUND] = [float(ok and not one) for ok, one in zip(shares[errors.SOUND], bad, strict=True)]
    table = errors.table(before, after, config.seed)
    (sound,) = (row for row in table if row["name"] == errors.SOUND)
    correctness_known = errors.WRONG in after
    return ErrorCounts(
        len(found), Category(sound["title"], _SOUND[correctness_known], sound),
        [Category(row["title"], errors.about(row["name"])["meaning"], row) for row in table if row is not sound], correctness_known,
    )  # fmt: skip


_SOUND = {
    True: "The answer is right, and no rule found anything.",
    False: "No rule found anything; whether an answer is right, nothing tells here.",
}


def _codes(folder: RunFolder) -> list[dict[str, Any]]:
    """The lines of an export of the coding page. Raises InputError with the line for what is no such line."""
    path = folder.path / CODES
    if not path.is_file():
        return []
    found = []
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                code = json.loads(line)
            except (ValueError, RecursionError):
                code = None
            good = (
                isinstance(code, dict)
                and isinstance(code.get("tags"), list)
                and isinstance(code.get("headings", {}), dict)
            )
            if not good:
                raise InputError(
                    "not a line of codes: a JSON object with a list 'tags' and a mapping 'headings'", where=f"{path}:{number}",
                    fix="export the codes again, or move the file away",
                )  # fmt: skip
            found.append(code)
    return found


def _category(name: str) -> str:
    """What people call a category; its own name when a later version knows it no more."""
    return errors.title(name) if name in (errors.SAME, *CATEGORIES) else name


def _with_unique_names(views: Sequence[RunReport]) -> list[RunReport]:
    """The views with names that differ: paths where the folders have the same name."""
    names = [one.name for one in views]
    return [replace(one, name=one.path) if names.count(one.name) > 1 else one for one in views]


def _paired(first: RunReport, other: RunReport) -> PairedMetrics:
    """The metrics of the answers of two runs on the prompts that both answered, with paired intervals."""
    first_samples, other_samples = ({(s.prompt, s.reference): s for s in one.samples} for one in (first, other))
    shared = [key for key in first_samples if key in other_samples]
    names = [name for name in first.result["metrics"] if name in METRICS and name in other.result["metrics"]]
    if not shared or not names:
        return PairedMetrics(other.name, ())
    prompts, references = zip(*shared, strict=True)
    old, new = (
        measure_answers.score([s.after for s in side], references, prompts, names, [s.ended for s in side])
        for side in ([one[key] for key in shared] for one in (first_samples, other_samples))
    )
    return PairedMetrics(other.name, measure_answers.table(old, new, seed=first.config.seed))
