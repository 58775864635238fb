"""The one reader of YAML: run files and test suites. Plain values only, within bounds, and every fault with its line.

Texts, numbers, true and false, null, lists, mappings, anchors and merge keys are read. Tags, dates, keys that stand twice, keys
that are no texts, values inside themselves, and what grows or nests without measure are refused before it takes memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from luthier.core.errors import InputError
from luthier.core.storage.files import text_file

MAX_BYTES = 2 << 20  # bytes of a file
MAX_VALUES = 100_000  # in a document, each copy that an alias makes counted
MAX_DEPTH = 50  # of lists and mappings in each other
DIGITS = 100  # of a number
PLAIN = {
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map", "merge", "value")
}


class _Refused(yaml.MarkedYAMLError):
    """Valid YAML that is not read. `fix` says what to do."""

    def __init__(self, problem: str, mark: Any, fix: str) -> None:
        super().__init__(problem=problem, problem_mark=mark)
        self.fix = fix


class _Loader(yaml.SafeLoader):
    """Composes nodes within bounds. Of every finished node it knows how many values it stands for and how deep they go."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.measured: dict[int, tuple[int, int]] = {}  # id of a node -> values, depth

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        alias = self.check_event(yaml.AliasEvent)
        self.depth += not alias
        if self.depth > MAX_DEPTH:
            raise _too_deep(mark)
        node = super().compose_node(parent, index)
        self.depth -= not alias
        if not alias:
            self._measure(node)
        elif id(node) not in self.measured:  # not yet finished
            raise _Refused("a value that stands inside itself", mark, "write it out")
        return node

    def _measure(self, node: Any) -> None:
        if node.tag not in PLAIN:
            if node.tag.endswith(":timestamp"):
                raise _Refused(f"'{node.value}' is a date", node.start_mark, "put it in quotes")
            fix = "texts, numbers, true and false, null, lists and mappings are read"
            raise _Refused(f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')}", node.start_mark, fix)
        if isinstance(node, yaml.ScalarNode):
            if len(node.value) > DIGITS and node.tag.endswith((":int", ":float")):
                raise _Refused(
                    f"a number of {len(node.value)} digits", node.start_mark, "put it in quotes, or shorten it"
                )
            self.measured[id(node)] = (1, 1)
            return
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        below = [child for pair in node.value for child in (pair if isinstance(pair, tuple) else (pair,))]
        values = 1 + sum(self.measured[id(child)][0] for child in below)
        depth = 1 + max((self.measured[id(child)][1] for child in below), default=0)
        if values > MAX_VALUES:
            raise _Refused(
                f"more than {MAX_VALUES:,} values, copies by aliases counted", node.start_mark, "split the file"
            )
        if depth > MAX_DEPTH:
            raise _too_deep(node.start_mark)
        self.measured[id(node)] = (values, depth)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, TypeError, OverflowError):  # such as `!!int x`
            raise _Refused(
                f"{node.value!r:.60} is not what it says to be", node.start_mark, "put it in quotes"
            ) from None


def _too_deep(mark: Any) -> _Refused:
    return _Refused(f"lists and mappings more than {MAX_DEPTH} deep", mark, "write it with less nesting")


def _check_keys(node: yaml.MappingNode) -> None:
    """YAML keeps the last of two equal keys without a word; here they are an error."""
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _Refused("a key must be a text", key.start_mark, "write `name: value`")
        if key.value in seen:
            raise _Refused(f"'{key.value}' occurs twice", key.start_mark, "keep one of them")
        seen.add(key.value)


def read(path: Path, what: str) -> tuple[Any, Any]:
    """The nodes of a YAML file, for the line of each value, and the plain values. `what` it holds is said where it cannot be
    read. Raises InputError, with file and line."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"longer than {MAX_BYTES >> 20} MB", where=path, fix=f"no {what} is: check the path")
        text = text_file(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"cannot read the {what}: {reason}", where=path, fix="check the path and the file") from None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return root, None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else path
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "something is out of place"
        if isinstance(error, _Refused):
            raise InputError(problem, where=place, fix=error.fix) from None
        raise InputError(f"not valid YAML: {problem}", where=place, fix="check indentation and quotes") from None
