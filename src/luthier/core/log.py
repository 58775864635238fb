"""Progress and notes on standard error; standard output belongs to results."""

from __future__ import annotations

import functools
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from luthier.core import screen
from luthier.core.secrets import hide

LONG, SHORT = 24, 8  # columns of a bar, at most and at least
COLUMNS = 100  # of a line that goes to a file or a pipe


def note(text: str) -> None:
    """One line for the user, on standard error."""
    print(screen.line(hide(text)), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """One line that the user should not miss, on standard error."""
    note(f"warning: {text}")


@functools.cache
def once(text: str) -> None:
    """A `note` that is not repeated, such as how a file was read that a command reads twice."""
    note(text)


@functools.cache
def warn_once(text: str) -> None:
    """A `warn` that is not repeated."""
    warn(text)


def size(count: float) -> str:
    """Bytes for people: 1.4 GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def clock(seconds: float) -> str:
    """Seconds for people: 3:07 or 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Bar:
    """A progress line: done/total, how many a second, named figures, and time left. Drawn in place on a terminal and in a
    notebook, every ten seconds otherwise. Figures that are given first are shown first, and longest where there is little room."""

    def __init__(self, title: str, total: int | None) -> None:
        self.title, self.total = title, total
        self.done = self.first = 0
        self.began = time.monotonic()
        self.drawn = 0.0
        self.last = ""
        self.terminal = sys.stderr.isatty()
        self.notebook = type(sys.stderr).__module__.startswith("ipykernel")
        self.figures: dict[str, Any] = {}
        self.words = ""

    def start_at(self, done: int) -> None:
        """Begin at `done`, as a resumed run does; the rate counts from here."""
        self.done = self.first = done

    def advance(self, amount: int = 1, **figures: Any) -> None:
        """Move on by `amount` and show `figures` (name -> text or number)."""
        self.done += amount
        self._show(figures)

    def at(self, done: int, total: int, words: str, **figures: Any) -> None:
        """Stand at `done` of `total`, which may change, and say so in other `words` than these two numbers."""
        self.done, self.total, self.words = done, total, words
        self._show(figures)

    @property
    def spent(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def _show(self, figures: dict[str, Any]) -> None:
        self.figures.update(figures)
        now = time.monotonic()
        if now - self.drawn >= (0.2 if self.terminal else 1.0 if self.notebook else 10.0):
            self.drawn = now
            self._draw()

    def _draw(self) -> None:
        columns = _columns(self.terminal)
        line = screen.line(hide(self._line(columns)))
        if line == self.last:
            return
        before, self.last = self.last, line
        if self.terminal:
            print(f"\r\x1b[2K{line[:columns]}", end="", file=sys.stderr, flush=True)
        elif self.notebook:  # a cell knows the beginning of the line, but erases nothing
            print(f"\r{line:{len(before)}}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _line(self, columns: int) -> str:
        """What fits into so many columns: figures come before the bar, and where not all fit, the last ones go first."""
        spent, fresh = self.spent, self.done - self.first
        figures = [f"{k} {v:z.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.figures.items()]
        if not any(name.endswith("/s") for name in self.figures) and fresh and spent:  # no rate of its own
            figures.insert(0, f"{per:,.0f}/s" if (per := fresh / spent) >= 10 else f"{per:.2g}/s")
        if self.total:
            done = self.words or f"{self.done}/{self.total}"
            left = f"left {clock(spent / fresh * (self.total - self.done)) if fresh else '-:--'}"
        else:
            done, left = str(self.done), clock(spent)
        parts = [f"{self.title} {done}", *figures, left]
        while len("  ".join(parts)) > columns and len(parts) > 3:  # one figure and the time stay
            del parts[-2]
        if len("  ".join(parts)) > columns and figures:
            del parts[-1]
        room = columns - len("  ".join(parts)) - 1
        if self.total and room >= SHORT:
            width = min(LONG, room)
            filled = round(width * min(1.0, self.done / self.total))
            parts[0] = f"{self.title} {'━' * filled}{'─' * (width - filled)} {done}"
        return "  ".join(parts)

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._draw()
        if self.terminal or self.notebook:
            print(file=sys.stderr, flush=True)


def _columns(terminal: bool) -> int:
    """How wide a line may be: a terminal's last column is left free, where some break the line."""
    return shutil.get_terminal_size().columns - 1 if terminal else COLUMNS


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Bar]:
    """A `Bar` for the block."""
    bar = Bar(title, total)
    try:
        yield bar
    finally:
        bar.close()
