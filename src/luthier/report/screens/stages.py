"""What a command shows while it works and when it is done, made of the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice, starmap
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from luthier.core.log import size
from luthier.core.screen import clean
from luthier.report.tables import (
    before_after,
    card_table,
    figures,
    grid_of,
    run_summary,
    sample,
    samples_side_by_side,
    title,
)

SAMPLES = 5
BASE_SAMPLES = 2


def show(screen: Console, name: str, values: Any) -> None:
    """Print one stage of a run: a key of STAGES with the values it names."""
    for part in STAGES[name](values):
        screen.print(part)


def heading(text: str) -> RenderableType:
    """A line that opens a part of the screen."""
    return Rule(Text(text, style="bold"), style="dim", align="left")


def _setup(values: Mapping[str, Any]) -> list[RenderableType]:
    return [heading("this run"), grid_of((name, str(values[name])) for name in ("data", "model", "tune", "run"))]


def _before(values: Mapping[str, Any]) -> list[RenderableType]:
    lines = [] if values["loss"] is None else [("held-out loss", f"{values['loss']:z.4f} {values['unit']}".rstrip())]
    lines += [(title(row), figures(row, ("before",))[0]) for row in values["scores"]]
    if not lines:
        return []
    asked = zip(values["prompts"], values["references"], values["answers"], strict=True)
    return [
        heading("before: what the model says as it is"),
        grid_of(lines),
        *starmap(sample, islice(asked, BASE_SAMPLES)),
    ]


def _after(values: Mapping[str, Any]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if values["rows"]:
        parts += [heading("before and after, on held-out rows"), before_after(values["rows"])]
    if values["after"]:
        some = {key: values[key][:SAMPLES] for key in ("prompts", "references", "before", "after")}
        parts += [heading("the same questions, before and after"), samples_side_by_side(**some)]
    if values["forgetting"] or values["lost"]:
        parts.append(heading("what the model forgot"))
        parts += [Text(f"  {sentence}") for sentence in values["forgetting"]]
    if values["lost"]:
        parts.append(before_after(values["lost"]))
    return [*parts, heading("the run"), run_summary(values["result"])]


def _card(values: Mapping[str, Any]) -> list[RenderableType]:
    return [heading("the data"), card_table(values)]


def _examples(values: Sequence[RenderableType]) -> list[RenderableType]:
    return [heading("what is learned, token by token"), shown_examples(values)]


def _done(values: Mapping[str, Any]) -> list[RenderableType]:
    return [heading("the run"), run_summary(values)]


STAGES: dict[str, Callable[[Any], list[RenderableType]]] = {
    "card": _card,
    "examples": _examples,
    "ready": _setup,
    "before": _before,
    "after": _after,
    "done": _done,
}


def models_table(models: Sequence[Mapping[str, Any]], *, checked: bool = False) -> Table:
    """Models at hand: name, kind, parameters, size on disk, licence, folder; when they were checked, whether each is whole."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("name", "kind", "parameters", "on disk", "licence", "where", *(("whole",) if checked else ())):
        table.add_column(column, justify="right" if column in ("parameters", "on disk") else "left", overflow="fold")
    for m in models:
        where = str(m["folder"]).replace(str(Path.home()), "~") if m["folder"] else "fetched when first used"
        disk = size(m["bytes"]) if m["bytes"] else ""
        cells: tuple[str, ...] = (m["name"], m["kind"], f"{m['parameters']:,}", disk, m["licence"] or "", where)
        if checked:
            cells += (m["damage"] or "yes" if m["folder"] else "",)
        table.add_row(*(Text(clean(cell)) for cell in cells))
    return table


def shown_examples(examples: Sequence[RenderableType]) -> Group:
    """Examples token by token, with air between them."""
    return Group(*(part for tokens in examples for part in (tokens, Text())))


def written(files: Mapping[str, Mapping[str, Any]]) -> list[Text]:
    """One line for each file that `luthier data` wrote."""
    lines = []
    for name, file in files.items():
        why = ", ".join(f"{count} {reason}" for reason, count in file.get("why", {}).items())
        lines.append(Text(f"  {name}: {file['rows']:,} rows in {file['path']}" + (f" ({why})" if why else "")))
    return lines
