"""The experts that tokens of one pass chose, for another pass to take too.

A router compares numbers, and of two that are nearly equal rounding decides: in 16 bits the same tokens, summed in another order, go to
other experts, and what comes out is another thing. Passes that are to be compared go the same ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from luthier.model.layers.experts import is_experts

Choice = tuple[torch.Tensor, torch.Tensor]  # the experts of each token [T, k], and their weights [T, k]


@dataclass
class Choices:
    """What each module of experts was given, call by call: of the module's place in the model, the choices of T tokens."""

    calls: dict[str, list[Choice]] = field(default_factory=dict)

    def of(self, first: int, last: int) -> Choices:
        """Those of some tokens alone."""
        return Choices({name: [(e[first:last], w[first:last]) for e, w in one] for name, one in self.calls.items()})

    def before(self, other: Choices) -> Choices:
        """Those of these tokens, and then of others."""
        return Choices({
            name: [(torch.cat([e, f]), torch.cat([w, v])) for (e, w), (f, v) in zip(one, other.calls[name], strict=True)]
            for name, one in self.calls.items()
        })  # fmt: skip


@contextmanager
def chosen(model: nn.Module, given: Choices | None = None) -> Iterator[Choices]:
    """For a block with one pass of `model`: the experts that its tokens take. The first tokens of the pass take those that are
    `given`, where there are any, whatever the router says."""
    found, hooks = Choices(), []
    for name, module in model.named_modules():
        if is_experts(module):
            hooks.append(module.register_forward_pre_hook(_hook(name, found, given)))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _hook(name: str, found: Choices, given: Choices | None) -> Any:
    def take(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if len(args) != 3:  # hidden states, experts, weights
            return None
        hidden, experts, weights = args
        mine = found.calls.setdefault(name, [])
        if given is not None and len(theirs := given.calls.get(name, [])) > len(mine):
            experts, weights = (
                torch.cat([old, new[len(old) :]])
                for old, new in zip(theirs[len(mine)], (experts, weights), strict=True)
            )
        mine.append((experts, weights))
        return hidden, experts, weights

    return take
