"""Two pictures as SVG, written by hand: the loss over the steps, and every metric before and after.

No plotting library, no script, no font of our own. The pictures follow the reader's light or dark
setting, and shapes and words say all that colours say. Scores and names arrive as plain values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, floor, log10
from pathlib import Path
from xml.sax.saxutils import escape

from luthier.core.screen import clean
from luthier.core.storage.files import writing
from luthier.report.tables import Row, figures
from luthier.report.tables import title as row_title

Point = tuple[float, float]

WIDTH, HIGH = 720, 394  # of a picture; of one with a panel of curves
SMOOTH_SHARE = 1 / 15

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #475569 }
.title { font-size: 16px; font-weight: 600; fill: #0f172a } .strong { font-weight: 600; fill: #0f172a }
.paper { fill: #ffffff } .grid { stroke: #e2e8f0 } .axis { stroke: #94a3b8 }
.end { text-anchor: end } .middle { text-anchor: middle }
.line { fill: none; stroke-width: 2.5; stroke-linecap: round; stroke-linejoin: round }
.raw { fill: none; stroke: #93b4ef; stroke-opacity: .6; stroke-width: 3.2; stroke-linecap: round }
.train { stroke: #2563eb } .held { stroke: #c2410c } .dot { fill: #c2410c; stroke: #ffffff; stroke-width: 1.5 }
.train-name { fill: #2563eb; font-weight: 600 } .held-name { fill: #c2410c; font-weight: 600 }
.before { fill: #cbd5e1 } .after { fill: #2563eb } .whisker { stroke: #0f172a; stroke-width: 1.5; fill: none }
.better { fill: #15803d; font-weight: 600 } .worse { fill: #b91c1c; font-weight: 600 }
@media (prefers-color-scheme: dark) {
text { fill: #9aa7b8 } .title, .strong { fill: #f1f5f9 }
.paper { fill: #0d1117 } .grid { stroke: #232b36 } .axis { stroke: #4b5768 }
.raw { stroke: #3b6fd4 } .train { stroke: #60a5fa } .held { stroke: #fb923c } .dot { fill: #fb923c; stroke: #0d1117 }
.train-name { fill: #60a5fa } .held-name { fill: #fb923c }
.before { fill: #475569 } .after { fill: #3b82f6 } .whisker { stroke: #f1f5f9 }
.better { fill: #4ade80 } .worse { fill: #f87171 }
}
"""


@dataclass(frozen=True, slots=True)
class Axis:
    """A straight map of values from `low`..`high` to pixels from `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True)
class Panel:
    """A smooth line through `points`, over faint dots of each, and a dotted one through `evals`; both by rising x, called
    `names`, of `what` in `unit`. Either may be empty, not both."""

    title: str
    points: Sequence[Point]
    evals: Sequence[Point]
    unit: str = ""
    names: tuple[str, str] = ("training", "held-out")
    what: str = ""


def loss_curve(
    points: Sequence[Point], evals: Sequence[Point], title: str, path: Path, unit: str = "nats per token"
) -> None:
    """Draw the loss of training, and the held-out loss, by step: (step, loss in `unit`)."""
    panels([Panel(title, points, evals, unit, what=" loss")], title, path, "optimizer step")


def panels(shown: Sequence[Panel], title: str, path: Path, along: str) -> None:
    """Draw several curves below each other, each on a scale of its own, `along` the same axis.

    The smooth line is the centred moving average over a fifteenth of the points.
    """
    reach = _range(x for panel in shown for x, _ in (*panel.points, *panel.evals))
    parts: list[str] = []
    told = []
    for number, panel in enumerate(shown):
        more, words = _curves(panel, along, reach, HIGH * number)
        parts += more
        told.append(words)
    _write(path, HIGH * len(shown), title, " ".join(told), parts)


def _curves(panel: Panel, along: str, reach: tuple[float, float], down: float = 0) -> tuple[list[str], str]:
    """The parts of a panel that begins so far `down`, over values of `along` that reach from the first to the second; and
    what it shows, in words."""
    points, evals, names = panel.points, panel.evals, panel.names
    x_ticks = tick_values(*reach, whole=along == "optimizer step")
    y_ticks = tick_values(*_range(y for _, y in (*points, *evals)))
    left, right, top, bottom = 64, WIDTH - 128, down + 70, down + 340
    x = Axis(x_ticks[0], max(reach[1], x_ticks[0] + 1e-9), left, right)
    y = Axis(y_ticks[0], y_ticks[-1], bottom, top)
    parts = [_text(left - 44, down + 28, panel.title, "title"), _text(left - 44, down + 47, panel.unit)]
    for value in y_ticks:
        style = "axis" if value == y_ticks[0] else "grid"
        parts.append(f'<path class="{style}" d="M{left} {_coordinate(y.at(value))}H{right}"/>')
        parts.append(_text(left - 10, y.at(value) + 4.5, _tick(value, y_ticks), "end"))
    parts += [_text(x.at(v), bottom + 20, _tick(v, x_ticks), "middle") for v in x_ticks if x.low <= v <= x.high]
    parts.append(_text((left + right) / 2, bottom + 42, along, "middle"))
    ends: list[tuple[float, str, str]] = []
    if points:
        smooth = moving_average(points)
        dots = "".join(f"M{_coordinate(x.at(step))} {_coordinate(y.at(loss))}h0" for step, loss in points)
        parts += [f'<path class="raw" d="{dots}"/>', f'<path class="line train" d="{_line(smooth, x, y)}"/>']
        ends.append((y.at(smooth[-1][1]), f"{names[0]} {_loss(smooth[-1][1])}", "train-name"))
    if evals:
        parts.append(f'<path class="line held" stroke-dasharray="1 6" d="{_line(evals, x, y)}"/>')
        parts += [
            f'<circle class="dot" cx="{_coordinate(x.at(s))}" cy="{_coordinate(y.at(loss))}" r="5"/>'
            for s, loss in evals
        ]
        ends.append((y.at(evals[-1][1]), f"{names[1]} {_loss(evals[-1][1])}", "held-name"))
    parts += [_text(right + 12, at + 4.5, words, style) for at, words, style in _spread_labels(ends)]
    place = "step" if along == "optimizer step" else along
    told = [
        f"{name.capitalize()}{panel.what} from {_loss(line[0][1])} at {place} {line[0][0]:g}"
        f" to {_loss(line[-1][1])} at {place} {line[-1][0]:g}."
        for name, line in zip(names, (points, evals), strict=True)
        if line
    ]
    return parts, " ".join(told)


def before_after_bars(rows: Sequence[Row], path: Path, title: str = "Before and after") -> None:
    """Draw every metric row (`measure_answers.table`) as two bars from zero, before over after, on a scale of its own.

    The whisker on the lower bar is the 95 % interval of the difference, counted from the value before. The
    change and its verdict stand beside the bars. Values below zero go left from zero.
    """
    left, right, top, pitch = max([150.0, *(26 + 8.3 * len(row_title(row)) for row in rows)]), 500, 60, 60
    height = top + pitch * len(rows) + 22
    parts = [_text(20, 30, title, "title")]
    told = []
    for index, row in enumerate(rows):
        y = top + pitch * index
        old, new, change = figures(row, ("before", "after", "difference"))
        low, high, words = row["low"], row["high"], row["verdict"]
        whisker = [] if low is None or high is None else [row["before"] + low, row["before"] + high]
        whole = 1.0 if row.get("unit") == "%" else 0
        values = [0.0, row["before"], row["after"], whole, *whisker]
        scale = Axis(min(values), max(values) if any(values) else 1, left, right - 50)
        parts += [
            _text(left - 14, y + 24, row_title(row), "strong end"),
            _bar(scale, row["before"], y, "before"),
            _bar(scale, row["after"], y + 19, "after"),
            _text(scale.at(max(0.0, row["before"])) + 8, y + 13, old),
        ]
        parts.append(_text(scale.at(max([0.0, row["after"], *whisker])) + 8, y + 32, new, "strong"))
        if whisker:
            start, end = (_coordinate(scale.at(value)) for value in whisker)
            parts.append(f'<path class="whisker" d="M{start} {y + 23}v10M{start} {y + 28}H{end}M{end} {y + 23}v10"/>')
        parts.append(_text(right + 30, y + 13, change, "strong"))
        parts.append(_text(right + 30, y + 32, words, words if words in ("better", "worse") else ""))
        told.append(f"{row_title(row)}: {old} before, {new} after, {words}.")
    note = f"above: before, below: after, with the 95 % interval of the change; {rows[0]['n']:,} items" if rows else ""
    parts.append(_text(20, height - 14, note))
    _write(path, height, title, " ".join(told), parts)


def moving_average(points: Sequence[Point], share: float = SMOOTH_SHARE) -> list[Point]:
    """The mean of the losses around each point: `share` of all points, the window shrinking evenly at both ends."""
    reach = floor(len(points) * share / 2)
    sums = [0.0, *accumulate(loss for _, loss in points)]  # of the losses before each: long runs stay linear
    smooth = []
    for index, (step, _) in enumerate(points):
        side = min(reach, index, len(points) - 1 - index)
        smooth.append((step, (sums[index + side + 1] - sums[index - side]) / (2 * side + 1)))
    return smooth


def tick_values(low: float, high: float, about: int = 5, whole: bool = False) -> list[float]:
    """Round numbers that span low..high, steps of 1, 2 or 5 times a power of ten, `about` or fewer steps.

    The first is at most `low`, the last at least `high`; a single value gets ticks on both sides. `whole`
    keeps to whole numbers.
    """
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value, but for float noise
        margin = (abs(low) or 1) * 0.05
        low, high = low - margin, high + margin
    rough = (high - low) / about
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def _range(values: Iterable[float]) -> tuple[float, float]:
    known = list(values)
    return min(known), max(known)


def _tick(value: float, all_ticks: Sequence[float]) -> str:
    """A tick's number, with the decimals that the distance of the ticks needs."""
    decimals = max(0, -floor(log10(all_ticks[1] - all_ticks[0]) + 1e-9))
    return f"{value:.2g}" if decimals > 6 and value else f"{value:z,.{min(decimals, 6)}f}"


def _loss(value: float) -> str:
    """Three significant digits, zeros kept."""
    return f"{value:z#.3g}".rstrip(".")


def _spread_labels(labels: Sequence[tuple[float, str, str]], least: float = 18) -> list[tuple[float, str, str]]:
    """The labels from top to bottom, moved down where they would touch."""
    placed: list[tuple[float, str, str]] = []
    for at, words, style in sorted(labels):
        placed.append((max(at, placed[-1][0] + least) if placed else at, words, style))
    return placed


def _line(points: Sequence[Point], x: Axis, y: Axis) -> str:
    """The path through the points; of a single one, a line of no length, which round ends make a dot."""
    return (
        "M"
        + "L".join(f"{_coordinate(x.at(step))} {_coordinate(y.at(loss))}" for step, loss in points)
        + "h0" * (len(points) == 1)
    )


def _bar(scale: Axis, value: float, y: float, style: str) -> str:
    start, end = scale.at(min(0.0, value)), scale.at(max(0.0, value))
    x, width = _coordinate(start), _coordinate(max(1.0, end - start))
    return f'<rect class="{style}" x="{x}" y="{_coordinate(y)}" width="{width}" height="17" rx="2"/>'


def _text(x: float, y: float, words: str, style: str = "") -> str:
    attribute = f' class="{style}"' if style else ""
    return f'<text{attribute} x="{_coordinate(x)}" y="{_coordinate(y)}">{escape(clean(words))}</text>'


def _coordinate(value: float) -> str:
    """A coordinate to a hundredth of a pixel, without needless zeros."""
    return f"{value:z.2f}".rstrip("0").rstrip(".")


def _write(path: Path, height: int, title: str, told: str, parts: Sequence[str]) -> None:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="title desc">\n<title id="title">{escape(clean(title))}</title>\n'
        f'<desc id="desc">{escape(clean(told))}</desc>\n<style>{STYLE}</style>\n'
        f'<rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>'
    )
    with writing(path) as handle:
        handle.write("\n".join([head, *parts, "</svg>\n"]))
