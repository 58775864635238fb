"""Options made from the settings of a run: every field of RunConfig is `--its.dotted.name`."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import click

from luthier.commands.options import MACHINE, SECTIONS, Option, option
from luthier.config.resolve import read_yaml, resolve
from luthier.config.run import RunConfig, fields, flag_of
from luthier.core.errors import InputError

ON_THE_MACHINE = ("device", "dtype", "threads", "force")


class Setting(Option):
    """One field of the settings; its value is None when it was not given. `short` is its name where that is not the dotted
    one, which is understood too.
    """

    def __init__(
        self, name: str, info: Any, refused: Sequence[str] = (), default: Any = None, short: str | None = None
    ) -> None:
        self.setting = name
        kind, multiple, flag = _kind(info.annotation)
        if refused:
            kind = click.Choice([choice for choice in kind.choices if choice not in refused])
        shown = f"--{short}" if short else flag_of(name)
        declaration = f"{shown}/--no-{name}" if flag else shown
        extra: dict[str, Any] = (
            {} if flag else {"type": kind, "multiple": multiple, "metavar": _metavar(name, info.annotation)}
        )
        extra |= {"former": [f"--{name}"] if shown != f"--{name}" else []}
        extra |= {"group": MACHINE if name in ON_THE_MACHINE else SECTIONS[name.rpartition(".")[0]]}
        super().__init__([declaration, name.replace(".", "__")], default=None, help=_help(info, default), **extra)


# For commands that take no other setting.
with_threads = option(
    "--threads", group=MACHINE, type=click.IntRange(1), metavar="N", help="CPU threads; by default all available cores."
)


def with_settings(
    *sections: str,
    without: Sequence[str] = (),
    refused: Mapping[str, Sequence[str]] | None = None,
    defaults: Mapping[str, Any] | None = None,
    short: Mapping[str, str] | None = None,
) -> Callable[[Any], Any]:
    """Add the options of these sections ('' for the top level); a name with a dot or no section adds one field.

    `refused` names values of a field that the command would not take: they are not offered. `defaults` are the command's
    own, where they are not those of the settings, and `short` its names of settings that no other of its settings shares.
    """

    def add(command: Any) -> Any:
        chosen = [
            Setting(name, info, (refused or {}).get(name, ()), (defaults or {}).get(name), (short or {}).get(name))
            for name, info in fields().items()
            if name != "version" and name not in without and (name.rpartition(".")[0] in sections or name in sections)
        ]
        command.params.extend(chosen)
        return command

    return add


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The settings among a command's parameters that were given, by dotted name."""
    known = fields()
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("__", ".")
        if name not in known or value is None or value == ():
            continue
        annotation = known[name].annotation
        if get_origin(annotation) is dict:
            value = _values(name, value) if get_args(annotation)[1] is Any else _mapping(name, value)
        out[name] = value
    return out


def config_of(paths: Sequence[str], values: dict[str, Any], defaults: dict[str, Any] | None = None) -> RunConfig:
    """Settings from defaults, a YAML file among `paths`, the other paths as data, and the options, in that order."""
    layers: list[dict[str, Any]] = [defaults or {}]
    data = []
    for path in paths:
        if path.endswith((".yaml", ".yml")):
            from pathlib import Path

            layers.append(read_yaml(Path(path)))
            resolve(layers[-1], where=path)
        else:
            data.append(path)
    if data:
        layers.append({"data.path": data})
    return resolve(*layers, given(values))


def _mapping(name: str, pairs: Sequence[str]) -> dict[str, str]:
    """NAME=MEANING, several with commas between; a part without a sign belongs to the one before it."""
    parts: list[str] = []
    for part in (part for pair in pairs for part in pair.split(",")):
        if "=" in part or not parts:
            parts.append(part)
        else:
            parts[-1] += f",{part}"
    out = {}
    for pair in parts:
        field, sign, column = pair.partition("=")
        if not (sign and field and column):
            raise InputError(
                f"'{pair}' is not {_PAIRS[name][0]}", where=flag_of(name), fix=f"such as {_PAIRS[name][1]}"
            )
        out[field] = column
    return out


# What a pair of these settings is, and an example of one.
_PAIRS = {
    "data.columns": ("FIELD=COLUMN", "output=answer"),
    "data.values": ("VALUE=MEANING", "1=output_1,2=output_2"),
    "text.template_kwargs": ("NAME=VALUE", "enable_thinking=false"),
}


def _values(name: str, given: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE, the value as JSON or else as text, and JSON objects of several."""
    out: dict[str, Any] = {}
    for text in given:
        if text.lstrip().startswith("{"):
            try:
                out |= dict(json.loads(text))
            except ValueError:
                raise InputError(f"'{text}' is not JSON", where=flag_of(name), fix="fix its quotes") from None
            continue
        key, sign, value = text.partition("=")
        if not (sign and key):
            what, such = _PAIRS[name]
            raise InputError(f"'{text}' is not {what}", where=flag_of(name), fix=f"such as {such}")
        try:
            out[key] = json.loads(value)
        except ValueError:
            out[key] = {"True": True, "False": False}.get(value, value)
    return out


def _kind(annotation: Any) -> tuple[Any, bool, bool]:
    """(click type, may be given several times, is a flag) for a field's annotation."""
    inner = [a for a in get_args(annotation) if a is not type(None)]
    if get_origin(annotation) in (Union, types.UnionType):
        return _kind(inner[0])
    if get_origin(annotation) is Literal:
        return click.Choice([str(a) for a in inner]), False, False
    if get_origin(annotation) in (tuple, dict):
        return str, True, False
    return str, False, annotation is bool


def _metavar(name: str, annotation: Any) -> str | None:
    inner = [a for a in get_args(annotation) if a is not type(None)]
    if get_origin(annotation) in (Union, types.UnionType):
        return _metavar(name, inner[0])
    if get_origin(annotation) is Literal:
        return None
    if get_origin(annotation) is dict:
        return _PAIRS[name][0]
    return {int: "N", float: "X"}.get(annotation, "TEXT")


def _help(info: Any, own: Any = None) -> str:
    """The description with the default; a command's own default takes the place of what the words say of it."""
    default = info.get_default(call_default_factory=True) if own is None else own
    text = str(info.description)
    if own is not None:
        text = text.partition(";")[0].removesuffix(".") + "."
    if isinstance(default, tuple):
        default = " ".join(default)
    if default in (None, "", {}) or isinstance(default, bool):
        return text
    return f"{text}  [{default:g}]" if isinstance(default, float) else f"{text}  [{default}]"
