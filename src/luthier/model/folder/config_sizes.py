"""Counts and sizes of config.json, held against the tensors that are there before anything is made of them.

A configuration of a few bytes can ask for a million layers or labels: transformers would make them, in lists and modules, before
it looks at the weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.foreign.forms import shown
from luthier.model.folder.safetensors_header import Tensor

FIX = "take the config.json that was saved with the weights"
LAYERS = re.compile(r"(num|n)_(\w+_)?(layers?|blocks)|(encoder|decoder)_layers|layers|depth")
LABELS = ("num_labels", "id2label", "label2id", "problem_labels")
# Each of these is some tensor's dimension, or a part of one.
DIMENSIONS = re.compile(
    r"(num|n)_(\w+_)?(heads?|experts|groups|embd)|(hidden|intermediate|vocab|embedding|ffn_hidden)_size|(head|ffn|embed)_dim|n_inner"
    r"|d_(model|ff|kv|inner)|\w+_(intermediate|hidden)_size|num_experts_per_tok"
)
POSITIVE = re.compile(
    r"max_position_embeddings|original_max_position_embeddings|n_positions|n_ctx|max_seq(uence)?_len(gth)?"
)
MOST_LAYERS, MOST_LABELS, MOST_POSITIONS = 10_000, 1_000_000, 1 << 31
DTYPES = ("float64", "float32", "float16", "bfloat16", "float", "half", "double", "auto")


def check_constants(config: Mapping[str, Any], where: Path) -> None:
    """Raise InputError for what no configuration says, whatever its weights are: a type, a count that is no whole number."""
    for key, value in _numbers(config):
        if LAYERS.fullmatch(key) and isinstance(value, (int, float, str)):
            _check_count(key, value, MOST_LAYERS, "than any model has", where)
        elif POSITIVE.fullmatch(key):
            _check_count(key, value, MOST_POSITIONS, "than any model reads", where)
        elif DIMENSIONS.fullmatch(key) and isinstance(value, (int, float, str)):
            _check_count(key, value, MOST_POSITIONS, "than any model has", where)
        elif key in LABELS:
            _check_count(
                key, len(value) if isinstance(value, Mapping) else value, MOST_LABELS, "than any model has", where
            )
        elif key in ("dtype", "torch_dtype") and (
            not isinstance(value, str) or value.removeprefix("torch.") not in DTYPES
        ):
            raise InputError(f"'{key}' is {shown(value)}, not a type of weights", where=where, fix=FIX)
        elif key in ("model_type", "tokenizer_class", "hidden_act") and not isinstance(value, str):
            raise InputError(f"'{key}' is {shown(value)}, not a text", where=where, fix=FIX)
        elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise InputError(f"'{key}' is a number of more than 64 bits", where=where, fix=FIX)


def check_against_tensors(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: Path) -> None:
    """Raise InputError where layers are more than tensors, or labels, heads, experts or sizes more than the largest tensor has
    numbers along one side."""
    widest = max((max(tensor.shape, default=1) for tensor in tensors.values()), default=0)
    for key, value in _numbers(config):
        if LAYERS.fullmatch(key) and isinstance(value, int):
            _check_count(key, value, len(tensors), f"than the {len(tensors):,} tensors can make", where)
        elif DIMENSIONS.fullmatch(key) and isinstance(value, int):
            _check_count(key, value, widest, f"than any tensor is wide: the widest has {widest:,}", where)
        elif key in LABELS:
            count = len(value) if isinstance(value, Mapping) else value
            _check_count(key, count, max(widest, 1000), f"than any tensor is wide: the widest has {widest:,}", where)


def _numbers(value: object) -> Iterator[tuple[str, Any]]:
    """Keys and values of a configuration and of those within it, which are set."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if item is not None:
                yield key, item
            if not key.endswith("2label") and key != "label2id":
                yield from _numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item) if isinstance(item, (Mapping, list)) else ()


def _check_count(key: str, value: object, most: int, than: str, where: Path) -> None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"'{key}' is {shown(value)}, not a whole number from 0 on", where=where, fix=FIX)
    if value > most:
        raise InputError(f"'{key}' is {value:,}, more {than}", where=where, fix=FIX)
