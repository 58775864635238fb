"""Heads that read numbers off a hidden state: `score` of an answer, as many as are asked for, `value` of a state.

    head(h) = W h, without a bias, as the sequence classifiers of transformers have it

They start at zero: before the first step every answer scores the same, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from luthier.core.types.batch import Needs

NAMES = ("score", "value")


def widths(needs: Needs) -> dict[str, int]:
    """The heads that a method needs, and how many numbers each gives."""
    return {name: int(getattr(needs, name)) for name in NAMES if getattr(needs, name)}


def attach(model: nn.Module, wanted: Mapping[str, int]) -> None:
    """Put heads of these widths on `model`, learning, in float32 (float64 for a float64 model). One that is there goes on from
    its weight, others start at zero."""
    weight = model.get_input_embeddings().weight  # type: ignore[operator]
    precise = torch.float64 if weight.dtype == torch.float64 else torch.float32
    for name, width in wanted.items():
        head = nn.Linear(weight.shape[1], width, bias=False, dtype=precise, device=weight.device)
        before = on(model).get(name)
        with torch.no_grad():
            fits = before is not None and before.weight.shape == head.weight.shape
            head.weight.copy_(before.weight) if before is not None and fits else head.weight.zero_()
        setattr(model, name, head)


def detach(model: nn.Module, names: Iterable[str] = NAMES) -> None:
    """Take heads off a model."""
    for name in names:
        setattr(model, name, None)


def on(model: nn.Module) -> dict[str, nn.Linear]:
    """The heads on a model by name."""
    return {name: getattr(model, name) for name in NAMES if isinstance(getattr(model, name, None), nn.Linear)}


@torch.no_grad()
def put(model: nn.Module, name: str, weight: torch.Tensor) -> None:
    """Give `model` a head with this weight [K, H], frozen, in the place of any."""
    detach(model, (name,))
    attach(model, {name: len(weight)})
    head: nn.Linear = getattr(model, name)
    head.weight.copy_(weight)
    head.requires_grad_(False)
