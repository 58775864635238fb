"""Which files of the user's decide what a function of theirs gives: its own, and those that it imports from beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def sources(file: Path) -> list[Path]:
    """The file and every module or package below its folder that it imports, and that those import, anywhere in their text.
    What cannot be read as Python is named, and imports nothing here."""
    found: dict[Path, None] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = None
            waiting += [place for name in _imported(path) for place in _places(file.parent, path.parent, name)]
    return [file, *sorted(set(found) - {file})]


def _imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports; those relative to its own package begin with a dot."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from (f"{start}.{alias.name}" if node.module else f"{start}{alias.name}" for alias in node.names)
            yield start


def _places(root: Path, package: Path, name: str) -> list[Path]:
    """The files that an import of `name` runs, where they lie below `root`."""
    bare = name.lstrip(".")
    for _ in range(len(name) - len(bare) - 1):
        package = package.parent
    place, out = (package if name.startswith(".") else root), []
    for part in filter(None, bare.split(".")):
        place = place / part
        out += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return out
