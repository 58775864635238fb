"""Products of 16-bit matrices whose sums are wanted in more digits."""

from __future__ import annotations

import torch


def product(x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x y in `dtype`; on a GPU the sums, which are float32 inside, are not rounded to the type of x in between."""
    if x.dtype == dtype:
        return x @ y
    return torch.mm(x, y, out_dtype=dtype) if x.is_cuda and dtype == torch.float32 else (x @ y).to(dtype)
