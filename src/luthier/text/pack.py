"""TokenTree -> Batch: many trees end to end in one row, a prefix that all of them share only once.

    trees      [system A][user 1][answer 1]   [system A][user 2][answer 2]
    packed     [system A] -> [user 1][answer 1]
                          -> [user 2][answer 2]

The shared prefix becomes the root of the packed forest. Gradients are those of separate sequences:
a token's hidden state depends on its ancestors only, and they are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from luthier.core.types import Batch, TokenTree

MIN_SHARED = 4  # a shorter prefix saves less than the extra node costs


def shared_prefix(trees: Sequence[TokenTree]) -> int:
    """How many leading tokens all trees share, none of them trained; 0 when it is not worth a node."""
    if len(trees) < 2:
        return 0
    roots = [tree.nodes[0] for tree in trees]
    # The common prefix of many sequences is that of the least and the greatest.
    first, last = min(root.ids for root in roots), max(root.ids for root in roots)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    for root in roots:
        if True in root.trained[:length]:
            length = root.trained.index(True)
    return length if length >= MIN_SHARED else 0


def bins(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `sizes` in as few bins of `capacity` as first-fit decreasing finds, bins then evened out.

    An item larger than the capacity gets a bin of its own. Deterministic; order within a bin is by index.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    loads: list[int] = []
    for i in order:
        slot = next((b for b, load in enumerate(loads) if load + sizes[i] <= capacity), None)
        if slot is None:
            loads.append(sizes[i])
        else:
            loads[slot] += sizes[i]
    # Same number of bins, each item to the lightest: equal sizes keep the processor equally busy.
    even: list[list[int]] = [[] for _ in loads]
    loads = [0] * len(even)
    for i in order:
        slot = min(range(len(even)), key=lambda b: (loads[b], b))
        if loads[slot] and loads[slot] + sizes[i] > capacity:
            return _first_fit(sizes, order, capacity)
        even[slot].append(i)
        loads[slot] += sizes[i]
    return [sorted(b) for b in even]


def _first_fit(sizes: Sequence[int], order: Sequence[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing as it stands, for the rare sizes that do not even out."""
    out: list[list[int]] = []
    loads: list[int] = []
    for i in order:
        slot = next((b for b, load in enumerate(loads) if load + sizes[i] <= capacity), None)
        if slot is None:
            out.append([i])
            loads.append(sizes[i])
        else:
            out[slot].append(i)
            loads[slot] += sizes[i]
    return [sorted(b) for b in out]


@dataclass
class _Row:
    """The packed row while it grows."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    leaf: list[int] = field(default_factory=list)
    leaf_tree: list[int] = field(default_factory=list)
    leaf_end: list[int] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    ties: list[tuple[int, int]] = field(default_factory=list)
    columns: dict[str, list[float]] = field(default_factory=dict)

    def add(self, ids: Sequence[int], parent: int, depth: int) -> int:
        """Append a node; return its index."""
        self.starts.append(len(self.tokens))
        self.parents.append(parent)
        self.tokens.extend(ids)
        self.positions.extend(range(depth, depth + len(ids)))
        return len(self.starts) - 1


def pack(
    trees: Sequence[TokenTree], weights: Sequence[Sequence[float]], *, tree_weight: float = 1.0, pad_to: int = 1,
    share: bool = True,
) -> Batch:  # fmt: skip
    """Pack trees into one Batch.

    `weights[s]` holds one weight per trained token of tree s, in node order (see `weigh`), `tree_weight` is that
    of every tree. The row is padded to a multiple of `pad_to`, because some backends compile a kernel for every
    new length. A trained token without a predecessor (the first of a root) cannot be predicted and has no target.
    All trees must carry the same columns.
    """
    row = _Row()
    prefix = shared_prefix(trees) if share else 0
    root = row.add(trees[0].nodes[0].ids[:prefix], -1, 0) if prefix else -1
    flat: list[float] = []
    for s, tree in enumerate(trees):
        flat.extend(_add_tree(row, s, tree, weights[s], prefix, root))
    real = len(row.tokens)
    if padding := -real % pad_to:
        row.add([0] * padding, -1, 0)
    return Batch(
        tokens=torch.tensor(row.tokens),
        positions=torch.tensor(row.positions),
        node_start=(*row.starts, len(row.tokens)),
        node_parent=tuple(row.parents),
        source=torch.tensor(row.source, dtype=torch.int64),
        target=torch.tensor(row.target, dtype=torch.int64),
        weight=torch.tensor(flat, dtype=torch.float32),
        tree=torch.tensor(row.owner, dtype=torch.int64),
        leaf=torch.tensor(row.leaf, dtype=torch.int64),
        leaf_tree=torch.tensor(row.leaf_tree, dtype=torch.int64),
        leaf_end=torch.tensor(row.leaf_end, dtype=torch.int64),
        pairs=torch.tensor(row.pairs, dtype=torch.int64).view(-1, 2),
        ties=torch.tensor(row.ties, dtype=torch.int64).view(-1, 2),
        tree_weight=torch.full((len(trees),), tree_weight),
        columns={name: torch.tensor(values, dtype=torch.float32) for name, values in row.columns.items()},
        rows=tuple(tree.row for tree in trees),
        real=real,
    )


def _add_tree(row: _Row, s: int, tree: TokenTree, weights: Sequence[float], prefix: int, root: int) -> list[float]:
    """Append the nodes of one tree in depth-first order; return the weights of its targets."""
    children: list[list[int]] = [[] for _ in tree.nodes]
    for n, node in enumerate(tree.nodes):
        if node.parent >= 0:
            children[node.parent].append(n)
    first = [0]
    for node in tree.nodes:
        first.append(first[-1] + sum(node.trained))
    base = len(row.leaf_tree)
    leaves = {n: base + i for i, n in enumerate(tree.leaves)}
    row.leaf_tree.extend([s] * len(leaves))
    row.leaf_end.extend([0] * len(leaves))
    row.pairs.extend((base + a, base + b) for a, b in tree.pairs)
    row.ties.extend((base + a, base + b) for a, b in tree.ties)
    kept: list[int] = []  # which of the tree's trained tokens have a predecessor
    # (node, packed parent, index of the last token before the node or -1, depth)
    stack = [(n, root, prefix - 1, prefix) for n, node in enumerate(tree.nodes) if node.parent < 0][::-1]
    while stack:
        n, parent, before, depth = stack.pop()
        node = tree.nodes[n]
        skip = prefix if node.parent < 0 else 0
        ids, trained = node.ids[skip:], node.trained[skip:]
        if ids:
            parent = row.add(ids, parent, depth)
        start, w, leaf = len(row.tokens) - len(ids), first[n], leaves.get(n, -1)
        end = len(row.tokens) - 1 if ids else before
        last = end
        for i, learned in enumerate(trained):
            if learned:
                end = start + i
                if (source := end - 1 if i else before) >= 0:
                    row.source.append(source)
                    row.target.append(end)
                    row.owner.append(s)
                    row.leaf.append(leaf)
                    kept.append(w)
                w += 1
        if leaf >= 0:
            row.leaf_end[leaf] = end
        stack.extend((c, parent, last, depth + len(ids)) for c in reversed(children[n]))
    _add_columns(row, tree, kept)
    return [weights[w] for w in kept]


def _add_columns(row: _Row, tree: TokenTree, kept: Sequence[int]) -> None:
    """Append the numbers that a tree carries; those per trained token for its targets only."""
    for name, value in tree.columns.items():
        if isinstance(value, (bool, int, float)):
            row.columns.setdefault(name, []).append(float(value))
    for name, values in tree.leaf_columns.items():
        row.columns.setdefault(name, []).extend(values)
    for name, values in tree.target_columns.items():
        row.columns.setdefault(name, []).extend(values[w] for w in kept)
