"""What of a model fits into memory, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from luthier.core.screen import clean
from luthier.report.screens.stages import heading
from luthier.report.tables import BAD, CAREFUL, FAINT, GOOD, STRONG


def fit_tables(found: Mapping[str, Any]) -> list[RenderableType]:
    """The tables of `Fit.as_dict`: memory by tune kind and row length, then the arithmetic of the layers."""
    rows = "1 row" if found["batch"] == 1 else f"{found['batch']:,} rows"
    active = "" if found["active"] == found["parameters"] else f", {found['active']:,} of them for each token"
    return [
        heading(clean(found["model"])),
        Text(f"  {found['parameters']:,} weights{active}, {found['dtype']}"),
        heading(f"GB at the peak, {rows} a pass; free: {_gigabytes(found['free_bytes'])} of {clean(found['room'])}"),
        _memory(found),
        *(Text(f"  {line}", style=FAINT) for line in _legend(found)),
        heading("the layers: W = in × out, adapter = rank × (in + out)"),
        _layers(found),
    ]


def _memory(found: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    lengths = [f"{cell['tokens']:,} tokens" for cell in found["serve"]]
    for column in ("", "learns", "weights, GB", *lengths):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for row in found["tune"]:
        cells = [_cell(cell) for cell in row["cells"]]
        table.add_row(row["tune"], f"{row['trainable']:,}", _gigabytes(row["stored"]), *cells)
    table.add_row(Text("serve", style=STRONG), "", "", *(_cell(cell) for cell in found["serve"]))
    return table


def _cell(cell: Mapping[str, Any]) -> Text:
    text = _gigabytes(cell["needed"]) + ("*" if cell["recompute"] else "") + ("°" if cell["loading"] else "")
    if not cell["fits"]:
        return Text(f"no, {text}", style=BAD)
    return Text(text, style=CAREFUL if cell["recompute"] else GOOD)


def _legend(found: Mapping[str, Any]) -> list[str]:
    cells = [cell for row in found["tune"] for cell in row["cells"]]
    lines = ["no: does not fit, and how much it takes"] if not all(c["fits"] for c in (*cells, *found["serve"])) else []
    if any(cell["recompute"] for cell in cells):
        lines.append("*: with --train.recompute blocks, which auto chooses where a run would not fit else")
    if any(cell["loading"] for cell in cells):
        lines.append("°: while it is loaded, before it is quantized or tuned")
    each = "one row" if found["batch"] == 1 else f"{found['batch']} rows"
    return [
        *lines,
        f"for passes of {each} (--train.tokens); without it a run fills 1,024 tokens on a CPU, up to 8,192 on a GPU",
    ]


def _layers(found: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("layer", "in × out", "W", "adapter", "share", "layers", "all W"):
        name = column == "layer"
        table.add_column(column, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for one in found["layers"]:
        size, count = f"{one['inputs']:,} × {one['outputs']:,}", one["count"]
        added = [f"{one['adapter']:,}", _percent(one["share"])] if one["rank"] else ["", ""]
        table.add_row(
            clean(one["name"]), size, f"{one['weights']:,}", *added, f"{count:,}", f"{count * one['weights']:,}"
        )
    head = "the embedding's" if found["tied"] else f"{found['head']:,}"
    rest = (
        ("embedding", f"{found['embedding']:,}"),
        ("head", head),
        ("norms, biases and others", f"{found['others']:,}"),
    )
    for title, value in rest:
        table.add_row(title, *[""] * 5, value)
    share = _percent(found["adapters"] / found["parameters"])
    table.add_row("all", "", "", f"{found['adapters']:,}", share, "", f"{found['parameters']:,}", style=STRONG)
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _gigabytes(count: float) -> str:
    """With more decimals where it is small: 0.027, 0.27, 27.0, 270."""
    value = count / 1e9
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{decimals}f}"
