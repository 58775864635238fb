"""The same sums in the same order on a GPU, so that a run gives the same bits twice and goes on exactly."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def same_products() -> None:
    """Have cuBLAS order its sums always alike. It reads this once, before its first product."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def same_bits(device: torch.device) -> Iterator[None]:
    """On a GPU, sums that torch would take in the order in which threads arrive are taken in a fixed one inside.

    What torch knows no fixed order for is computed all the same; `luthier verify` shows whether it mattered. The settings of
    before come back at the end.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # a write of every new tensor, for nothing
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fill
