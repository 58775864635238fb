"""The base below an adapter: found where its run or its adapter_config.json says, after both were moved, or as --base gives it.

A base that is found in another place than the one that was named must have the weights that the run was trained on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Required

from pydantic import ValidationError
from typing_extensions import TypedDict

from luthier.config.data import TextConfig
from luthier.config.model import QuantConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.foreign.forms import require_form
from luthier.core.storage.files import sha256
from luthier.model.adapt import adapter_config
from luthier.model.hub import sources
from luthier.model.hub.wheels import EMBEDDED
from luthier.runs.folder import RunFolder
from luthier.runs.lineage import LINEAGE


@dataclass(frozen=True)
class RecordedBase:
    """What a run notes of the model it started from in lineage.json, for when that is not where it was.

    name      by which the base was opened: an embedded name, a hub name, a path
    kind      of the source (see `sources`)
    folder    where it was, from the run's folder
    template  that 'auto' meant, where that was a run with another than its model's own
    template_kwargs  values for it
    quant     of the base below the adapter it went on with
    """

    name: str
    kind: str
    folder: str
    template: str = "auto"
    quant: QuantConfig | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


class _RecordedBaseForm(TypedDict, total=False):
    """`RecordedBase` in lineage.json."""

    name: Required[str]
    kind: Required[str]
    folder: Required[str]
    template: str
    quant: dict[str, Any] | None
    template_kwargs: dict[str, Any]


def base_facts(source: sources.Source, text: TextConfig, quant: QuantConfig | None, run: Path) -> dict[str, Any]:
    """`RecordedBase` of a run as lineage.json holds it."""
    name = source.name if source.kind in ("embedded", "hub") else str(source.folder)
    facts: dict[str, Any] = {
        "name": name, "kind": source.kind, "folder": os.path.relpath(source.folder.resolve(), run.resolve()), "template": text.template,
    }  # fmt: skip
    facts |= {"template_kwargs": text.template_kwargs} if text.template_kwargs else {}
    return facts | ({"quant": quant.model_dump(mode="json")} if quant else {})


def recorded_base(run: Path) -> RecordedBase | None:
    """What a run noted of the model it started from; None for runs of older versions."""
    facts = _lineage(run).get("start")
    if facts is None:
        return None
    where, fix = run / LINEAGE, "put it back from a copy, or name the base with --base"
    require_form(_RecordedBaseForm, facts, where=where, fix=fix)
    known = {name: value for name, value in facts.items() if name in _RecordedBaseForm.__annotations__}
    try:
        return RecordedBase(**known | {"quant": QuantConfig(**known["quant"]) if known.get("quant") else None})
    except ValidationError:
        raise InputError("'start.quant' is not a setting of a quantized base", where=where, fix=fix) from None


def base_of_run(run: Path, model: str, base: str | None) -> sources.Source | None:
    """The base of a run's adapter: `base`, or where a moved one is found; None where `model`, as the run named it, is here.

    Raises InputError where nothing is found, and where what is found has other weights than the run was trained on.
    """
    if base is not None:
        source = sources.resolve(base)
        if not _same_weights(source, run):
            log.warn(f"--base {base} does not have the weights that {run} was trained on")
        return source
    known = recorded_base(run)
    if _is_here(model) or (known is None and not _looks_like_a_path(model)):
        return None
    for place in _candidate_folders(
        run, [known.folder] if known else [], [model, known.name if known else "", _named_base(run / "adapter")]
    ):
        source = sources.resolve(str(place))
        if _same_weights(source, run):
            return source
    if known and known.kind in ("embedded", "hub"):
        return sources.resolve(known.name)
    raise _missing(model, run)


def base_of_adapter(folder: Path, base: str | None) -> sources.Source:
    """The base of an adapter by itself: `base`, the model in the same folder, or the one it names, where that is on this disk.

    Raises InputError where it is not: nothing is fetched that nobody asked for.
    """
    if base is not None:
        return sources.resolve(base)
    if (folder / "config.json").is_file():
        log.note(f"{folder}: a model with an adapter; both are read")
        return sources.resolve(str(folder))
    name = adapter_config.base_name(folder)
    if name is None:
        raise InputError(
            "the adapter does not name its base model", where=folder / adapter_config.CONFIG, fix="give it with --base"
        )
    if _is_here(name):
        return sources.resolve(name)
    if place := next(iter(_candidate_folders(folder, [name], [name])), None):
        return sources.resolve(str(place))
    try:
        return sources.resolve(name, download=False)
    except InputError:
        raise _missing(name, folder) from None


def _missing(name: str, where: Path) -> InputError:
    fix = "give it with --base: a folder, a .gguf file" + (
        "" if _looks_like_a_path(name) else f", or --base {name} to fetch it"
    )
    return InputError(f"its base model '{name}' is not here", where=where, fix=fix)


def _candidate_folders(folder: Path, beside: list[str], named: list[str]) -> list[Path]:
    """Folders that may be the base of what lies in `folder`: by a path from there, or from a folder above, as a project's
    own paths are written."""
    above = [folder.resolve(), *folder.resolve().parents]
    found = [above[0] / path for path in beside if path]
    found += [parent / name for name in named if name and not Path(name).is_absolute() for parent in above]
    return [path for path in dict.fromkeys(found) if (path / "config.json").is_file()]


def _is_here(name: str) -> bool:
    return name in EMBEDDED or Path(name).expanduser().exists()


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") != 1


def _named_base(adapter: Path) -> str:
    return adapter_config.base_name(adapter) or "" if adapter_config.is_adapter(adapter) else ""


def _same_weights(source: sources.Source, run: Path) -> bool:
    """Whether the files of weights are those that the run was trained on."""
    noted = _lineage(run).get("inputs", {}).get("model", {})
    wanted = {digest for name, digest in noted.items() if name.endswith(".safetensors") and "/" not in name}
    found = {sha256(path) for path in source.folder.glob("*.safetensors") if path.name != adapter_config.WEIGHTS}
    return not wanted or wanted == found


def _lineage(run: Path) -> dict[str, Any]:
    return RunFolder(run).lineage
