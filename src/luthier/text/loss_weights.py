"""Rules that fill `weight` before the forward pass: the only place that knows about batch sizes.

Because weights are normalised over the whole optimizer step, a loss is a plain weighted sum, and
neither micro-batches nor packing nor ranks can change the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from luthier.core.types.trees import TokenTree

Rule = Callable[[Sequence[TokenTree]], list[list[float]]]


def learned_flags(tree: TokenTree) -> list[bool]:
    """For each trained token: is its likelihood raised? Those of answers that lost a comparison are not, nor is
    the first token of a causal root, which nothing predicts."""
    worse = {tree.leaves[loser] for _, loser in tree.pairs}
    out: list[bool] = []
    for n, node in enumerate(tree.nodes):
        begun = node.parent >= 0 or node.mask == "full"
        out += [n not in worse and (i > 0 or begun) for i, trained in enumerate(node.trained) if trained]
    return out


def token_mean(trees: Sequence[TokenTree]) -> list[list[float]]:
    """w = 1 / (learned tokens of the step): every token counts the same. The mean that papers report."""
    flags = [learned_flags(tree) for tree in trees]
    each = 1.0 / max(1, sum(map(sum, flags)))
    return [[each * flag for flag in row] for row in flags]


def example_mean(trees: Sequence[TokenTree]) -> list[list[float]]:
    """w = 1 / (examples of the step * learned tokens of the example): every example counts the same."""
    flags = [learned_flags(tree) for tree in trees]
    return [[flag / (len(trees) * max(1, sum(row))) for flag in row] for row in flags]


def answer_mean(trees: Sequence[TokenTree]) -> list[list[float]]:
    """w = 1 / (answers of the step * tokens of the answer): every answer counts the same (GRPO)."""
    return fixed_length(trees, None)


def fixed_length(trees: Sequence[TokenTree], length: int | None) -> list[list[float]]:
    """w = 1 / (answers of the step * length), whatever an answer's own length: a long answer counts for more, so
    that length is not rewarded nor punished (Dr. GRPO). None is the answer's own length."""
    answers = sum(len(tree.leaves) for tree in trees)
    out = []
    for tree in trees:
        leaves = [tree.nodes[leaf] for leaf in tree.leaves]
        counts = [sum(leaf.trained) for leaf in leaves]
        out.append([1.0 / (answers * (length or count)) for count in counts for _ in range(count)])
    return out


RULES: dict[str, Rule] = {"token": token_mean, "example": example_mean, "answer": answer_mean}
