"""Settings of a model's folder that name a file, fetch something or bring code. Each is refused, or left out of what transformers gets.

The list was made by reading where transformers 5.24 opens, imports or fetches what a configuration names. It is a second fence:
transformers gets copies of the files that were checked (`copies`), and the weights as tensors that were read here (`load`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.foreign.forms import shown

_TAKE_A_KNOWN_MODEL = "take a model that transformers knows"
_TAKE_IT_OUT = "take it out of the file"
# Key, anywhere in a file of settings -> what it asks for, and the fix. A key that is set to nothing asks for nothing.
REFUSED = {
    # Code in the folder, or in another of the hub, imported as a class or as a way to generate.
    "auto_map": ("run its own code", _TAKE_A_KNOWN_MODEL),
    "custom_pipelines": ("run its own code", _TAKE_A_KNOWN_MODEL),
    "custom_generate": ("run its own code", _TAKE_A_KNOWN_MODEL),
    # Kernels: compiled code of the hub.
    "use_kernels": ("fetch a kernel", _TAKE_IT_OUT),
    "kernel_config": ("fetch a kernel", _TAKE_IT_OUT),
    "allow_all_kernels": ("fetch a kernel", _TAKE_IT_OUT),
    # from_pretrained reads its weights from there: a pickle too, as adapter_model.bin.
    "transformers_weights": ("have other files read", _TAKE_IT_OUT),
    # The configuration and the tokenizer are read from there instead.
    "configuration_files": ("have other files read", _TAKE_IT_OUT),
    "gguf_file": ("have other files read", _TAKE_IT_OUT),
    # Positional arguments of the tokenizer's class: its files come first.
    "init_inputs": ("have other files read", _TAKE_IT_OUT),
    # Models within the model, which are looked for on the hub, or built by the library timm from a name or an address.
    "backbone": ("fetch another model", _TAKE_IT_OUT),
    "use_pretrained_backbone": ("fetch another model", _TAKE_IT_OUT),
    # Classes of transformers are replaced for the whole process.
    "fusion_config": ("change transformers' own code", _TAKE_IT_OUT),
    "distributed_config": ("change transformers' own code", _TAKE_IT_OUT),
    # Settings of analysers that tokenizers written in Python start: dictionaries and configuration files by path.
    "mecab_kwargs": ("have other files read", _TAKE_IT_OUT),
    "sudachi_kwargs": ("have other files read", _TAKE_IT_OUT),
    "jumanpp_kwargs": ("have other files read", _TAKE_IT_OUT),
    "sp_model_kwargs": ("have other files read", _TAKE_IT_OUT),
}  # fmt: skip
QUANTIZED = ("quantization_config", "compression_config")
# Where tokens stand, and what each says of itself. The tokenizers library prints any other key on standard output, whatever it is.
TOKENS = ("added_tokens_decoder", "extra_special_tokens", "additional_special_tokens")
TOKEN = ("__type", "content", "single_word", "lstrip", "rstrip", "normalized", "special")
_KERNEL = re.compile(r"_?(attn|experts)_implementation.*")
# What tokenizers' classes take a file under. Programs leave paths of their own disk here: they are not followed, and say nothing.
_PATH_KEY = re.compile(
    r"(.*_)?(file|files|path|paths|dir|folder)|vocab|merges|rewriting_rules|tokenizer_object|(source|target)_spm"
)


def refuse(settings: object, where: Path) -> None:
    """Walk a file of settings and raise InputError at one by which a model brings code, or has something else read or fetched."""
    if isinstance(settings, list):
        for item in settings:
            refuse(item, where)
    if not isinstance(settings, Mapping):
        return
    for key, value in settings.items():
        if value and key in REFUSED:
            wish, fix = REFUSED[key]
            raise InputError(f"the model wants to {wish} ('{key}'), which is refused", where=where, fix=fix)
        if _KERNEL.fullmatch(key) and "/" in json.dumps(value):
            raise InputError(
                f"the model wants to fetch a kernel ('{key}'), which is refused", where=where, fix=_TAKE_IT_OUT
            )
        if value and key in QUANTIZED:
            raise InputError(
                f"these weights are already quantized ('{key}')", where=where,
                fix="take the full-precision model; --tune qlora quantizes it",
            )  # fmt: skip
        refuse(value, where)


def without_paths(settings: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """A tokenizer's settings without those that name a file: the files have fixed names. Raises InputError for a list of
    tokenizers by version that has another than tokenizer.json in it: which one counts would depend on who reads it."""
    listed = settings.get("fast_tokenizer_files")
    if listed and listed != ["tokenizer.json"]:
        raise InputError(
            f"'fast_tokenizer_files' is {shown(listed)}; Luthier reads tokenizer.json", where=where,
            fix="save the tokenizer again with transformers",
        )  # fmt: skip
    return {key: value for key, value in settings.items() if not _PATH_KEY.fullmatch(key)}


def known_tokens(value: Any, within: bool = False) -> Any:
    """Settings of a tokenizer, with what the library knows of each token: of those that say `__type`, that stand `within` this
    object or list, or in one of TOKENS."""
    if isinstance(value, list):
        return [_token(item, within) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {key: known_tokens(below, True) if key in TOKENS else _token(below, within) for key, below in value.items()}


def _token(value: Any, within: bool) -> Any:
    """A value, which is a token `within` others, or else when it says so."""
    if isinstance(value, Mapping) and (within or "__type" in value):
        return {key: value[key] for key in TOKEN if key in value}
    return known_tokens(value)
