"""Tests use what is public: a part with a name of its own in a test has one without an underscore in the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import luthier

TESTS = Path(__file__).resolve().parents[1]
SOURCES = "".join(path.read_text(encoding="utf-8") for path in Path(luthier.__file__).parent.rglob("*.py"))
PRIVATE = set(re.findall(r"(?:def|class|self\.|^|\n)\s*(_[A-Za-z]\w*)\b", SOURCES))
OTHERS = {
    "_exit",
    "_loglikelihood_tokens",
    "_metrics",
}  # of Python, and of the harness and of TRL, which tests compare with


def reached(tree: ast.Module):
    """Private names of Luthier that a test takes, replaces or imports, each with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("luthier"):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in PRIVATE)
        elif (
            isinstance(node, ast.Attribute)
            and node.attr in PRIVATE - OTHERS
            and ast.unparse(node.value) not in ("self", "cls")
        ):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
            names = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            yield from ((node.lineno, name) for name in names if name.split(".")[-1] in PRIVATE - OTHERS)


def test_no_test_reaches_into_private_names():
    found = [
        f"{path.relative_to(TESTS)}:{line}: {name}"
        for path in sorted(TESTS.rglob("*.py"))
        if PRIVATE & set(re.findall(r"\b_[A-Za-z]\w*", text := path.read_text(encoding="utf-8")))
        for line, name in reached(ast.parse(text))
    ]
    assert found == []


def test_such_a_test_would_be_seen():
    text = "from luthier.core.screen import _short\nmodule._short(1)\nmonkeypatch.setattr('luthier.core.errors._short', 1)\nself._short = 1"
    assert {line for line, _ in reached(ast.parse(text))} == {1, 2, 3}
