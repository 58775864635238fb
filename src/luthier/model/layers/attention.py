"""Tree attention for unmodified transformers decoders: one function, registered as "luthier".

The function hands q, k and v to the object passed to the model as `tree=`: a plan of a packed batch
(training, scoring) or a cache (generation). So neither needs a line of model code.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from luthier.core.errors import InputError

NAME = "luthier"


class Attender(Protocol):
    """What the model's `tree=` argument must be able to do."""

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        """q [1, heads, T, D], k and v [1, kv_heads, T, D] -> [1, T, heads, D]."""
        ...


def _attention(
    module: Any,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree: Attender | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    assert tree is not None, "models loaded by Luthier are called with tree="
    if odd := [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]:
        raise InputError(f"its attention has '{odd[0]}', which Luthier does not compute", fix="use another model")
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    return tree.attend(int(module.layer_idx), q, k, v, scale, sliding_window), None


def register() -> None:
    """Make the function known to transformers, before a model is built. Not on import: transformers' part that builds
    models takes seconds to import, and most of what imports this module builds none."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
