"""YAML -> a suite, or an error that names the line, the key and the nearest known one."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from luthier.core.errors import InputError, nearest
from luthier.core.foreign.yaml_file import read as read_yaml
from luthier.evals.suites.spec import Part, Suite, names

P = TypeVar("P", bound=Part)
Place = tuple[int | str, ...]  # the keys and numbers that lead to a value


@dataclass(frozen=True)
class Document:
    """A suite as it was read: the spec, the plain values it was made of, and the line of each."""

    path: Path
    suite: Suite
    values: dict[str, Any]
    root: yaml.Node

    def where(self, place: Place) -> str:
        """file:line of a value."""
        return f"{self.path}:{_line(self.root, place)}"


def read(path: Path) -> Document:
    """Read a suite. Raises InputError, with file and line, when it is not YAML or not a suite."""
    root, values = read_yaml(path, "suite")
    if root is None or not isinstance(values, dict):
        raise InputError("a suite is a mapping with 'groups'", where=path, fix="see docs/compare.md for one")
    return Document(path, validated(Suite, values, path, root), values, root)


def validated(part: type[P], values: Any, path: Path, root: yaml.Node, place: Place = ()) -> P:
    """The values as a `part`, which stands at `place`. Raises InputError for the first thing that does not fit."""
    try:
        return part.model_validate(values)
    except ValidationError as error:
        found = error.errors()
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])  # a typo explains the rest
        loc = _written(first["loc"])
        where = f"{path}:{_line(root, place + loc)}"
        raise _explained(first, loc, part, where, _named(root, place + loc)) from None


def _explained(error: Any, loc: Place, part: type[Part], where: str, named: str) -> InputError:
    """pydantic's complaint as ours; `named` is the key that the user wrote there."""
    last = str(loc[-1]) if loc else ""
    if error["type"] == "extra_forbidden":
        known = names(_part_at(part, loc[:-1]))
        guess = nearest(last, known)
        return InputError(
            f"unknown key '{last}'", where=where,
            fix=f"did you mean '{guess}'?" if guess else f"known here: {', '.join(known)}",
        )  # fmt: skip
    if error["type"] == "missing":
        return InputError(f"'{last}' is missing", where=where)
    if error["type"] == "value_error":
        return InputError(str(error["ctx"]["error"]), where=where)
    wanted = error["msg"].removeprefix("Input ")
    quotes = (
        "put it in quotes" if error["type"] == "string_type" and not isinstance(error["input"], dict | list) else None
    )
    return InputError(f"'{named}' {wanted}, not {error['input']!r:.60}", where=where, fix=quotes)


def _written(loc: Sequence[int | str]) -> Place:
    """pydantic's place without the names of types that it adds for unions."""
    return tuple(
        part for part in loc if isinstance(part, int) or not ("[" in part or part in ("str", "float", "dict", "list"))
    )


def _part_at(part: type[Part], place: Place) -> type[Part]:
    """The kind of mapping that stands at `place`."""
    for step in place:
        if isinstance(step, str):
            fields = {info.alias or name: info for name, info in part.model_fields.items()}
            part = _inner(fields[step].annotation) if step in fields else part
    return part


def _inner(annotation: Any) -> Any:
    """The Part in list[Part], Part | None and the like."""
    if get_origin(annotation) in (list, Union, types.UnionType):
        return next((found for arg in get_args(annotation) if (found := _inner(arg))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, Part) else None


def _line(root: yaml.Node, place: Place) -> int:
    """The line of the value at `place`, or of the last thing on the way to it that is there."""
    return [root.start_mark.line, *(node.start_mark.line for _, node in _way(root, place))][-1] + 1


def _named(root: yaml.Node, place: Place) -> str:
    """The last key on the way to `place` that the user wrote: `equals` for its text in `equals: x`."""
    return ["", *(str(key) for key, _ in _way(root, place) if isinstance(key, str))][-1]


def _way(root: yaml.Node, place: Place) -> Iterator[tuple[int | str, yaml.Node]]:
    """Each step to `place` that is there, with the node that begins its line: a key, or an item of a list."""
    node = root
    for step in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == step), None)
            if found is None:
                return
            key, node = found
            yield step, key
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            yield step, node
        else:
            return
