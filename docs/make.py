"""Write docs/commands.md from the program itself, so that it cannot be stale. `--check` only compares."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import click

from luthier.cli import COMMANDS, luthier

PAGE = Path(__file__).parent / "commands.md"


def text() -> str:
    """Every command's help, in order."""
    parts = ["# The command line\n\nMade by `python docs/make.py` from the program.\n", _block(luthier, "luthier")]
    for name in COMMANDS:
        command = import_module(f"luthier.commands.{name.replace('-', '_')}").command
        parts.append(f"## luthier {name}\n\n{_block(command, f'luthier {name}')}")
    return "\n".join(parts)


def _block(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=name, max_content_width=110, terminal_width=110)
    return f"```\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text():
            sys.exit("docs/commands.md is stale: run `make format`")
    else:
        PAGE.write_text(text(), encoding="utf-8")
