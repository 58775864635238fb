"""Figures over the steps of runs. The plot is an SVG that stretches to any width with lines of constant width; its
numbers are text beside it, so that they are as easy to read on a phone. `chart.html` draws what is computed here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from luthier.report.plot import Axis, Point, moving_average, tick_values

WIDE, HIGH = 1000.0, 400.0  # of the plot, in its own units
MAX_POINTS = 600  # points of a line; what is more is thinned evenly


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
class DrawnLine:
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
    x_label: str
    description: str
    lines: list[DrawnLine]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def hover(self) -> str:
        """What the script of the page needs to show values, as JSON; the page is whole without it."""
        lines = [{"name": line.name, "style": line.style, "values": line.values} for line in self.lines]
        return json.dumps({"along": self.x_label, "x": self.x_range, "y": self.y_range, "lines": lines})


def chart(
    name: str,
    title: str,
    unit: str,
    lines: Sequence[Line],
    x_label: str = "step",
    from_zero: bool = False,
    whole: bool = True,
    x_end: float = 0.0,
) -> Chart | None:
    """The figure of these lines, or None where none has a point. Values that are not finite are left out. With `from_zero`
    the values begin at zero, as amounts should; `whole` says that values of `x_label` are counts; these reach at
    least `x_end`."""
    finite = [(line, [p for p in line.points if isfinite(p[1])]) for line in lines]
    finite = [(line, points) for line, points in finite if points]
    if not finite:
        return None
    smoothed = [(line, points, moving_average(points) if line.noisy else points) for line, points in finite]
    xs = [x for _, points in finite for x, _ in points]
    first, last = min(0.0, *xs), max(x_end, *xs)
    ys = [y for _, points in finite for _, y in points] + [0.0] * from_zero
    ys += [1.0] * (from_zero and not any(ys))  # amounts that are all nothing
    x_ticks, y_ticks = tick_values(first, last or 1, whole=whole), tick_values(min(ys), max(ys))
    x, y = Axis(first, last or 1, 0, WIDE), Axis(y_ticks[0], y_ticks[-1], HIGH, 0)
    description = " ".join(
        f"{line.name.capitalize()} from {short(path[0][1])} at {x_label} {path[0][0]:,g} "
        f"to {short(path[-1][1])} at {x_label} {path[-1][0]:,g}."
        for line, _, path in smoothed
    )
    return Chart(
        name, title, unit, x_label, description,
        [_draw(line, points, path, x, y) for line, points, path in smoothed],
        [(x.at(v) / WIDE, _label(v, x_ticks)) for v in x_ticks if x.low <= v <= x.high],
        [(y.at(v) / HIGH, _label(v, y_ticks)) for v in y_ticks],
        (x.low, x.high), (y.low, y.high),
    )  # fmt: skip


def short(value: float) -> str:
    """Three significant digits, thousands in groups."""
    if value and not 1e-4 <= abs(value) < 1e15:
        return f"{value:.2e}".replace("-", "−")
    decimals = max(0, 2 - floor(log10(abs(value)))) if value else 0
    return f"{value:z,.{min(decimals, 7)}f}".replace("-", "−")


def _draw(line: Line, points: Sequence[Point], path: Sequence[Point], x: Axis, y: Axis) -> DrawnLine:
    """The paths of a line; dots are lines of no length, which round ends make visible."""
    shown, path_points = _thinned(points), _thinned(path)
    dots = shown if line.noisy or line.dotted else []
    return DrawnLine(
        line.name, line.style, line.dotted,
        "" if line.dotted and len(path_points) < 3 else _path([(x.at(a), y.at(b)) for a, b in path_points]),
        "".join(f"M{_coordinate(x.at(a))} {_coordinate(y.at(b))}h0" for a, b in dots),
        short(path[-1][1]), [(a, float(f"{b:.5g}")) for a, b in shown],
    )  # fmt: skip


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most MOST points, evenly, the last one always among them."""
    every = ceil(len(points) / MAX_POINTS)
    kept = list(points[::every])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _label(value: float, all_ticks: Sequence[float]) -> str:
    """A tick's number, with the decimals that the distance of the ticks needs."""
    decimals = max(0, -floor(log10(all_ticks[1] - all_ticks[0]) + 1e-9))
    text = f"{value:.2g}" if decimals > 5 and value else f"{value:z,.{min(decimals, 5)}f}"
    return text.replace("-", "−")


def _path(places: Sequence[Point]) -> str:
    """The path through the places; of a single one, a line of no length."""
    return "M" + "L".join(f"{_coordinate(a)} {_coordinate(b)}" for a, b in places) + "h0" * (len(places) == 1)


def _coordinate(value: float) -> str:
    return f"{value:z.1f}".removesuffix(".0")
