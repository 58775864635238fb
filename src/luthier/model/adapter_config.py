"""What a PEFT adapter says of itself in adapter_config.json; its tensors are read by `peft`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.files import read_json, refuse_pointer
from luthier.model.folders import ADAPTER

CONFIG, WEIGHTS = "adapter_config.json", ADAPTER


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, alone or beside a model."""
    return (folder / CONFIG).is_file()


def base_name(folder: Path) -> str | None:
    """What the adapter in `folder` calls its base: a path or a hub name; None where it does not say."""
    name = settings(folder).get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def settings(folder: Path) -> dict[str, Any]:
    """All of it. Raises InputError for a folder without one, and for one that cannot be read."""
    if not is_adapter(folder):
        raise InputError(f"no {CONFIG} here", where=folder, mend="give a folder with an adapter in PEFT's format")
    refuse_pointer(folder / CONFIG)
    try:
        said = read_json(folder / CONFIG)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON: {error}", where=folder / CONFIG, mend="copy it again") from None
    if not isinstance(said, dict):
        raise InputError("not a JSON object", where=folder / CONFIG, mend="copy it again")
    return said
