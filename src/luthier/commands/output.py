"""Where results go: tables for people, or one JSON object, on standard output."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import click
from rich.console import Console

_HALVES = re.compile("[\ud800-\udfff]")

as_json = click.option(
    "--json", "json_", is_flag=True, help="Print one JSON object on standard output, and nothing else there."
)


def console() -> Console:
    """Standard output for people; 80 columns in a pipe."""
    return Console(width=None if sys.stdout.isatty() else 100, highlight=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """One JSON object. Half a surrogate pair, which rows may hold and UTF-8 cannot, stays an escape."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    print(_HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", text))
