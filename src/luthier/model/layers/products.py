"""Products of 16-bit matrices whose sums are wanted in more digits."""

from __future__ import annotations

import torch

# To whose multiples rows, and keys of attention, are padded where a product of a new size has kernels compiled for it: 16 bits on a
# processor. oneDNN takes 10 to 140 ms for a size that it has not met, and keeps 0.5 to 4 MB for it.
UNIT = 32


def unit_of(dtype: torch.dtype, device: torch.device) -> int:
    """To what multiples sizes are padded: `UNIT` where products have kernels of their own for each size, else 1."""
    return UNIT if device.type == "cpu" and dtype in (torch.bfloat16, torch.float16) else 1


def padded(size: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return size + -size % unit


def product(x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x y in `dtype`; on a GPU the sums, which are float32 inside, are not rounded to the type of x in between."""
    if x.dtype == dtype:
        return x @ y
    return torch.mm(x, y, out_dtype=dtype) if x.is_cuda and dtype == torch.float32 else (x @ y).to(dtype)
