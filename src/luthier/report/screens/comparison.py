"""Comparisons on the screen: what got worse first, then what got better, then what shows no difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from luthier.core.screen import clean
from luthier.core.verdicts import NONE_SHOWN, verdict_kind
from luthier.report.screens.stages import heading
from luthier.report.tables import BAD, FAINT, GOOD, STRONG, STYLES, figures, grid_of, shortened, title

CHANGED_ITEMS = 3  # changed items on the screen, of each kind


def compare_screen(result: Mapping[str, Any]) -> list[RenderableType]:
    """What `luthier compare` prints, from the keys of its `--json`."""
    parts: list[RenderableType] = [Text(f"  ! {clean(item['text'])}", style=BAD) for item in result["first"]]
    for kind, sign, style in (("regressions", "items that got worse", BAD), ("gains", "items that got better", GOOD)):
        if found := _readable_changes(result["rows"], result[kind]):
            parts.append(heading(sign))
            parts += [part for change in found for part in _change(change, style)]
    against = next(iter(result["models"]))
    parts.append(heading(f"against {clean(against)}"))
    parts += [_table(result["rows"]), *_notes(result)]
    return parts


def _readable_changes(
    rows: Sequence[Mapping[str, Any]], changes: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Items with something to read, of the first row of the table that has any."""
    for row in rows:
        key = (row["name"], row["model"])
        if found := [one for one in changes if one["texts"] and (one["question"], one["model"]) == key]:
            return found[:CHANGED_ITEMS]
    return []


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    several = len({row["model"] for row in rows}) > 1
    table.add_column("", overflow="fold", min_width=15)
    if several:
        table.add_column("model", overflow="fold", min_width=8)
    table.add_column(clean(rows[0]["against"]), justify="right", style=FAINT, overflow="fold")
    table.add_column("it" if several else clean(rows[0]["model"]), justify="right", style=STRONG, overflow="fold")
    for name in ("change", "95 % interval", "p"):
        table.add_column(name, justify="right", no_wrap=True, style=FAINT if name != "change" else "")
    takes = any(row["verdict"] == NONE_SHOWN for row in rows)
    if takes:
        table.add_column("needs", justify="right", no_wrap=True, style=FAINT)
    table.add_column("", min_width=13)
    for row in rows:
        old, new, change, low, high = figures(row, ("before", "after", "difference", "low", "high"))
        style = STYLES.get(verdict_kind(row["verdict"]), "")
        span = f"{low} … {high}" if row["low"] is not None else ""
        model = [Text(clean(row["model"]))] if several else []
        table.add_row(
            Text(clean(title(row))), *model, old, new, Text(change, style=style), span, _p(row["corrected"]),
            *([_needed(row)] if takes else []), Text(row["verdict"], style=style),
        )  # fmt: skip
    return table


def _needed(row: Mapping[str, Any]) -> str:
    """How many items would show a difference of this size, in two figures: the estimate is no better."""
    if row["verdict"] != NONE_SHOWN or row["difference"] == 0:
        return ""
    if row["needed"] is None:
        return "more runs"
    count = row["needed"]
    return f"~{round(count, min(0, 2 - len(str(count)))):,}"


def _p(value: float | None) -> str:
    return "" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _notes(result: Mapping[str, Any]) -> list[Text]:
    sizes: dict[int, list[str]] = {}
    for row in result["rows"]:
        sizes.setdefault(row["n"], []).append(clean(row["title"]))
    tests = dict.fromkeys(row["test"] for row in result["rows"])
    counted = (
        f"{n:,} items" + (f" ({', '.join(dict.fromkeys(of))})" if len(sizes) > 1 else "") for n, of in sizes.items()
    )
    lines = ["; ".join(counted), f"p by {', '.join(tests)}; corrected for all rows (Holm)"]
    if any(row["verdict"] == NONE_SHOWN for row in result["rows"]):
        lines.append("needs: the items that would show a true difference of this size with 80 % chance")
    pooled = {label: len(names) for label, names in result["models"].items() if len(names) > 1}
    if pooled:
        lines.append("pooled over " + ", ".join(f"{count} runs of {clean(label)}" for label, count in pooled.items()))
    if len(pooled) < len(result["models"]):
        lines.append("each is a single run: another seed of the same training may differ")
    if alarms := result["false_alarms"]:
        worst = max(alarms, key=lambda name: alarms[name]["value"])
        share, low, high = (f"{alarms[worst][key]:.1%}" for key in ("value", "low", "high"))
        times = alarms[worst]["n"]
        lines += [
            f"check: equal models were called different in {share} of {times} resamplings at most ({clean(worst)});",
            f"{times} draws leave room for {low} to {high}, and of all resamplings there are it is 5% or less",
        ]
    if result["out"]:
        lines.append(f"every item is in {clean(result['out'])}")
    return [Text(f"  {line}", style=FAINT) for line in lines]


def _change(change: Mapping[str, Any], style: str) -> list[RenderableType]:
    head = Text.assemble(
        (clean(change["question"]), STRONG), f"  {change['before']:z.3g} → ", (f"{change['after']:z.3g}", style),
        (f"  {clean(change['place'])}", FAINT),
    )  # fmt: skip
    lines: list[tuple[str, str | Text]] = [("prompt", shortened(change["prompt"]))] if change["prompt"] else []
    if change["reference"] is not None:
        lines.append(("reference", shortened(change["reference"])))
    lines += [(clean(name), shortened(text)) for name, text in change["texts"].items()]
    return [head, Padding(grid_of(lines), (0, 0, 1, 2))]
