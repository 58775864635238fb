"""What a terminal without colours shows of the parts of a screen."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console, RenderableType


def printed(parts: Iterable[RenderableType], width: int = 100) -> str:
    """Their text: without control characters, and in lines that fit."""
    out = io.StringIO()
    screen = Console(file=out, width=width, color_system=None, highlight=False)
    for part in parts:
        screen.print(part)
    text = out.getvalue()
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    return text
