"""What the folder of a model must be. What is refused is refused unread: pickled weights, and folders that need code of their own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.files import read_json, refuse_pointer

ADAPTER = "adapter_model.safetensors"  # of an adapter beside the model
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_CODE_KEYS = ("auto_map", "custom_pipelines")
_KERNEL_KEY = re.compile(r"_?attn_implementation.*|_?experts_implementation.*|use_kernels|kernel_config")


def check_folder(folder: Path) -> None:
    """Raise InputError unless `folder` is a model that can be loaded without running anything from it.

    Needed: config.json, and safetensors that are whole. Refused: Git LFS pointers, pickled weights without safetensors
    (beside safetensors they are never read), `auto_map` and hub kernels in a configuration (code of the
    model's own), weight lists that point outside the folder, and weights that are already quantized.
    """
    for path in sorted(folder.glob("*")):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt"):
            refuse_pointer(path)
    config = _read_config(folder / "config.json", folder)
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file():
            _refuse_code(_read_config(folder / name, folder), folder / name)
    if "quantization_config" in config:
        raise InputError(
            "these weights are already quantized", where=folder / "config.json",
            mend="take the full-precision model; --tune qlora quantizes it",
        )  # fmt: skip
    files = weight_files(folder)
    if not files:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
        if pickled:
            raise InputError(
                f"only pickled weights ({pickled[0]}), which can run code when read and are refused", where=folder,
                mend="convert them to safetensors where you trust them",
            )  # fmt: skip
        raise InputError("no *.safetensors weights", where=folder, mend="give the folder that holds the model")
    for file in files:
        _check_weights(file)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the model: those of the index when there is one, in order of name."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(path for path in folder.glob("*.safetensors") if path.name != ADAPTER)
    listed = _read_config(index, folder).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise InputError("no weight_map", where=index, mend="copy the folder again")
    names = sorted({str(name) for name in listed.values()})
    for name in names:
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise InputError(f"'{name}' is not a safetensors file of this folder", where=index)
        if not (folder / name).is_file():
            raise InputError(f"'{name}' is missing", where=index, mend="copy the folder again")
    return [folder / name for name in names]


def _read_config(path: Path, folder: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except FileNotFoundError:
        if (folder / "adapter_config.json").is_file():
            raise InputError("an adapter, not a whole model", where=folder, mend="give the model below it") from None
        raise InputError("no config.json", where=folder, mend="give the folder that holds the model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON: {error}", where=path, mend="copy the folder again") from None
    if not isinstance(value, dict):
        raise InputError("not a JSON object", where=path)
    return value


def _refuse_code(value: object, where: Path) -> None:
    """Walk a configuration and refuse the settings by which a model brings code."""
    if isinstance(value, list):
        for item in value:
            _refuse_code(item, where)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key in _CODE_KEYS and item:
            raise InputError(
                f"the model wants to run its own code ('{key}'), which is refused", where=where,
                mend="take a model that transformers knows",
            )  # fmt: skip
        if _KERNEL_KEY.fullmatch(key) and ("/" in json.dumps(item) or item is True):
            raise InputError(f"the model wants to fetch a kernel ('{key}'), which is refused", where=where)
        _refuse_code(item, where)


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as weights:
            weights.keys()
    except (OSError, SafetensorError) as error:
        raise InputError(f"truncated or broken weights: {error}", where=path, mend="copy the file again") from None


def parameters(folder: Path) -> int:
    """How many weights the files of a model hold."""
    from math import prod

    from safetensors import safe_open

    count = 0
    for file in weight_files(folder):
        with safe_open(file, framework="numpy") as weights:
            count += sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count
