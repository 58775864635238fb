"""What a PEFT adapter says of itself in adapter_config.json and in the header of its tensors, which are read by `peft`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.foreign.forms import shown
from luthier.model.folder.folder import ADAPTER
from luthier.model.folder.refused_settings import refuse
from luthier.model.folder.safetensors_header import tensors
from luthier.model.folder.settings_files import read_object

CONFIG, WEIGHTS = "adapter_config.json", ADAPTER
PREFIX = "base_model.model."
EMBEDDINGS, HEADS = (
    ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings"),
    ("lm_head", "embed_out", "decoder"),
)
LONGEST = 1000  # characters of a path or a name


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, alone or beside a model."""
    return (folder / CONFIG).is_file()


def base_name(folder: Path) -> str | None:
    """What the adapter in `folder` calls its base: a path or a hub name; None where it does not say. Raises InputError for what is
    neither."""
    name = settings(folder).get("base_model_name_or_path")
    if name is None or name == "":
        return None
    if not isinstance(name, str) or len(name) > LONGEST or not name.isprintable():
        raise InputError(
            f"'base_model_name_or_path' is {shown(name)}, not a path or a name",
            where=folder / CONFIG,
            fix="give it with --base",
        )
    return name


def settings(folder: Path) -> dict[str, Any]:
    """All of it. Raises InputError for a folder without one, for one that cannot be read, and for one that brings code."""
    if not is_adapter(folder):
        raise InputError(f"no {CONFIG} here", where=folder, fix="give a folder with an adapter in PEFT's format")
    said = read_object(folder / CONFIG)
    refuse(said, folder / CONFIG)
    return said


def embedding_rows(folder: Path) -> int | None:
    """How many rows the embedding or head has that the adapter in `folder` brings; None where it brings none."""
    if not (folder / WEIGHTS).exists():
        return None
    found = (tensor for name, tensor in tensors(folder / WEIGHTS).items() if of_vocabulary(name.removeprefix(PREFIX)))
    return next((tensor.shape[0] for tensor in found if len(tensor.shape) == 2), None)


def of_vocabulary(name: str) -> bool:
    """Whether a tensor is the weight of an embedding or of a vocabulary head, by what architectures call those."""
    return name.endswith(".weight") and name.removesuffix(".weight").rpartition(".")[2] in (*EMBEDDINGS, *HEADS)
