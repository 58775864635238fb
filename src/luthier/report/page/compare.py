"""Runs side by side on one page: what differs in their settings, their curves, what came out, what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from luthier.report.page import summary
from luthier.report.page.charts import Chart, Line, chart
from luthier.report.page.page import render
from luthier.report.page.parts import MOST, OPEN, cells
from luthier.report.page.view import View
from luthier.report.page.words import block, marked
from luthier.report.tables import Row, called, figures, title

COLOURS = 6  # as many runs as page.css can tell apart
SECTIONS = {
    "runs": "Runs", "settings": "Settings that differ", "results": "Before and after", "paired": "On the same prompts",
    "training": "Training", "cost": "Cost", "samples": "Samples",
}  # fmt: skip


@dataclass(frozen=True)
class Paired:
    """Run `name` against the first one on the prompts that both answered, as metric rows (`evals.score.table`)."""

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


def compare_page(views: Sequence[View], paired: Sequence[Paired]) -> str:
    """The page of two to six runs; names are told apart by the caller."""
    shared = _asked(views)
    return render(
        "compare.html", title=" and ".join(view.name for view in views) + ", compared", views=views, sections=SECTIONS,
        openings=[summary.opening(view) for view in views], settings=differing(views), metrics=outcomes(views),
        paired=[(one.name, _n(one.rows), [cells(row) for row in one.rows], called(one.rows)) for one in paired],
        curves=curves(views), cost=costs(views), samples=shared[:MOST], open=OPEN,
        lost=[summary.lost(view)[0] for view in views],
    )  # fmt: skip


def differing(views: Sequence[View]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs: name and each run's value."""
    each = [{name: value for name, value, _, _ in summary.settings(view.config)} for view in views]
    names = [name for name, _, _, _ in summary.settings(views[0].config) if name != "out"]
    return [(name, values) for name in names if len(set(values := [one[name] for one in each])) > 1]


def outcomes(views: Sequence[View]) -> list[tuple[str, list[Outcome]]]:
    """Every metric that any run has: its title and each run's outcome."""
    titles = {row["name"]: title(row) for view in views for row in view.rows}
    return [(words, [_outcome(view, name) for view in views]) for name, words in titles.items()]


def curves(views: Sequence[View]) -> list[Chart]:
    """The curves of all runs in one figure each."""

    def lines(name: str, along: str = "step", noisy: bool = True) -> list[Line]:
        return [
            Line(view.name, view.series(name, along), place, noisy=noisy, dotted=name.startswith("eval"))
            for place, view in enumerate(views, 1)
        ]

    found = [
        chart("loss", "Training loss by step", "", lines("loss")),
        chart("loss-token", "Training loss by token", "", lines("loss", "tokens"), "tokens"),
        chart("held", "Held-out loss", "", lines("eval_loss", noisy=False)),
        chart("reward", "Reward", "", lines("reward")),
        chart("held-reward", "Held-out reward", "", lines("eval_reward", noisy=False)),
        chart("kl", "Distance from the start", "KL, nats per answer", lines("kl_per_answer", noisy=False)),
        chart("throughput", "Throughput", "tokens a second", lines("tokens_per_second")),
    ]
    return [one for one in found if one]


def costs(views: Sequence[View]) -> list[tuple[str, list[str]]]:
    """Time, memory and tokens of each run, a row for each figure."""
    each = [dict(summary.cost(view)) for view in views]
    names = dict.fromkeys(name for one in each for name in one)
    return [(name, [one.get(name, "") for one in each]) for name in names]


def _outcome(view: View, name: str) -> Outcome:
    row = next((row for row in view.rows if row["name"] == name), None)
    if row is None:
        return Outcome()
    old, new, change, low, high = figures(row, ("before", "after", "difference", "low", "high"))
    return Outcome(old, new, change, f"{low} … {high}" if row["low"] is not None else "", row["verdict"])


def _asked(views: Sequence[View]) -> list[PromptAnswers]:
    """The prompts that all runs answered, in the order of the first."""
    each = [{(s.prompt, s.reference): s for s in view.samples} for view in views]
    shared = [key for key in each[0] if all(key in one for one in each[1:])]
    return [
        PromptAnswers(
            number, block(prompt), block(reference),
            [(view.name, marked(one[prompt, reference].after, reference, "not in the reference"))
             for view, one in zip(views, each, strict=True)],
        )
        for number, (prompt, reference) in enumerate(shared[:MOST], 1)
    ]  # fmt: skip


def _n(rows: Sequence[Row]) -> int:
    return max((int(row["n"]) for row in rows), default=0)
