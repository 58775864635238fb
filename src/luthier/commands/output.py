"""Where results go: tables for people, or one JSON object, on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from luthier.commands.options import OUTPUT, option
from luthier.core.screen import UNSEEN, clean, printable
from luthier.core.secrets import hide

as_json = option(
    "--json",
    "json_",
    is_flag=True,
    group=OUTPUT,
    help="Print one JSON object on standard output, and nothing else there.",
)


class CleanConsole(Console):
    """A console whose words are words: no markup, no emoji names, nothing that a terminal would act on."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(clean(segment.text), segment.style)


def console() -> Console:
    """Standard output for people; 80 columns in a pipe."""
    width = None if sys.stdout.isatty() else 100
    return CleanConsole(width=width, highlight=False, soft_wrap=False, markup=False, emoji=False)


def say(text: str, end: str = "\n") -> None:
    """Words for people on standard output, as they come."""
    print(printable(hide(text)), end=end, flush=True)


def print_json(value: Any) -> None:
    """One JSON object. What nobody would see in it, and half a surrogate pair, stays an escape: it reads back as it was."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    print(UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text))
