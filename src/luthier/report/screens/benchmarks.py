"""Scores on benchmarks as tables: what was measured, how sure it is, on how many documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from luthier.core.log import clock, size
from luthier.core.screen import clean
from luthier.report.screens.stages import heading
from luthier.report.tables import CAREFUL, FAINT, STRONG, grid_of

Values = Mapping[str, Any]


class Metric(Protocol):
    """What a table needs to know of a metric."""

    @property
    def title(self) -> str: ...
    @property
    def unit(self) -> str: ...


def tables(result: Values, metrics: Mapping[str, Metric]) -> Iterator[RenderableType]:
    """The result of `luthier eval`, part by part: the suite, every task, its subjects, what was measured how."""
    if suite := result.get("suite"):
        yield heading(suite["name"])
        yield suite_table(str(result["model"]), suite)
    yield heading("tasks")
    yield task_table(result, metrics)
    for name, subjects in result["subjects"].items():
        yield heading(f"{name}: the lowest and the highest")
        yield subject_table(subjects)
    yield heading("how")
    yield grid_of(_lines(result))
    for name, note in result["notes"].items():
        yield Text(f"  ! {name}: {note}", style=CAREFUL)


def suite_table(model: str, suite: Values) -> Table:
    """Model | Average | its columns, each in percent with its interval below."""
    table = Table(box=box.SIMPLE_HEAD)
    cells = [("Average", suite["average"])] + [(title, column) for title, column in suite["columns"].items()]
    table.add_column("Model", overflow="fold")
    for title, _ in cells:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_row(Text(clean(model)), *(Text(figure(cell["value"], "%"), style=STRONG) for _, cell in cells))
    table.add_row("", *(Text(_span(cell, "%"), style=FAINT) for _, cell in cells))
    shots = [
        Text("95 % intervals", style=FAINT),
        *(Text(f"{cell['shots']} shots", style=FAINT) for _, cell in cells[1:]),
    ]
    table.add_row("", *shots)
    return table


def task_table(result: Values, metrics: Mapping[str, Metric]) -> Table:
    """One line for each metric of each task."""
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("task", "shots", "metric", "value", "95 % interval", "documents"):
        table.add_column(title, justify="left" if title in ("task", "metric") else "right", no_wrap=True)
    for task, found in result["tasks"].items():
        for row, (name, estimate) in enumerate(found.items()):
            metric = metrics[name]
            first = (task, str(result["shots"][task])) if not row else ("", "")
            table.add_row(
                *first, metric.title + (", %" if metric.unit else ""),
                Text(figure(estimate["value"], metric.unit), style=STRONG),
                Text(_span(estimate, metric.unit), style=FAINT), f"{estimate['n']:,}",
            )  # fmt: skip
    return table


def subject_table(subjects: Mapping[str, Values], most: int = 4) -> Table:
    """The parts of a benchmark with the lowest and the highest accuracy."""
    order = sorted(subjects, key=lambda name: (subjects[name]["acc"]["value"], name))
    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    shown: Sequence[str] = order if len(order) <= 2 * most else [*order[:most], "", *order[-most:]]
    for name in shown:
        if not name:
            table.add_row("…", "", "")
            continue
        estimate = subjects[name]["acc"]
        table.add_row(
            Text(clean(name.replace("_", " "))),
            figure(estimate["value"], "%"),
            Text(_span(estimate, "%"), style=FAINT),
        )
    return table


def _lines(result: Values) -> Iterator[tuple[str, str]]:
    yield "chat template", f"on ({result['template']})" if result["chat_template"] else "off"
    yield "computed in", result["dtype"]
    speed = result["documents_per_second"]
    done = f"{result['documents']:,} documents in {clock(result['seconds'])}, {speed:,.2f} a second" if speed else ""
    yield "time", done or "nothing was left to do"
    yield "peak memory", size(result["peak_memory_bytes"])
    if cut := {name: count for name, count in result["truncated"].items() if count}:
        listed = ", ".join(f"{count:,} of {name}" for name, count in cut.items())
        yield "too long", f"{listed}: the beginning was left out to fit the model's context"
    for name, files in result["files"].items():
        listed = ", ".join(f"{file} ({digest[:8]})" for file, digest in list(files.items())[:2])
        more = f" and {len(files) - 2} more" if len(files) > 2 else ""
        yield name, f"{listed}{more}"
    for name, path in result["records"].items():
        yield f"{name} records", path


def figure(value: float | None, unit: str) -> str:
    if value is None:
        return "too large"
    if unit == "%":
        return f"{100 * value:.1f}"
    return f"{value:z.3f}" if value < 100 else f"{value:,.1f}" if value < 1e9 else f"{value:.1e}"


def _span(estimate: Values, unit: str) -> str:
    if estimate["low"] is None:
        return ""
    return f"{figure(estimate['low'], unit)} … {figure(estimate['high'], unit)}"
