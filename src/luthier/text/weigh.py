"""Rules that fill `weight` before the forward pass: the only place that knows about batch sizes.

Because weights are normalised over the whole optimizer step, a loss is a plain weighted sum, and
neither micro-batches nor packing nor ranks can change the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from luthier.core.types import TokenTree

Rule = Callable[[Sequence[TokenTree]], list[list[float]]]


def predicted(tree: TokenTree) -> int:
    """Trained tokens that have a predecessor: the first token of a root has none."""
    return tree.trained - sum(n.parent < 0 and bool(n.trained) and n.trained[0] for n in tree.nodes)


def token_mean(trees: Sequence[TokenTree]) -> list[list[float]]:
    """w = 1 / (trained tokens of the step): every token counts the same. The mean that papers report."""
    total = max(1, sum(predicted(tree) for tree in trees))
    return [[1.0 / total] * tree.trained for tree in trees]


def example_mean(trees: Sequence[TokenTree]) -> list[list[float]]:
    """w = 1 / (examples of the step * trained tokens of the example): every example counts the same."""
    return [[1.0 / (len(trees) * max(1, predicted(tree)))] * tree.trained for tree in trees]


RULES: dict[str, Rule] = {"token": token_mean, "example": example_mean}
