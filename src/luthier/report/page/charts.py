"""Figures over the steps of runs. The plot is an SVG that stretches to any width with lines of constant width; its
numbers are text beside it, so that they are as easy to read on a phone. `chart.html` draws what is computed here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from luthier.report.plot import Axis, Point, moving_average, ticks

WIDE, HIGH = 1000.0, 400.0  # of the plot, in its own units
MOST = 600  # points of a line; what is more is thinned evenly


@dataclass(frozen=True)
class Line:
    """A named series. `style` is its place among the colours, from 1; a noisy one is drawn smooth over faint dots, a
    dotted one with a mark at each of its points, and no line between only two."""

    name: str
    points: Sequence[Point]
    style: int = 1
    noisy: bool = False
    dotted: bool = False


@dataclass(frozen=True)
class Drawn:
    """A line as it is drawn: paths in the plot's units, its last value, and the values that hovering shows."""

    name: str
    style: int
    dotted: bool
    path: str
    dots: str
    last: str
    values: list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A figure: ticks as (share of width from the left or of height from the top, text)."""

    name: str
    title: str
    unit: str
    along: str
    told: str
    lines: list[Drawn]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def hover(self) -> str:
        """What the script of the page needs to show values, as JSON; the page is whole without it."""
        lines = [{"name": line.name, "style": line.style, "values": line.values} for line in self.lines]
        return json.dumps({"along": self.along, "x": self.x_range, "y": self.y_range, "lines": lines})


def chart(
    name: str,
    title: str,
    unit: str,
    lines: Sequence[Line],
    along: str = "step",
    zero: bool = False,
    whole: bool = True,
    until: float = 0.0,
) -> Chart | None:
    """The figure of these lines, or None where none has a point. Values that are not finite are left out. With `zero`
    the values begin at zero, as amounts should; `whole` says that values of `along` are counts; these reach at
    least `until`."""
    kept = [(line, [p for p in line.points if isfinite(p[1])]) for line in lines]
    kept = [(line, points) for line, points in kept if points]
    if not kept:
        return None
    drawn = [(line, points, moving_average(points) if line.noisy else points) for line, points in kept]
    xs = [x for _, points in kept for x, _ in points]
    first, last = min(0.0, *xs), max(until, *xs)
    ys = [y for _, points in kept for _, y in points] + [0.0] * zero
    ys += [1.0] * (zero and not any(ys))  # amounts that are all nothing
    x_ticks, y_ticks = ticks(first, last or 1, whole=whole), ticks(min(ys), max(ys))
    x, y = Axis(first, last or 1, 0, WIDE), Axis(y_ticks[0], y_ticks[-1], HIGH, 0)
    told = " ".join(
        f"{line.name.capitalize()} from {short(path[0][1])} at {along} {path[0][0]:,g} "
        f"to {short(path[-1][1])} at {along} {path[-1][0]:,g}."
        for line, _, path in drawn
    )
    return Chart(
        name, title, unit, along, told,
        [_drawn(line, points, path, x, y) for line, points, path in drawn],
        [(x.at(v) / WIDE, _label(v, x_ticks)) for v in x_ticks if x.low <= v <= x.high],
        [(y.at(v) / HIGH, _label(v, y_ticks)) for v in y_ticks],
        (x.low, x.high), (y.low, y.high),
    )  # fmt: skip


def short(value: float) -> str:
    """Three significant digits, thousands in groups."""
    if value and not 1e-4 <= abs(value) < 1e15:
        return f"{value:.2e}".replace("-", "−")
    decimals = max(0, 2 - floor(log10(abs(value)))) if value else 0
    return f"{value:,.{min(decimals, 7)}f}".replace("-", "−")


def _drawn(line: Line, points: Sequence[Point], path: Sequence[Point], x: Axis, y: Axis) -> Drawn:
    """The paths of a line; dots are lines of no length, which round ends make visible."""
    few, along = _thinned(points), _thinned(path)
    dots = few if line.noisy or line.dotted else []
    return Drawn(
        line.name, line.style, line.dotted,
        "" if line.dotted and len(along) < 3 else _joined([(x.at(a), y.at(b)) for a, b in along]),
        "".join(f"M{_n(x.at(a))} {_n(y.at(b))}h0" for a, b in dots),
        short(path[-1][1]), [(a, float(f"{b:.5g}")) for a, b in few],
    )  # fmt: skip


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most MOST points, evenly, the last one always among them."""
    pace = ceil(len(points) / MOST)
    kept = list(points[::pace])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _label(value: float, all_ticks: Sequence[float]) -> str:
    """A tick's number, with the decimals that the distance of the ticks needs."""
    decimals = max(0, -floor(log10(all_ticks[1] - all_ticks[0]) + 1e-9))
    text = f"{value:.2g}" if decimals > 5 and value else f"{value:,.{min(decimals, 5)}f}"
    return text.replace("-", "−")


def _joined(places: Sequence[Point]) -> str:
    """The path through the places; of a single one, a line of no length."""
    return "M" + "L".join(f"{_n(a)} {_n(b)}" for a, b in places) + "h0" * (len(places) == 1)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
