"""The load-balancing loss of a mixture of experts beside any method's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from luthier.core.types.batch import Batch, Loss, Output
from luthier.methods.ops import tree_mean


def balanced(loss: Callable[[Batch, Output], Loss], weight: float) -> Callable[[Batch, Output], Loss]:
    """L + weight * mean over the trees of the mean of L_s over their leaves (see `model/layers/routing.py`)."""

    def both(batch: Batch, output: Output) -> Loss:
        found = loss(batch, output)
        assert output.balance is not None, "the forward pass is asked for it"
        each = tree_mean(batch, output.balance, batch.leaf_tree)
        total = found.total + weight * (batch.tree_weight * each).sum()
        metrics = {**found.metrics, "router_loss": (float(each.detach().sum()), float(len(each)))}
        return replace(found, total=total, metrics=metrics)

    return both
