"""Runs side by side on one page: what differs in their settings, their curves, what came out, what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from luthier.report.page import summary
from luthier.report.page.charts import Chart, Line, chart
from luthier.report.page.render import render
from luthier.report.page.run_page import SAMPLES_OPEN, SAMPLES_SHOWN, metric_cells
from luthier.report.page.run_report import RunReport
from luthier.report.page.word_diff import marked, plain_html
from luthier.report.tables import Row, figures, how_tested, title

COLOURS = 6  # as many runs as page.css can tell apart
SECTIONS = {
    "runs": "Runs", "settings": "Settings that differ", "results": "Before and after", "paired": "On the same prompts",
    "training": "Training", "cost": "Cost", "samples": "Samples",
}  # fmt: skip


@dataclass(frozen=True)
class PairedMetrics:
    """Run `name` against the first one on the prompts that both answered, as metric rows (`measure_answers.table`)."""

    name: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Outcome:
    """A metric of one run: before and after, the change with its interval, the verdict; all empty where it has none."""

    before: str = ""
    after: str = ""
    change: str = ""
    interval: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class PromptAnswers:
    """A prompt that every run answered: the reference and each run's answer, as HTML."""

    number: int
    prompt: Markup
    reference: Markup
    answers: list[tuple[str, Markup]]


def render_compare_page(reports: Sequence[RunReport], paired: Sequence[PairedMetrics]) -> str:
    """The page of two to six runs; names are told apart by the caller."""
    shared = _prompts_in_common(reports)
    return render(
        "compare.html", title=" and ".join(report.name for report in reports) + ", compared", reports=reports, sections=SECTIONS,
        openings=[summary.opening(report) for report in reports], settings=differing(reports), metrics=outcomes(reports),
        paired=[
            (pair.name, _item_count(pair.rows), [metric_cells(row) for row in pair.rows], how_tested(pair.rows))
            for pair in paired
        ],
        charts=curves(reports), costs=costs(reports), samples=shared[:SAMPLES_SHOWN], open=SAMPLES_OPEN,
        forgetting_sentences=[summary.forgetting_sentences(report)[0] for report in reports],
    )  # fmt: skip


def differing(reports: Sequence[RunReport]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs: name and each run's value."""
    each = [{name: value for name, value, _, _ in summary.settings(report.config)} for report in reports]
    names = [name for name, _, _, _ in summary.settings(reports[0].config) if name != "out"]
    return [(name, values) for name in names if len(set(values := [one[name] for one in each])) > 1]


def outcomes(reports: Sequence[RunReport]) -> list[tuple[str, list[Outcome]]]:
    """Every metric that any run has: its title and each run's outcome."""
    titles = {row["name"]: title(row) for report in reports for row in report.rows}
    return [(words, [_outcome(report, name) for report in reports]) for name, words in titles.items()]


def curves(reports: Sequence[RunReport]) -> list[Chart]:
    """The curves of all runs in one figure each."""

    def lines(name: str, along: str = "step", noisy: bool = True) -> list[Line]:
        return [
            Line(report.name, report.series(name, along), place, noisy=noisy, dotted=name.startswith("eval"))
            for place, report in enumerate(reports, 1)
        ]

    charts = [
        chart("loss", "Training loss by step", "", lines("loss")),
        chart("loss-token", "Training loss by token", "", lines("loss", "tokens"), "tokens"),
        chart("held", "Held-out loss", "", lines("eval_loss", noisy=False)),
        chart("reward", "Reward", "", lines("reward")),
        chart("held-reward", "Held-out reward", "", lines("eval_reward", noisy=False)),
        chart("kl", "Divergence from the starting model", "KL, nats per answer", lines("kl_per_answer", noisy=False)),
        chart("throughput", "Throughput", "tokens a second", lines("tokens_per_second")),
    ]
    return [drawn for drawn in charts if drawn]


def costs(reports: Sequence[RunReport]) -> list[tuple[str, list[str]]]:
    """Time, memory and tokens of each run, a row for each figure."""
    each = [dict(summary.costs(report)) for report in reports]
    names = dict.fromkeys(name for one in each for name in one)
    return [(name, [one.get(name, "") for one in each]) for name in names]


def _outcome(report: RunReport, name: str) -> Outcome:
    row = next((row for row in report.rows if row["name"] == name), None)
    if row is None:
        return Outcome()
    old, new, change, low, high = figures(row, ("before", "after", "difference", "low", "high"))
    return Outcome(old, new, change, f"{low} … {high}" if row["low"] is not None else "", row["verdict"])


def _prompts_in_common(reports: Sequence[RunReport]) -> list[PromptAnswers]:
    """The prompts that all runs answered, in the order of the first."""
    each = [{(s.prompt, s.reference): s for s in report.samples} for report in reports]
    shared = [key for key in each[0] if all(key in one for one in each[1:])]
    return [
        PromptAnswers(
            number, plain_html(prompt), plain_html(reference),
            [(report.name, marked(one[prompt, reference].after, reference, "not in the reference"))
             for report, one in zip(reports, each, strict=True)],
        )
        for number, (prompt, reference) in enumerate(shared[:SAMPLES_SHOWN], 1)
    ]  # fmt: skip


def _item_count(rows: Sequence[Row]) -> int:
    return max((int(row["n"]) for row in rows), default=0)
