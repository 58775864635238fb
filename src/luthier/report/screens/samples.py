"""What `luthier sample` shows: what the answers are worth, what was kept, two prompts with their best and worst."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from luthier.core.screen import clean
from luthier.report.screens.stages import heading
from luthier.report.tables import CAREFUL, FAINT, STRONG, grid_of, samples_side_by_side


def sample_screen(result: Mapping[str, Any]) -> list[RenderableType]:
    """The result of `luthier sample`, by the keys of its `--json`."""
    about = f"  mean over {result['prompts']:,} prompts; estimated without bias from all {result['n']} answers of each"
    parts: list[RenderableType] = [heading("the best of several answers"), _curve(result), Text(about, style=FAINT)]
    if len(result["parts"]) > 1:
        parts.append(_parts(result["parts"]))
    if result["n"] > 1:
        parts += [heading("some of the prompts"), _examples(result["examples"], result["n"])]
    return [*parts, heading("the answers"), grid_of(_lines(result))]


def _curve(result: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("best of", justify="right")
    table.add_column("reward", justify="right", style=STRONG)
    table.add_column("95 % interval", justify="right", style=FAINT)
    for point in result["best_of"]:
        span = "" if point["low"] is None else f"{_number(point['low'])} … {_number(point['high'])}"
        table.add_row(str(point["of"]), _number(point["reward"]), span)
    return table


def _parts(parts: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("part of the reward", overflow="fold")
    for name in ("weight", "mean", "of the best"):
        table.add_column(name, justify="right")
    for name, part in parts.items():
        table.add_row(Text(clean(name)), f"{part['weight']:g}", _number(part["mean"]), _number(part["best"]))
    return table


def _examples(examples: Sequence[Mapping[str, Any]], n: int) -> RenderableType:
    def said(which: str) -> list[str]:
        return [f"[{_number(example[which]['reward'])}] {example[which]['text']}" for example in examples]

    return samples_side_by_side(
        [example["prompt"] for example in examples],
        ["(none)" if example["reference"] is None else example["reference"] for example in examples],
        said("worst"), said("best"), names=(f"worst of {n}, after its reward", f"best of {n}"),
    )  # fmt: skip


def _lines(result: Mapping[str, Any]) -> Iterator[tuple[str, str | Text]]:
    yield "prompts", f"{result['prompts']:,}, {result['n']} answers each, {result['tokens']:,} tokens"
    yield "ended", f"{100 * result['ended']:.1f} % by the model itself, the rest cut"
    if result["skipped"]:
        yield "skipped", Text(f"{result['skipped']:,} bad rows", style=CAREFUL)
    dropped = " · ".join(f"{count:,} {reason}" for reason, count in result["dropped"].items())
    yield "dropped", Text(dropped or "0", style=CAREFUL if dropped else FAINT)
    if result["kept_cut"]:
        words = f"{result['kept_cut']:,} best answers: raise --max-new-tokens, or give --only-ended"
        yield "cut", Text(words, style=CAREFUL)
    yield "kept", f"{result['kept']:,} of {result['prompts']:,} prompts"
    if result["out"]:
        yield "written", Text(f"{result['rows']:,} rows in {clean(result['out'])}", style=STRONG)
    else:
        words = f"nothing; the answers stay in {clean(result['partial'])} for another try"
        yield "written", Text(words, style=CAREFUL)


def _number(value: float) -> str:
    return f"{value:z.3f}".replace("-", "−")
