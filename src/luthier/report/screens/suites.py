"""Test suites on the screen: what failed first, then how each group fares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from luthier.core.screen import clean
from luthier.report.screens.stages import heading
from luthier.report.tables import BAD, FAINT, GOOD, STRONG, grid_of, shortened

FAILURES = 20  # shown in full; --json has all


def suite_screen(result: Mapping[str, Any]) -> list[RenderableType]:
    """What `luthier test` prints, from the keys of its `--json`."""
    failed = [case for case in result["cases"] if not case["passed"]]
    parts: list[RenderableType] = []
    if failed:
        parts.append(heading(f"failed: {len(failed)} of {len(result['cases'])}"))
        for case in failed[:FAILURES]:
            parts += _failure(case)
        if len(failed) > FAILURES:
            parts.append(Text(f"  … and {len(failed) - FAILURES:,} more; --json has them all\n", style=FAINT))
    parts += [heading(clean(result["suite"])), _groups(result)]
    verdict = Text("every threshold is met", style=GOOD) if result["met"] else Text("a threshold is missed", style=BAD)
    return [*parts, Text.assemble(f"  {clean(result['model'])}: ", verdict)]


def _failure(case: Mapping[str, Any]) -> list[RenderableType]:
    rate = f"  {case['rate']:.0%} of {len(case['answers'])} answers pass" if len(case["answers"]) > 1 else ""
    title = Text.assemble(("✗ ", BAD), (f"{clean(case['group'])} › {clean(case['name'])}", STRONG), (rate, FAINT))
    lines: list[tuple[str, str | Text]] = [("prompt", shortened(case["prompt"]))]
    lines += [
        ("answer" if i == 0 else "", shortened(answer)) for i, answer in enumerate(dict.fromkeys(case["answers"][:3]))
    ]
    lines += [("why", Text(clean(check["why"]), style=BAD)) for check in case["checks"] if check["why"]]
    lines.append(("at", Text(clean(case["where"]), style=FAINT)))
    return [title, Padding(grid_of(lines), (0, 0, 1, 2))]


def _groups(result: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column("group", overflow="fold")
    for title in ("cases", "pass", "rate, %", "95 % interval", "threshold, %"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    scores: Sequence[Mapping[str, Any]] = result["groups"]
    for score in [*scores, result["all"]] if len(scores) > 1 or result["all"]["threshold"] is not None else scores:
        span = "" if score["low"] is None else f"{100 * score['low']:.0f} … {100 * score['high']:.0f}"
        bar = "" if score["threshold"] is None else f"{100 * score['threshold']:g}"
        verdict = Text("") if not bar else Text("met", style=GOOD) if score["met"] else Text("missed", style=BAD)
        name = Text(clean(score["name"]), style=STRONG if score is result["all"] else "")
        table.add_row(
            name, f"{score['cases']:,}", f"{score['passed']:,}", f"{100 * score['rate']:.0f}", span, bar, verdict
        )
    return table
