"""Ratings and judges on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from luthier.core.screen import clean
from luthier.report.screens.stages import heading
from luthier.report.tables import CAREFUL, FAINT, STRONG, STYLES

MATRIX = 8  # models in the matrix of who took what; more do not fit on a screen


def ratings_screen(result: Mapping[str, Any]) -> list[RenderableType]:
    """What `luthier elo` prints, from the keys of its `--json`."""
    parts: list[RenderableType] = [heading("ratings"), *_ratings(result)]
    if length := result["length"]:
        parts.append(Text(f"  at equal length; one standard deviation more of length wins {points(length)} points"))
    parts += [Text(f"  {words}", style=CAREFUL) for words in result["unbounded"]]
    if len(result["ratings"]) > 2:
        parts += [heading("share of the points that a row took from a column, %"), *_matrix(result)]
    return [*parts, heading("who judged"), *annotators(result["annotators"], result["agreement"])]


def judge_screen(result: Mapping[str, Any]) -> list[RenderableType]:
    """What `luthier judge` prints, from the keys of its `--json`. A judge that goes by place has no table of who wins."""
    caption = f"  {result['prompts']:,} prompts; judgments in {clean(result['out'])}"
    parts: list[RenderableType] = [heading(f"judged by {clean(result['judge'])}")]
    if result["why"]:
        parts.append(Text(f"  no verdict: {clean(result['why'])}", style=CAREFUL))
    else:
        parts.append(_wins(result["pairs"]))
        if len(result["pairs"]) > 1:
            caption += f"; verdicts corrected for {len(result['pairs'])} pairs (Holm)"
    parts.append(Text(caption, style=FAINT))
    parts += [heading("how far to trust it"), *annotators(result["annotators"], None)]
    if human := result["human"]:
        words = "not defined" if human["alpha"] is None else f"{human['alpha']:z.2f}".replace("-", "−")
        alike = f"{human['same']:.0%} of {human['units']:,} pairs"
        parts.append(Text(f"  people say the same of {alike} (Krippendorff's alpha {words})"))
    return parts


def _wins(pairs: Sequence[Mapping[str, Any]]) -> Table:
    """Who won against whom, how often, the share of the points with its interval, and the verdict."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    for title in ("", "against"):
        table.add_column(title, overflow="fold")
    for title in ("wins", "ties", "losses", "points, %"):
        table.add_column(title, justify="right")
    table.add_column("", no_wrap=True)
    for pair in pairs:
        words = pair["verdict"]
        cells = (f"{pair[key]:,}" for key in ("wins", "ties", "losses"))
        one, other = (Text(clean(model)) for model in pair["models"])
        table.add_row(
            one, other, *cells, share({**pair, "value": pair["score"]}), Text(words, style=STYLES.get(words, FAINT))
        )
    return table


def points(estimate: Mapping[str, Any]) -> str:
    """A number of rating points with its interval."""
    value = f"{estimate['points']:+z.0f}"
    span = f" ({estimate['low']:+z.0f} … {estimate['high']:+z.0f})" if estimate["low"] is not None else ""
    return (value + span).replace("-", "−")


def annotators(found: Sequence[Mapping[str, Any]], agreement: Mapping[str, Any] | None) -> list[RenderableType]:
    """The habits of those who judged, and how far they agree."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column("annotator", overflow="fold")
    for title in ("judgments", "ties", "first wins", "longer wins", "steady", "alpha"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in found:
        alpha = (row["agreement"] or {}).get("alpha")
        shares = [share(row[name]) for name in ("ties", "first", "longer", "steady")]
        cells = [f"{row['judgments']:,}", *shares, "" if alpha is None else f"{alpha:z.2f}".replace("-", "−")]
        table.add_row(Text(clean(row["annotator"])), *cells)
    words = "in %: ties; wins of what is shown first, of what is longer; pairs judged alike in both orders"
    parts: list[RenderableType] = [table, Text(f"  {words}", style=FAINT)]
    for row in found:
        if row["steady"] and row["steady"]["value"] < 0.5:
            words = "judges fewer than half of the pairs alike in both orders: it goes by position more than by answer"
            parts.append(Text(f"  {clean(row['annotator'])} {words}", style=CAREFUL))
    if agreement:
        alpha = agreement["alpha"]
        words = "not defined: every value is the same" if alpha is None else f"{alpha:z.2f}".replace("-", "−")
        parts.append(
            Text(f"  Krippendorff's alpha {words}; {agreement['same']:.0%} of the verdicts on {agreement['units']:,} "
                 "pairs judged by several are the same", style=FAINT)
        )  # fmt: skip
    return parts


def share(estimate: Mapping[str, Any] | None) -> str:
    """A share in percent with its interval."""
    if estimate is None:
        return ""
    value = f"{100 * estimate['value']:.0f}"
    return value if estimate["low"] is None else f"{value} ({100 * estimate['low']:.0f}…{100 * estimate['high']:.0f})"


def _ratings(result: Mapping[str, Any]) -> list[RenderableType]:
    caption = (
        f"  {result['judgments']:,} judgments, {result['duels']:,} duels, {result['prompts']:,} prompts; "
        "intervals by prompts drawn again"
    )
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column("", justify="right", style=FAINT)
    table.add_column("model", overflow="fold")
    table.add_column("rating", justify="right", style=STRONG)
    table.add_column("95 % interval", justify="right", style=FAINT, no_wrap=True)
    table.add_column("points, %", justify="right")
    table.add_column("duels", justify="right")
    for row in result["ratings"]:
        low, high = ("" if row[end] is None else f"{row[end]:z.0f}" for end in ("low", "high"))
        span = f"{low or '?'} … {high or '?'}" if low or high else ""
        table.add_row(
            str(row["rank"]), Text(clean(row["model"])), f"{row['rating']:z.0f}", span.replace("-", "−"),
            f"{100 * row['score']:.1f}", f"{row['duels']:,}",
        )  # fmt: skip
    return [table, Text(caption, style=FAINT)]


def _matrix(result: Mapping[str, Any]) -> list[RenderableType]:
    names = [row["model"] for row in result["ratings"]][:MATRIX]
    left = len(result["ratings"]) - len(names)
    caption = Text(f"  the first {len(names)} of {len(names) + left}; --json has them all", style=FAINT)
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True)
    table.add_column("", overflow="fold")
    for number in range(1, len(names) + 1):
        table.add_column(str(number), justify="right")
    for number, one in enumerate(names, 1):
        cells = []
        for other in names:
            met = result["matrix"].get(one, {}).get(other)
            cells.append("" if one == other else "·" if not met else f"{100 * met['points'] / met['duels']:.0f}")
        table.add_row(Text(f"{number} {clean(one)}"), *cells)
    return [table, caption] if left else [table]
