"""Settings from defaults, a YAML file and the command line, in that order. Unknown keys are errors that name the nearest
known one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from luthier.config.elsewhere import nearest_setting, needless, setting_for
from luthier.config.run import FLAGS, VERSION, RunConfig, fields, flag_of
from luthier.core.errors import InputError, unknown


def resolve(*layers: Mapping[str, Any], where: object = None) -> RunConfig:
    """One RunConfig from layers of settings, later ones winning; keys may be nested or dotted.

    Raises InputError for an unknown key (with the nearest name), a value of the wrong type, or a
    version newer than this program.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        _check_version(layer.get("version"), where)  # first: a newer one may have other settings
        for key, value in _dotted(layer).items():
            _check_key(key, where)
            *path, last = key.split(".")
            node = merged
            for part in path:
                node = node.setdefault(part, {})
            node[last] = value
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise _invalid(error, where) from None


def _check_version(version: object, where: object) -> None:
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"settings of version {version}, but this Luthier knows version {VERSION}",
            where=where, fix="install a newer Luthier",
        )  # fmt: skip


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file. Raises InputError with the line when it is not YAML or not a mapping."""
    from luthier.core.foreign.yaml_file import read

    value = read(path, "settings")[1]
    if not isinstance(value, dict):
        raise InputError("settings must be names with values", where=path, fix="such as `model: smollm2-135m`")
    return value


def write_yaml(config: RunConfig) -> str:
    """The complete settings as YAML, which `resolve` reads back to an equal RunConfig."""
    import yaml

    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _dotted(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested sections; a mapping that is itself a setting (data.columns) stays whole, and `data: FILE` is its path."""
    known = fields()
    out: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if name == "data" and isinstance(item, (str, list)):
            out["data.path"] = [item] if isinstance(item, str) else item
        elif isinstance(item, Mapping) and name not in known:
            out |= _dotted(item, f"{name}.")
        else:
            out[name] = item
    return out


def _invalid(error: ValidationError, where: object) -> InputError:
    """The first fault that pydantic found: the setting, what is asked of it, what it was given."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "literal_error":
        known = _choices(fields()[name].annotation)
        return unknown(name.rpartition(".")[2], str(first["input"]), known, where=where or flag_of(name))
    wanted = first["msg"].removeprefix("Input ").partition(", unable")[0]
    return InputError(f"{wanted}, not {first['input']!r}", where=f"{where}: {name}" if where else flag_of(name))


def _choices(annotation: Any) -> list[str]:
    """The values of a Literal, or of one that may be None."""
    return [value for part in get_args(annotation) for value in (get_args(part) or [part]) if isinstance(value, str)]


def about(setting: str) -> str:
    """What a setting is, in its first sentence."""
    said = fields()[setting].description or ""
    return said.partition(". ")[0].rstrip(".")


def _check_key(key: str, where: object) -> None:
    known = fields()
    if key in known:
        return
    if any(name.startswith(f"{key}.") for name in known):
        short = next((f" (`--{key}` is {name})" for name, flag in FLAGS.items() if flag == key), "")
        raise InputError(
            f"'{key}' is a section, not a value", where=where, fix=f"write its settings below `{key}:`{short}"
        )
    tails = {name.rsplit(".", 1)[-1]: name for name in known}
    if said := needless(key):
        raise InputError(f"unknown setting '{key}'", where=where, fix=f"leave it out: {said}")
    if (setting := setting_for(key)) and key.rsplit(".", 1)[-1] not in tails:
        raise InputError(f"unknown setting '{key}'", where=where, fix=f"here it is {setting}: {about(setting)}")
    close = nearest_setting(key, {name: name for name in known})
    guess = tails.get(key.rsplit(".", 1)[-1]) or (close[0] if close else None)
    raise InputError(
        f"unknown setting '{key}'", where=where,
        fix=f"did you mean '{guess}'?" if guess else "see `luthier train --help`",
    )  # fmt: skip
