"""A file to test by, on the screen: what is wrong with it, and which differences it can show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from luthier.core.screen import clean
from luthier.report.tables import CAREFUL, FAINT, GOOD, grid_of

DOUBTS, LABELS = 10, 8  # shown; --json has all


def test_file_screen(result: Mapping[str, Any]) -> Group:
    """What `luthier data --role test` prints, from the keys of its `--json`."""
    told = len(result["warnings"])
    doubt = Text("see the warning below" if told == 1 else f"see the {told} warnings below", style=CAREFUL)
    verdict = Text("good to test by", style=GOOD) if result["good"] else doubt
    warnings = Table.grid(padding=(0, 0, 0, 2), pad_edge=True)
    for warning in result["warnings"]:
        warnings.add_row(Text("!", style=CAREFUL), Text(clean(warning)))
    doubts = grid_of((clean(doubt["where"]), doubt["why"]) for doubt in result["doubts"][:DOUBTS])
    return Group(grid_of([*_lines(result), ("verdict", verdict)]), Text(), warnings, doubts, _sizes(result))


def _lines(result: Mapping[str, Any]) -> Iterator[tuple[str, str | Text]]:
    yield "layout", str(result["layout"])
    yield "rows", f"{result['rows']:,}"
    yield "duplicates", _counts(result["duplicates"])
    yield (
        "in training",
        Text("not looked for: --training FILE", style=FAINT) if result["seen"] is None else _counts(result["seen"]),
    )
    yield "empty", _counts(result["empty"])
    yield "in doubt", f"{len(result['doubts']):,}"
    if labels := result["labels"]:
        shown = list(labels.items())[:LABELS]
        more = f", {len(labels) - LABELS} more" if len(labels) > LABELS else ""
        yield "labels", ", ".join(f"{label} {rows:,}" for label, rows in shown) + more


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _sizes(result: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, caption_justify="left", caption_style="",
                  caption="  for a chance of 80 % to show it, at the 5 % level, both models asked every row")  # fmt: skip
    table.add_column("rows that one gets right and the other does not", justify="right")
    table.add_column("this file shows", justify="right")
    for hoped in result["needed"]:
        table.add_column(f"{hoped} points need", justify="right")
    for changed, least in result["shown"].items():
        shown = "nothing" if least is None else f"{100 * least:.1f} points"
        table.add_row(
            f"{float(changed):.0%}", shown, *(f"{needed[changed]:,} rows" for needed in result["needed"].values())
        )
    return table
