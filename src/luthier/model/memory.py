"""What memory there is, what of it is used, and how many tokens a forward pass takes so that it is enough."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from pathlib import Path
from typing import Any

import psutil
import torch

from luthier.model.activations import Pass, kept, on_shapes
from luthier.model.adapt import tune

CPU_TOKENS, GPU_TOKENS = 1024, 8192  # tokens of a forward pass on a CPU, and on a GPU with room for them


def weights(config: Any, dtype: torch.dtype) -> int:
    """Bytes of the weights of the model of `config` alone."""
    return sum(p.nbytes for p in on_shapes(config, dtype).parameters())


def pass_tokens(config: Any, tune_kind: str, dtype: torch.dtype, device: torch.device) -> int:
    """How many tokens a forward pass takes where nobody says: 1024 on a CPU, whose caches they fill; on a GPU, which needs
    many to be busy, 8192 or the largest half, quarter, ... of that whose activations take half of what the weights leave
    of its memory. Weights that learn count with their gradients, moments and masters: eight times in 16 bits, else four.

    The same on one machine whatever else runs there, since a run goes on exactly only with the same passes.
    """
    if device.type == "cpu":
        return CPU_TOKENS
    cuda = device.type == "cuda"
    whole = torch.cuda.get_device_properties(device).total_memory if cuda else torch.mps.recommended_max_memory()
    beside = 1 if tune.is_adapter(tune_kind) else 8 if dtype.itemsize == 2 else 4
    model = on_shapes(config, dtype)
    room = (whole - beside * sum(p.nbytes for p in model.parameters())) / 2
    tokens, each = GPU_TOKENS, kept(model, Pass.row(CPU_TOKENS, dtype, device)).all // CPU_TOKENS
    while tokens > CPU_TOKENS and tokens * each > room:
        tokens //= 2
    return tokens


def give_back(models: bool = False) -> None:
    """Return what the allocator holds and nobody uses to the system, where it does so when it is asked: glibc, and CUDA's. Between the
    phases of a run, whose tensors have other sizes, the holes of one would stay beside the tensors of the next. `models`: a model is
    among it, which hangs in circles of references."""
    gc.collect(
        2 if models else 1
    )  # a look at all that a process with torch holds takes a second, at the young objects far less
    if models and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another system's
        return


def available(device: torch.device) -> int:
    """Bytes free on the device. On a CPU the limit of the container counts too."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return min(int(psutil.virtual_memory().available), container_room())


def container_room(root: Path = Path("/sys/fs/cgroup")) -> int:
    """What the control group (v2, then v1) still allows, file cache that can be dropped counted as free."""
    for folder, limit, used, droppable in (
        (root, "memory.max", "memory.current", "inactive_file"),
        (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            room = int((folder / limit).read_text()) - int((folder / used).read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):  # absent, or the word "max"
            continue
        return room + sum(int(line.split()[1]) for line in lines if line.startswith(f"{droppable} "))
    return sys.maxsize


def peak(device: torch.device | None = None) -> int:
    """The most memory so far: of this process on a CPU, of torch's allocations on a GPU. Bytes."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        # Linux's getrusage would give the peak of the program that started this one, were it higher.
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
