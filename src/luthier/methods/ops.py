"""Sums over the parts of a batch, for every loss.

Shape legend: M targets, L leaves (answers), P pairs, S trees.
"""

from __future__ import annotations

import torch

from luthier.core.types.batch import Batch


def leaf_sum(batch: Batch, values: torch.Tensor) -> torch.Tensor:
    """Sum of values [M] over the targets of each leaf, [L]; those of shared prompts count for none."""
    own = batch.leaf >= 0
    return values.new_zeros(len(batch.leaf_tree)).index_add(0, batch.leaf[own], values[own])


def leaf_length(batch: Batch) -> torch.Tensor:
    """Targets of each leaf, [L], at least 1."""
    return leaf_sum(batch, torch.ones_like(batch.weight)).clamp_(min=1)


def tree_sum(batch: Batch, values: torch.Tensor, tree: torch.Tensor) -> torch.Tensor:
    """Sum over each tree, [S], of values whose trees are `tree`."""
    return values.new_zeros(len(batch.rows)).index_add(0, tree, values)


def tree_mean(batch: Batch, values: torch.Tensor, tree: torch.Tensor) -> torch.Tensor:
    """Mean over each tree, [S]; 0 for a tree without a value."""
    count = tree_sum(batch, torch.ones_like(values), tree)
    return tree_sum(batch, values, tree) / count.clamp(min=1)


def tree_max(batch: Batch, values: torch.Tensor) -> torch.Tensor:
    """The largest of the values [L] of each tree's leaves, [S]."""
    out = values.new_full((len(batch.rows),), -torch.inf)
    return out.scatter_reduce(0, batch.leaf_tree, values, "amax")


def pair_tree(batch: Batch) -> torch.Tensor:
    """The tree of each pair, [P]."""
    return batch.leaf_tree[batch.pairs[:, 0]]
