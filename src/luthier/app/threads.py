"""On how many threads a command computes."""

from __future__ import annotations

import os

import torch


def use_threads(threads: int | None = None) -> None:
    """Set torch's threads, all cores by default: results are bitwise equal only with the same number."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(threads or here or 1)
