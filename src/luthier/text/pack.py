"""TokenTree -> Batch: many trees end to end in one row, what neighbours begin with only once.

    trees      [system A][user 1][answer 1]   [system A][user 2][answer 2]   [system B][user 3][answer 3]
    packed     [system A] -> [user 1][answer 1]
                          -> [user 2][answer 2]
               [system B][user 3][answer 3]

Trees that stand side by side and begin alike become branches of one: a common system prompt, below it a common
instruction, and so on. Gradients are those of separate sequences: a token's hidden state depends on its ancestors
only, and they are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from luthier.core.types.batch import Batch
from luthier.core.types.trees import TokenTree

MIN_SHARED = 4  # a shorter beginning saves less than the extra node costs


@dataclass(frozen=True)
class Shared:
    """Tokens begin..end of the roots of some neighbouring trees, which stand once: a node below `parent` (-1: none)."""

    begin: int
    end: int
    parent: int


def shared(a: Sequence[int], b: Sequence[int], start: int = 0) -> int:
    """How many tokens `a` and `b` begin with in common; the first `start` are known to be."""
    shortest = min(len(a), len(b))
    step = 64  # slices compare much faster than tokens one by one
    while start < shortest and a[start : start + step] == b[start : start + step]:
        start += step
    start = min(start, shortest)
    while start < shortest and a[start] == b[start]:
        start += 1
    return start


def shared_tokens(trees: Sequence[TokenTree]) -> list[int]:
    """How many leading tokens each tree has in common with the next one, none of them trained in either."""
    roots = [tree.nodes[0] for tree in trees]
    heads = [root.ids[: root.trained.index(True)] if True in root.trained else root.ids for root in roots]
    return [shared(one, other) for one, other in pairwise(heads)]


def shared_nodes(common: Sequence[int]) -> tuple[list[Shared], list[int]]:
    """What neighbouring trees share, given `shared_tokens`: the nodes in depth-first order, and which of them each tree
    hangs below (-1: none).

    A node is at least MIN_SHARED tokens long, and at least two trees hang below it.
    """
    nodes: list[Shared] = []
    below = [-1] * (len(common) + 1)

    def branch(first: int, last: int, begin: int, parent: int) -> None:
        """Trees first..last begin with the `begin` tokens that `parent` ends with."""
        if first == last:
            below[first] = parent
            return
        end = min(common[first:last])
        if end - begin >= MIN_SHARED:
            nodes.append(Shared(begin, end, parent))
            begin, parent = end, len(nodes) - 1
        parted = [i for i in range(first, last) if common[i] == end]
        for before, until in pairwise([first - 1, *parted, last]):
            branch(before + 1, until, begin, parent)

    branch(0, len(common), 0, -1)
    return nodes, below


def arrange(trees: Sequence[TokenTree], capacity: int) -> list[list[int]]:
    """Which trees are computed together, in rows of at most `capacity` tokens, and in which order, by index.

    Those that begin alike stand side by side; where that saves nothing, trees keep their order. Of two ways the one that
    computes fewer tokens: bins of any trees, and runs of the sorted ones, which keep a beginning together. A row may
    exceed `capacity` by the few tokens at each branch that are not worth sharing; a tree that is longer is alone.
    """
    order = sorted(range(len(trees)), key=lambda i: (trees[i].nodes[0].ids, i))
    sizes = [len(trees[i]) for i in order]
    common = shared_tokens([trees[i] for i in order])
    prefix = min(common, default=0)
    mixed = bins([size - prefix for size in sizes], max(1, capacity - prefix))

    def cost(row: Sequence[int]) -> int:
        return _cost([trees[i] for i in row])

    ways = [[[order[i] for i in row] for row in way] for way in (mixed, _runs(sizes, common, capacity))]
    best = min(ways, key=lambda rows: sum(map(cost, rows)))
    return [min(sorted(row), row, key=cost) for row in best]


def _cost(trees: Sequence[TokenTree]) -> int:
    """Tokens that a row of these trees computes."""
    nodes, below = shared_nodes(shared_tokens(trees))
    return (
        sum(len(tree) for tree in trees)
        - sum(nodes[n].end for n in below if n >= 0)
        + sum(n.end - n.begin for n in nodes)
    )


def _runs(sizes: Sequence[int], common: Sequence[int], capacity: int) -> list[list[int]]:
    """Cut a sequence into as few runs of at most `capacity` as go, then evened out: the smallest capacity gives as many."""
    runs = _cut(sizes, common, capacity)
    low, high = 1, capacity
    while low < high:
        middle = (low + high) // 2
        found = _cut(sizes, common, middle)
        low, high = (low, middle) if len(found) == len(runs) else (middle + 1, high)
    return _cut(sizes, common, low)


def _cut(sizes: Sequence[int], common: Sequence[int], capacity: int) -> list[list[int]]:
    runs: list[list[int]] = []
    load = 0
    for i, size in enumerate(sizes):
        more = size - common[i - 1] if i else size
        if runs and load + more <= capacity:
            runs[-1].append(i)
            load += more
        else:
            runs.append([i])
            load = size
    return runs


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
    ends: list[int] = field(default_factory=list)
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
        self.ends.append(len(self.tokens))
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
    nodes, below = shared_nodes(shared_tokens(trees) if share else [0] * (len(trees) - 1))
    places: list[int] = []  # of the shared nodes in the row
    flat: list[float] = []
    for s, tree in enumerate(trees):
        for node in nodes[len(places) : below[s] + 1]:
            above = places[node.parent] if node.parent >= 0 else -1
            places.append(row.add(tree.nodes[0].ids[node.begin : node.end], above, node.begin))
        above, depth = (places[below[s]], nodes[below[s]].end) if below[s] >= 0 else (-1, 0)
        flat.extend(_add_tree(row, s, tree, weights[s], above, depth))
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


def _add_tree(row: _Row, s: int, tree: TokenTree, weights: Sequence[float], above: int, known: int) -> list[float]:
    """Append the nodes of one tree in depth-first order, without the `known` tokens down to the shared node `above`; return
    the weights of its targets."""
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
    stack = [(n, -1, -1, 0) for n, node in enumerate(tree.nodes) if node.parent < 0 and n][::-1]
    stack.append((0, above, row.ends[above] - 1 if known else -1, known))
    while stack:
        n, parent, before, depth = stack.pop()
        node = tree.nodes[n]
        skip = 0 if n else known
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
