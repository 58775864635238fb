"""Tree attention for unmodified transformers decoders: one function, registered as "luthier".

The function hands q, k and v to the object passed to the model as `tree=`: a plan of a packed batch
(training, scoring) or a cache (generation). So neither needs a line of model code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, Protocol

import torch

from luthier.core.errors import InputError
from luthier.model.layers.scoring import Local, Scoring, local_of

NAME = "luthier"


class Attender(Protocol):
    """What the model's `tree=` argument must be able to do."""

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scoring: Scoring) -> torch.Tensor:
        """q [1, heads, T, D], k and v [1, kv_heads, T, D] -> [1, T, heads, D]."""
        ...


@dataclass(frozen=True)
class Handed:
    """What stands for a mask where layers hand nothing else down: the `tree=` of the pass, the positions of its tokens [1, T], and how
    far layers look for which the mask was made."""

    tree: Attender
    positions: torch.Tensor
    local: Local | None = None

    def to(self, dtype: torch.dtype) -> Handed:
        """The same: MPT makes truth values of its mask."""
        return self


_handing: ContextVar[Handed | None] = ContextVar("what masks are in place of", default=None)


@contextmanager
def handing(tree: Attender, positions: torch.Tensor) -> Iterator[None]:
    """For the block, masks that transformers makes hand down the tree and the positions."""
    token = _handing.set(Handed(tree, positions))
    try:
        yield
    finally:
        _handing.reset(token)


def _attention(
    module: Any,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attention_mask: Local | Handed | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree: Attender | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    if isinstance(attention_mask, Handed):
        tree, attention_mask = attention_mask.tree, attention_mask.local
    assert tree is not None, "models loaded by Luthier are called with tree="
    if position_bias is not None:
        raise InputError("its attention has 'position_bias', which Luthier does not compute", fix="use another model")
    local = Local(sliding_window) if attention_mask is None and sliding_window else attention_mask
    if not isinstance(local, (Local, NoneType)):
        raise InputError("it builds its own attention mask, which Luthier does not compute", fix="use another model")
    scoring = Scoring(q.shape[-1] ** -0.5 if scaling is None else scaling, local, softcap, s_aux)
    return tree.attend(int(module.layer_idx), q, k, v, scoring), None


def _mask(*args: Any, local_size: int | None = None, config: Any = None, **others: Any) -> Local | Handed | None:
    """In place of a mask: how far the layers look that transformers makes it for. The tree itself says what comes before what.

    Masks of encoders, which look as far ahead too, count the tokens between two that see each other; those of decoders count one more.
    """
    if local_size is not None and "allow_is_bidirectional_skip" in others:
        local_size += 1
    local, handed = local_of(local_size, config), _handing.get()
    return local if handed is None else replace(handed, local=local)


def register() -> None:
    """Make the function known to transformers, before a model is built. Not on import: transformers' part that builds
    models takes seconds to import, and most of what imports this module builds none."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _mask)
