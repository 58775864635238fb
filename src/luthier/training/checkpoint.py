"""Checkpoints: safetensors and JSON, whole or absent, checked by sha256 before they are believed.

    checkpoints/step-00000050/  weights.safetensors  optimizer.safetensors  state.json  manifest.json

A checkpoint is written to a temporary folder, flushed and renamed; it counts only when its manifest
lists every file with the right sha256. A damaged one is set aside, as damaged-step-00000050, for the one before it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from luthier.core import log
from luthier.core.ranks import here
from luthier.core.storage.files import read_json, sha256, write_folder, write_json
from luthier.core.storage.opening import telling

Tensors = Mapping[str, torch.Tensor]
FILES = ("weights.safetensors", "optimizer.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: tensors by name, and plain values."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    state: dict[str, Any]


def save(
    folder: Path, step: int, weights: Tensors, optimizer: Tensors, state: Mapping[str, Any], keep: int
) -> Path:  # fmt: skip
    """Write the checkpoint of `step` and remove all but the newest `keep`. Raises DiskFull when it is.

    Of several ranks the first one writes, and the others wait until it has.
    """
    path = folder / f"step-{step:08d}"
    if here().first:
        write(path, weights, optimizer, {"step": step, **state})
        others = [old for old in _all(folder) if old != path]
        for old in others[: max(0, len(others) + 1 - keep)]:
            shutil.rmtree(old, ignore_errors=True)
    here().barrier()
    return path


def write(final: Path, weights: Tensors, optimizer: Tensors, state: Mapping[str, Any]) -> Path:
    """Write one checkpoint, whole or not at all."""

    def fill(folder: Path) -> None:
        save_file(_plain(weights), folder / "weights.safetensors")
        save_file(_plain(optimizer), folder / "optimizer.safetensors")
        write_json(folder / "state.json", state)
        write_json(folder / "manifest.json", {name: sha256(folder / name) for name in FILES})

    return write_folder(final, fill, alone=True)


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None."""
    path = newest(folder)
    return None if path is None else load(path)


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole, or None. Damaged ones are named and set aside, so that they count among those that
    are kept no more."""
    for path in reversed(_all(folder)):
        if (found := fault(path)) is None:
            return path
        aside = next(p for n in count() if not (p := folder / f"damaged-{path.name}{f'-{n}' * bool(n)}").exists())
        with telling(path):
            path.rename(aside)
        log.warn(f"{path}: {found}; it is set aside as {aside.name}, and the run resumes from the checkpoint before it")
    return None


def whole(folder: Path) -> list[Path]:
    """The checkpoints that can be believed, oldest first."""
    return [path for path in _all(folder) if fault(path) is None]


def load(path: Path) -> Checkpoint:
    """Read a checkpoint that is known to be whole."""
    return Checkpoint(
        weights=load_file(path / "weights.safetensors"),
        optimizer=load_file(path / "optimizer.safetensors"),
        state=state(path),
    )


def state(path: Path) -> dict[str, Any]:
    """The plain values of a checkpoint that is known to be whole."""
    found: dict[str, Any] = read_json(path / "state.json")
    return found


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def fault(path: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None."""
    try:
        manifest = read_json(path / "manifest.json") if (path / "manifest.json").is_file() else None
    except (OSError, ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        return "no readable manifest.json"
    for name in FILES:
        if not (path / name).is_file():
            return f"{name} is missing"
        if sha256(path / name) != manifest.get(name):
            return f"{name} is not what was saved"
    return None


def _plain(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Detached, contiguous and on the CPU, as safetensors wants them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
