"""Which models were found to be computed exactly: kept between commands in Luthier's cache folder, so that none is compared twice.

checked.json there is a list of sums, the newest last, each over all that the answer depends on. It is written whole or not at all; one
that is damaged or cannot be written is as none: the model is compared again. Models that are refused are not kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from luthier import __version__
from luthier.core.errors import LuthierError
from luthier.core.ranks import here
from luthier.core.storage.files import cache_folder, small_file, write_json

KERNELS = ("mamba-ssm", "causal-conv1d", "flash-linear-attention", "kernels")
FILE, MOST, BYTES = "checked.json", 256, 1 << 20
_here: set[str] = set()  # of models that this process loaded


def mark(config: Any, files: Sequence[Path], dtype: torch.dtype, device: torch.device) -> str:
    """A sum over a configuration, where, how large and how old the files of its weights are, the type and the device, and the code
    that computes: versions, also of packages whose kernels transformers takes where they are installed, and the files of this package."""
    weights = [(str(path.resolve()), *_state(path)) for path in files]
    said = [config.to_json_string(), weights, str(dtype), device.type, _unit(device.type), _code()]
    return hashlib.sha256(json.dumps(said).encode(errors="backslashreplace")).hexdigest()


def known(model: str) -> bool:
    """Whether the model of this mark was loaded in this process, or compared in an earlier one."""
    return model in _here or model in _kept()


def note(model: str) -> None:
    """The model of this mark was loaded whole, in this process."""
    _here.add(model)


def keep(model: str) -> None:
    """The model of this mark is computed exactly, for later commands too."""
    note(model)
    if not here().first:
        return
    try:
        write_json(cache_folder() / FILE, [*(one for one in _kept() if one != model), model][-MOST:])
    except (LuthierError, OSError):  # a cache on a full disk, or of somebody else
        return


def forget() -> None:
    """As in a process that loaded no model yet, of code that may be another."""
    _here.clear()
    _code.cache_clear()


def _kept() -> list[str]:
    try:
        found = json.loads(small_file(cache_folder() / FILE, BYTES))
    except (LuthierError, OSError, ValueError, RecursionError):
        return []
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


@cache
def _code() -> list[Any]:
    own = sorted(Path(__file__).parent.rglob("*.py"))
    versions = [__version__, torch.__version__, version("transformers"), *map(_version, KERNELS)]
    return [*versions, [(path.name, *_state(path)) for path in own]]


def _unit(kind: str) -> str:
    """What computes: the card, or what the processor can do. A cache folder may be shared between machines."""
    return torch.cuda.get_device_name() if kind == "cuda" else torch.backends.cpu.get_cpu_capability()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
