"""What the folder of a model must be. What is refused is refused unread: pickled weights, and folders that need code of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from luthier.core.errors import InputError
from luthier.model.folder import copies
from luthier.model.folder.safetensors_header import Tensor, tensors
from luthier.model.folder.settings_files import COPY_AGAIN, read_object

ADAPTER = "adapter_model.safetensors"  # of an adapter beside the model
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Beside a sentence encoder: which modules it has, how it pools, how long a text may be.
ENCODER = ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".onnx")


def check_folder(folder: Path) -> None:
    """Raise InputError unless `folder` is a model that can be loaded without running anything from it.

    Needed: config.json, and safetensors that are whole. Refused: Git LFS pointers, pickled weights without safetensors
    (beside safetensors they are never read), settings that bring code or name other files (see `refused`), weight lists that
    point outside the folder, files that are pipes or devices or of no plausible size, and weights that are already quantized.
    """
    if not (folder / copies.CONFIG).exists():
        if (folder / "adapter_config.json").is_file():
            raise InputError("an adapter, not a whole model", where=folder, fix="give its base model")
        raise InputError("no config.json", where=folder, fix="give the folder that holds the model")
    for name in copies.names(folder):
        if name in copies.SETTINGS:
            copies.settings(folder, name)
        else:
            copies.check_file(folder / name, name)
    files = weight_files(folder)
    if not files:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
        if pickled:
            raise InputError(
                f"only pickled weights ({pickled[0]}), which can run code when read and are refused", where=folder,
                fix="convert them to safetensors where you trust them",
            )  # fmt: skip
        raise InputError("no *.safetensors weights", where=folder, fix="give the folder that holds the model")
    weight_tensors(files)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the model: model.safetensors, those of the index, or the only one. Raises InputError for an
    index that names what is no safetensors file of this folder, and where it is not clear which files are meant."""
    lone, index = folder / WEIGHTS, folder / INDEX
    if not index.exists():
        found = sorted(path for path in folder.glob("*.safetensors") if path.name != ADAPTER)
        if len(found) > 1 and lone not in found:
            raise InputError(
                f"{len(found)} files of weights and no {INDEX}",
                where=folder,
                fix="copy the folder again, with its index",
            )
        return [lone] if lone in found else found
    listed = _index(index)
    if lone.exists() and set(listed.values()) != {WEIGHTS}:
        raise InputError(
            f"{WEIGHTS} and an index of other files are both there",
            where=folder,
            fix="remove those that are not meant",
        )
    return [folder / name for name in sorted(set(listed.values()))]


def _index(index: Path) -> dict[str, str]:
    """Tensor -> file, as the index says."""
    listed = read_object(index, unique=True).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise InputError("no weight_map", where=index, fix=COPY_AGAIN)
    for name in sorted({str(name) for name in listed.values()}):
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise InputError(f"'{name[:200]}' is not a safetensors file of this folder", where=index, fix=COPY_AGAIN)
        if not (index.parent / name).exists():
            raise InputError(f"'{name}' is missing", where=index, fix=COPY_AGAIN)
    return {str(tensor): str(name) for tensor, name in listed.items()}


def weight_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of these files of one folder by name. Raises InputError for a file that is not whole, for a name that is in two
    of them, and for one that the index has in a file where it is not. Of no files there are none."""
    found: dict[str, Tensor] = {}
    places: dict[str, str] = {}
    for file in files:
        for name, tensor in tensors(file).items():
            if name in found:
                raise InputError(f"'{name}' is in {places[name]} too", where=file, fix=COPY_AGAIN)
            found[name], places[name] = tensor, file.name
    index = files[0].parent / INDEX if files else None
    if index and index.exists():
        for name, file_name in _index(index).items():
            if places.get(name) != file_name:
                raise InputError(f"'{name}' is not in {file_name}, where it should be", where=index, fix=COPY_AGAIN)
    return found


def read_files(folder: Path) -> list[str]:
    """Every file of `folder` that is read, by its path in it: what a model says is decided by these."""
    files = [file.name for file in weight_files(folder)]
    index = [INDEX] if (folder / INDEX).exists() else []
    encoder = [name for name in ENCODER if (folder / name).is_file()]
    return sorted(copies.names(folder) + files + index + encoder)


def parameters(folder: Path) -> int:
    """How many weights the files of a model hold."""
    return sum(tensor.size for tensor in weight_tensors(weight_files(folder)).values())
