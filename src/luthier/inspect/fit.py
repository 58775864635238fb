"""What of a model fits into memory: how much tuning it takes by tune kind and row length, and serving it, counted on shapes.

No weight is read: a folder with a config.json alone is enough. The sums are those that `train` makes before it loads a model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from luthier.config.run import RunConfig
from luthier.core.errors import InputError
from luthier.evals.forgetting import GENERAL_ANSWERS, compared_tokens
from luthier.inspect.layer_sizes import ModelSize, model_size
from luthier.model import load, memory
from luthier.model.activations import Pass
from luthier.model.adapt import adapter_config, tune
from luthier.model.estimate import Memory, Ready, ready
from luthier.model.folder import limits
from luthier.model.folder.configuration import load_config
from luthier.model.gguf import convert
from luthier.model.hub import sources
from luthier.runs.locate import resolve_model, run_of

CONTEXTS = (512, 2048, 8192)  # row lengths that are shown where nobody names one
KINDS: dict[str, tuple[str, Literal["nf4", "int8"]]] = {
    "full": ("full", "nf4"), "head": ("head", "nf4"), "lora": ("lora", "nf4"), "qlora nf4": ("qlora", "nf4"),
    "qlora int8": ("qlora", "int8"),
}  # fmt: skip
_UNITS = {"": 1e9, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "mib": 2**20, "gib": 2**30, "tib": 2**40}


@dataclass(frozen=True)
class Room:
    """Memory that there is: `bytes` free of a device, and what it is called."""

    device: torch.device
    bytes: int
    name: str


@dataclass(frozen=True)
class Cell:
    """What rows of so many `tokens` take: `needed` bytes, with blocks computed again where they would not fit else. `loading` says
    that nothing takes more than reading the weights whole."""

    tokens: int
    needed: int
    fits: bool
    recompute: bool
    loading: bool


@dataclass(frozen=True)
class Row:
    """One tune kind: weights that learn, bytes that the weights are stored in, and a cell for each row length."""

    tune: str
    trainable: int
    stored: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Fit:
    """All that is shown. `serving` has, by row length, the bytes of answering `batch` prompts at once, and whether they fit."""

    model: str
    size: ModelSize
    dtype: str
    room: Room
    batch: int
    rows: tuple[Row, ...]
    serving: tuple[Cell, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        size = self.size
        layers = [
            vars(one) | {"weights": one.weights, "adapter": one.adapter, "share": one.share} for one in size.layers
        ]
        return {
            "model": self.model, "parameters": size.parameters, "active": size.active, "tied": size.tied,
            "embedding": size.embedding, "head": size.head, "others": size.others, "adapters": size.adapters,
            "layers": layers, "dtype": self.dtype, "device": self.room.device.type, "free_bytes": self.room.bytes, "room": self.room.name,
            "batch": self.batch,
            "tune": [vars(row) | {"cells": [vars(cell) for cell in row.cells]} for row in self.rows],
            "serve": [vars(cell) for cell in self.serving],
        }  # fmt: skip


def fit(name: str, config: RunConfig, room: Room, contexts: Sequence[int], batch: int) -> Fit:
    """How much the model `name` takes with the settings of `config`, for rows of so many tokens (by default some lengths that it
    reads), `batch` of them in one pass. Raises InputError for what is no model, for a row longer than its context and for settings
    that its layers do not take."""
    shape = configuration(name)
    elsewhere = room.device.type == "cuda" and not torch.cuda.is_available()  # a card that is not here
    dtype = _dtype_of_gpu(config.dtype) if elsewhere else load.pick_dtype(config.dtype, room.device)
    lengths = _lengths(contexts, limits.context(shape))
    made = partial(
        ready, shape, lora=config.lora, dtype=dtype, optimizer=config.train.optimizer, device=room.device, process=0
    )
    size, rows = None, []
    for title, (kind, bits) in KINDS.items():
        tuned = partial(made, tune_kind=kind, quant=config.quant.model_copy(update={"kind": bits}))
        if tune.is_adapter(kind) and size and not size.layers:  # no layer that takes one
            continue
        plain = tuned()
        if kind == "full":
            serving = tuple(_served(plain, room, length, batch) for length in lengths)
        if kind in ("full", "lora"):
            size = model_size(plain.model)
        rows.append(Row(title, plain.tuned.trainable, plain.stored, tuple(_cells(plain, tuned, room, lengths, batch))))
    assert size is not None
    return Fit(name, size, str(dtype).removeprefix("torch."), room, batch, tuple(rows), serving)


def _cells(plain: Ready, tuned: Any, room: Room, lengths: Sequence[int], batch: int) -> list[Cell]:
    again: Ready | None = None
    out = []
    for length in lengths:
        work = Pass.row(length, _dtype(plain), room.device, batch)
        found, recompute = _memory(plain, work), False
        if found.needed > room.bytes:
            again = again or tuned(recompute=True)
            smaller = _memory(again, work)
            if smaller.needed < found.needed:
                found, recompute = smaller, True
        out.append(Cell(length, found.needed, found.needed <= room.bytes, recompute, found.needed == found.loading))
    return out


def _memory(made: Ready, work: Pass) -> Memory:
    """As of a run that measures what it measures where nobody says."""
    return made.training(work, GENERAL_ANSWERS, compared_tokens())


def _served(plain: Ready, room: Room, length: int, batch: int) -> Cell:
    needed = plain.serving((batch, length))
    return Cell(length, needed, needed <= room.bytes, False, False)


def _dtype(made: Ready) -> torch.dtype:
    return next(iter(made.model.parameters())).dtype


def _dtype_of_gpu(name: str) -> torch.dtype:
    """As `pick_dtype` answers for a GPU that multiplies bfloat16."""
    return torch.bfloat16 if name == "auto" else load.pick_dtype(name, torch.device("cuda"))


def _lengths(asked: Sequence[int], most: int | None) -> tuple[int, ...]:
    if too_long := [length for length in asked if most is not None and length > most]:
        raise InputError(
            f"rows of {too_long[0]:,} tokens are longer than the model's context of {most:,}", where="--context",
            fix=f"give {most} or less",
        )  # fmt: skip
    shown = [length for length in CONTEXTS if most is None or length <= most]
    return tuple(dict.fromkeys(asked or shown or [most or CONTEXTS[0]]))


def configuration(name: str) -> Any:
    """The configuration of a model: a name of `luthier models`, a folder (its weights need not be there), a GGUF file, a run or an
    adapter (the base's), or a hub name that is on this machine already: nothing large is fetched to be told its size."""
    path = Path(name).expanduser()
    if name.lower().endswith(".gguf") and path.is_file() and (found := convert.read_config(path)) is not None:
        return found
    if (path / "config.json").is_file() and not run_of(path) and not adapter_config.is_adapter(path):
        return load_config(path)
    if not path.exists() and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        return load_config(sources.resolve(name, download=False).folder)
    return load_config(resolve_model(name).source.folder)


def room(device: str, gpu: str | None, size: str | None) -> Room:
    """The memory of a GPU of that size, of a machine without one, or what is free of this one."""
    if gpu and size:
        raise InputError("a GPU and a machine without one are two questions", where="--memory", fix="leave one out")
    if gpu:
        return Room(torch.device("cuda"), bytes_of(gpu, "--gpu"), f"a GPU with {gpu}")
    if size:
        taken = psutil.Process().memory_info().rss
        return Room(torch.device("cpu"), bytes_of(size, "--memory") - taken, f"a processor with {size}")
    here = load.pick_device(device)
    return Room(here, memory.available(here), f"this machine's {'processor' if here.type == 'cpu' else 'GPU'}")


def bytes_of(text: str, where: str) -> int:
    """24GB, 24 GiB, 500MB or 24 (GB) in bytes. Raises InputError for anything else."""
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([kmgt]i?b|)\s*", text.lower())
    if not found or found[2] not in _UNITS or not float(found[1]):
        raise InputError(f"'{text}' is no size of a memory", where=where, fix="such as 24GB")
    return int(float(found[1]) * _UNITS[found[2]])
