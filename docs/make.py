"""Write docs/commands.md and docs/python_reference.md from the program itself, so that they cannot be stale. `--check` only compares."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click

import luthier as package
from luthier import kernel
from luthier.cli import COMMANDS, luthier
from luthier.config.section import Section

FOLDER = Path(__file__).parent


def commands() -> str:
    """Every command's help, in order."""
    parts = ["# The command line\n\nMade by `python docs/make.py` from the program.\n", _block(luthier, "luthier")]
    for name in COMMANDS:
        command = import_module(f"luthier.commands.{name.replace('-', '_')}").command
        parts.append(f"## luthier {name}\n\n{_block(command, f'luthier {name}')}")
    return "\n".join(parts)


def _block(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=name, max_content_width=110, terminal_width=110)
    return f"```\n{command.get_help(context)}\n```\n"


def reference() -> str:
    """Every public name of `luthier` and `luthier.kernel` with its signature and what it says of itself."""
    parts = [
        "# The public names\n\nMade by `python docs/make.py` from the program; [python.md](python.md) says how they go together.\n",
        *_names(package, "What a notebook or a program does: the commands, with the same settings and results."),
        *_names(kernel, "The parts for a loop or a method of your own."),
    ]
    return "\n".join(parts)


def _names(module: ModuleType, about: str) -> list[str]:
    return [
        f"## {module.__name__}\n\n{about}\n",
        *(_entry(name, getattr(module, name)) for name in sorted(module.__all__)),
    ]


def _entry(name: str, value: Any) -> str:
    """A heading, the signature, the words; of a class its public methods and properties too."""
    if isinstance(value, type) and issubclass(value, Section):
        fields = "".join(f"    {field}: {info.description}\n" for field, info in value.model_fields.items())
        return f"### {name}\n\nSettings: keywords, each with the default of the command line ([commands.md](commands.md)).\n\n{fields}"
    if not callable(value):
        found = ", ".join(f"`{key}`" for key in value)
        return f"### {name}\n\nA mapping with {found}.\n"
    lines = [f"### {name}", "", _block_of(value, name)]
    if isinstance(value, type):
        for own, member in vars(value).items():
            if own.startswith("_") or not (inspect.isfunction(member) or isinstance(member, property)):
                continue
            signature = "" if isinstance(member, property) else f"({_parameters(member, skip_self=True)}"
            lines.append(_indented(f".{own}{signature}", inspect.getdoc(member)))
    return "\n".join(lines)


def _block_of(value: Any, name: str) -> str:
    return _indented(f"{name}({_parameters(value)}", inspect.getdoc(value))


def _indented(head: str, words: str | None) -> str:
    said = "\n".join(f"        {line}".rstrip() for line in (words or "").splitlines())
    return f"    {head}\n{said}\n"


def _parameters(function: Any, skip_self: bool = False) -> str:
    """The rest of a signature, after its opening bracket. Of an error no more than that."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return "...)"
    bare = [one.replace(annotation=_bare(one.annotation)) for one in signature.parameters.values()]
    signature = signature.replace(parameters=bare[skip_self:], return_annotation=_bare(signature.return_annotation))
    return str(signature)[1:].replace("<factory>", "...")


class _Bare(str):
    """An annotation as it was written."""

    __repr__ = str.__str__


def _bare(annotation: Any) -> Any:
    return _Bare(annotation) if isinstance(annotation, str) else annotation


PAGES = {"commands.md": commands, "python_reference.md": reference}

if __name__ == "__main__":
    for name, text in PAGES.items():
        page = FOLDER / name
        if "--check" not in sys.argv:
            page.write_text(text(), encoding="utf-8")
        elif not page.is_file() or page.read_text(encoding="utf-8") != text():
            sys.exit(f"docs/{name} is stale: run `make format`")
