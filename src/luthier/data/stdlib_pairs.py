"""The quickstart's data: functions of the running interpreter's standard library and what they do, in one line.

Real text written by people, on every machine that has Python, and nothing is downloaded. A pair is the
source of a function without decorators and docstring, and the first line of that docstring.
"""

from __future__ import annotations

import ast
import gc
import re
import sysconfig
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from luthier.core.errors import InputError
from luthier.core.seeds import derive, generator
from luthier.core.types.examples import Chat, Message, Origin

INSTRUCTION = "Say in one line what this Python function does.\n\n"
SHORTEST_LINE, LONGEST_LINE = 20, 120
LONGEST_CODE = 280
TEST_SHARE = 5
FEWEST_FUNCTIONS = 100

# Not the library itself: tests, demonstrations, installed packages and bundled tools.
SKIPPED = frozenset(
    ("test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "ensurepip", "pydoc_data")
    + ("site-packages", "dist-packages", "__phello__")
)

# A block that may begin with a docstring: a string on the line below a colon, comments in between. Parsing the others,
# such as the tables of encodings, would find nothing.
DOCUMENTED = re.compile(r""":[ \t]*(?:#[^\n]*)?\n(?:[ \t]*(?:#[^\n]*)?\n)*[ \t]+[rRuU]?["']""")


@dataclass(frozen=True, slots=True)
class Function:
    """A documented function: the top-level module it belongs to, its source, and what it does."""

    module: str
    name: str
    code: str
    line: str
    origin: Origin


@lru_cache(maxsize=2)  # reading the library takes seconds, and a run shows its data before it uses it
def pairs(
    limit: int = 1000, test: int = 96, seed: int = 0, *, longest: int = LONGEST_CODE, root: Path | None = None
) -> tuple[list[Chat], list[Chat]]:
    """At most `limit` conversations to train on and `test` to measure with, from modules apart.

    A module goes to the test side by the hash of its name, one in five, whatever the seed; no code and
    no docstring line stands twice, on either side. The test takes from its modules in turn, so that no
    large one decides the score; training pairs are a plain sample. `longest` bounds the code in
    characters. The same interpreter and seed give the same pairs in the same order.

    Raises InputError when the interpreter's library has no sources, or too few.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    found = list(_distinct(function for function in _functions(root) if len(function.code) <= longest))
    seen: list[Function] = []
    unseen: dict[str, list[Function]] = defaultdict(list)
    for function in found:
        if derive(0, "stdlib module", function.module) % TEST_SHARE:
            seen.append(function)
        else:
            unseen[function.module].append(function)
    if len(seen) < FEWEST_FUNCTIONS or len(unseen) < 2:
        raise InputError(
            f"this Python's standard library has {len(found)} documented functions in source; the quickstart needs more",
            where=root,
            fix="install Python with its library's .py files (python.org, or your system's full python3 package)",
        )  # fmt: skip
    train = _shuffled(seen, seed, "train")[:limit]
    return [_chat(function) for function in train], [_chat(function) for function in _in_turn(unseen, seed)[:test]]


def _functions(root: Path) -> Iterator[Function]:
    """Every function below `root` with a usable docstring, files in order of their names."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if SKIPPED.intersection(parts) or path.name.startswith("test_"):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            if not DOCUMENTED.search(source):
                continue
            tree = _parsed(source)
        except (SyntaxError, ValueError, OSError):
            continue  # a few library files are wrong on purpose; the rest is enough
        module = parts[0].removesuffix(".py")
        lines = source.split("\n")  # not splitlines: a form feed is no line end to the parser
        for node in _definitions(tree):
            if line := summary_of(node):
                code = _without_docstring(node, lines)
                yield Function(module, node.name, code, line, Origin(str(path), node.lineno))


def _parsed(source: str) -> ast.Module:
    """Its syntax tree. Garbage collection waits: a tree has no cycles, and each collection that its many nodes set off would
    look through everything that torch has imported, which takes as long as parsing."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings(action="ignore"):  # the library's own deprecated escapes
            return ast.parse(source)
    finally:
        if collecting:
            gc.enable()


def _definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function, nearest the top first; only statements are looked through, since no expression holds one."""
    nodes: list[ast.AST] = [tree]
    for node in nodes:  # which grows
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        for block in ("body", "handlers", "orelse", "finalbody", "cases"):
            inner = getattr(node, block, ())
            nodes.extend(inner if isinstance(inner, list) else ())  # a lambda's body is an expression


def summary_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The docstring's first line where it is a sentence of fair length; "" where the function is of no use."""
    line = (ast.get_docstring(node) or "").strip().partition("\n")[0].strip()
    if not (SHORTEST_LINE <= len(line) <= LONGEST_LINE and line.endswith(".") and len(node.body) > 1):
        return ""
    # Cut by lines, the docstring must have its lines for itself.
    docstring, follower = node.body[0], node.body[1]
    alone = docstring.lineno > node.lineno and follower.lineno > (docstring.end_lineno or 0)
    return line if alone else ""


def _without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]) -> str:
    """The source as it was written, from `def` on (decorators stand above it), comments kept, docstring cut out."""
    docstring = node.body[0]
    assert docstring.end_lineno and node.end_lineno
    head = lines[node.lineno - 1 : docstring.lineno - 1]
    body = "\n".join(lines[docstring.end_lineno : node.end_lineno]).lstrip("\n").split("\n")
    # Not textwrap.dedent: one comment or string that begins in the first column would keep it from working.
    indent = lines[node.lineno - 1][: node.col_offset]
    return "\n".join(line.removeprefix(indent) if line.strip() else "" for line in (*head, *body))


def _distinct(functions: Iterator[Function]) -> Iterator[Function]:
    """The first of those that share their code or their line."""
    seen: set[str] = set()
    for function in functions:
        code, line = " ".join(function.code.split()), function.line.casefold()
        if code not in seen and line not in seen:
            seen |= {code, line}
            yield function


def _shuffled(functions: Sequence[Function], seed: int, place: str) -> list[Function]:
    return [functions[index] for index in generator(seed, "stdlib", place).permutation(len(functions))]


def _in_turn(modules: dict[str, list[Function]], seed: int) -> list[Function]:
    """One function of every module, then a second of every module that has one, and so on."""
    queues = [_shuffled(functions, seed, name) for name, functions in sorted(modules.items())]
    deepest = max(len(queue) for queue in queues)
    return [queue[depth] for depth in range(deepest) for queue in queues if depth < len(queue)]


def _chat(function: Function) -> Chat:
    messages = (Message("user", INSTRUCTION + function.code), Message("assistant", function.line))
    return Chat(messages, origin=function.origin, group=function.module)
