"""What `luthier score` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType

from luthier.report.screens.stages import heading
from luthier.report.tables import grid_of, score_quality


def score_screen(result: Mapping[str, Any]) -> RenderableType:
    """The result of `luthier score`, by the keys of its `--json`."""
    return Group(heading("the scores"), grid_of(_lines(result)))


def _lines(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    score = result["score"]
    yield "answers", f"{result['answers']:,} of {result['rows']:,} rows"
    yield "mean score", f"{score['value']:z.3f}" + _span(score)
    if result["accuracy"]:
        accuracy = result["accuracy"]
        yield "better preferred", f"{accuracy['value']:.1%}" + _span(accuracy, "%") + f" of {result['pairs']:,} pairs"
    yield from score_quality(result)
    yield "written to", str(result["out"])


def _span(estimate: Mapping[str, Any], unit: str = "") -> str:
    if estimate["low"] is None:
        return ""
    ends = [f"{estimate[name]:.1%}" if unit else f"{estimate[name]:z.3f}" for name in ("low", "high")]
    return f"  ({ends[0]} to {ends[1]})"
