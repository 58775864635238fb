"""Randomness as a function of (seed, place): nothing random is carried from step to step.

Because each use draws from a generator seeded by what it is for, a resumed run needs no saved
random state, and adding a use somewhere changes nothing elsewhere.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def derive(seed: int, *place: object) -> int:
    """A 63-bit seed for one place, such as derive(seed, "order", epoch). The same on every machine."""
    text = "\x1f".join(str(part) for part in (seed, *place))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *place: object) -> np.random.Generator:
    """A NumPy generator for one place."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(derive(seed, *place)))


def seed_torch(seed: int, *place: object) -> None:
    """Seed torch's global generators (dropout, initial weights) for one place."""
    import torch

    torch.manual_seed(derive(seed, *place))
