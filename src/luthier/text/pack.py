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
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from luthier.core.types.batch import Batch
from luthier.core.types.trees import Mask, Media, Node, TokenTree
from luthier.text.arrange import shared_nodes, shared_tokens


@dataclass
class _Row:
    """The packed row while it grows."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    media: list[Media] = field(default_factory=list)
    given: list[tuple[int, tuple[tuple[int, ...], ...]]] = field(
        default_factory=list
    )  # positions that nodes have, from where on
    source: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    leaf: list[int] = field(default_factory=list)
    leaf_tree: list[int] = field(default_factory=list)
    leaf_end: list[int] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    ties: list[tuple[int, int]] = field(default_factory=list)
    columns: dict[str, list[float]] = field(default_factory=dict)
    arrays: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, node: Node, parent: int, depth: int) -> int:
        """Append the tokens of a node; return its index."""
        if node.positions is not None:
            self.given.append((len(self.tokens), node.positions))
        self.starts.append(len(self.tokens))
        self.parents.append(parent)
        self.masks.append(node.mask)
        self.tokens.extend(node.ids)
        self.ends.append(len(self.tokens))
        self.positions.extend(range(depth, depth + len(node.ids)))
        return len(self.starts) - 1

    def place(self, tree: TokenTree, node: int, begin: int, end: int, packed: int) -> None:
        """Append the media of tokens begin..end of a tree's node, which are those of a packed node."""
        by = self.starts[packed] - begin
        self.media += [
            replace(media, node=packed, begin=media.begin + by, end=media.end + by)
            for media in tree.media
            if media.node == node and begin <= media.begin < end
        ]

    def all_positions(self) -> torch.Tensor:
        """[T], or [axes, T] where nodes have positions on several axes."""
        depth = torch.tensor(self.positions)
        if not self.given:
            return depth
        out = depth.repeat(len(self.given[0][1]), 1)
        for start, positions in self.given:
            out[:, start : start + len(positions[0])] = torch.tensor(positions)
        return out[0] if len(out) == 1 else out


def pack(
    trees: Sequence[TokenTree], weights: Sequence[Sequence[float]], *, tree_weight: float = 1.0, pad_to: int = 1,
    share: bool = True,
) -> Batch:  # fmt: skip
    """Pack trees into one Batch.

    `weights[s]` holds one weight per trained token of tree s, in node order (see `weigh`), `tree_weight` is that
    of every tree. The row is padded to a multiple of `pad_to`, because some backends compile a kernel for every
    new length. A trained token without a predecessor (the first of a causal root) cannot be predicted and has no target.
    All trees must carry the same columns, and positions on as many axes.
    """
    row = _Row()
    nodes, below = shared_nodes(shared_tokens(trees) if share else [0] * (len(trees) - 1))
    places: list[int] = []  # of the shared nodes in the row
    flat: list[float] = []
    for s, tree in enumerate(trees):
        for node in nodes[len(places) : below[s] + 1]:
            above = places[node.parent] if node.parent >= 0 else -1
            places.append(row.add(tree.nodes[0].part(node.begin, node.end), above, node.begin))
            if tree.media:
                row.place(tree, 0, node.begin, node.end, places[-1])
        above, depth = (places[below[s]], nodes[below[s]].end) if below[s] >= 0 else (-1, 0)
        flat.extend(_add_tree(row, s, tree, weights[s], above, depth))
    real = len(row.tokens)
    if padding := -real % pad_to:
        row.add(Node((0,) * padding, (False,) * padding), -1, 0)
    return Batch(
        tokens=torch.tensor(row.tokens),
        positions=row.all_positions(),
        node_start=(*row.starts, len(row.tokens)),
        node_parent=tuple(row.parents),
        source=torch.tensor(row.source, dtype=torch.int64),
        label=torch.tensor(row.label, dtype=torch.int64),
        weight=torch.tensor(flat, dtype=torch.float32),
        tree=torch.tensor(row.owner, dtype=torch.int64),
        leaf=torch.tensor(row.leaf, dtype=torch.int64),
        leaf_tree=torch.tensor(row.leaf_tree, dtype=torch.int64),
        leaf_end=torch.tensor(row.leaf_end, dtype=torch.int64),
        pairs=torch.tensor(row.pairs, dtype=torch.int64).view(-1, 2),
        ties=torch.tensor(row.ties, dtype=torch.int64).view(-1, 2),
        tree_weight=torch.full((len(trees),), tree_weight),
        columns={name: torch.tensor(values, dtype=torch.float32) for name, values in row.columns.items()}
        | {name: _array(parts) for name, parts in row.arrays.items()},
        rows=tuple(tree.row for tree in trees),
        real=real,
        node_mask=tuple(row.masks) if "full" in row.masks else (),
        media=tuple(row.media),
    )


def joined(batches: Sequence[Batch]) -> Batch:
    """Packed rows end to end as one: for what looks at a whole step. Columns are those that all of them have."""
    if len(batches) == 1:
        return batches[0]
    tokens, nodes, trees, leaves = (
        list(accumulate(map(len, parts), initial=0))
        for parts in zip(*((b.tokens, b.node_parent, b.rows, b.leaf_tree) for b in batches), strict=True)
    )
    axes = max(batch.positions.dim() for batch in batches)
    wide = max(batch.positions.shape[0] if batch.positions.dim() == 2 else 1 for batch in batches)

    masks = [mask for batch in batches for mask in batch.node_mask or _causal(len(batch.node_parent))]

    def together(name: str, by: Sequence[int] | None = None) -> torch.Tensor:
        """One field of all batches, indices moved `by` what precedes them; -1 stays -1."""
        parts = [getattr(batch, name) for batch in batches]
        if by:
            parts = [torch.where(part < 0, part, part + more) for part, more in zip(parts, by, strict=False)]
        return torch.cat(parts)

    return Batch(
        tokens=together("tokens"),
        positions=torch.cat([b.positions.expand(wide, -1) if axes == 2 else b.positions for b in batches], -1),
        node_start=(
            *(at + start for b, at in zip(batches, tokens, strict=False) for start in b.node_start[:-1]),
            tokens[-1],
        ),
        node_parent=tuple(
            parent + at if parent >= 0 else -1
            for b, at in zip(batches, nodes, strict=False)
            for parent in b.node_parent
        ),
        source=together("source", tokens),
        label=together("label"),
        weight=together("weight"),
        tree=together("tree", trees),
        leaf=together("leaf", leaves),
        leaf_tree=together("leaf_tree", trees),
        leaf_end=together("leaf_end", tokens),
        pairs=together("pairs", leaves),
        ties=together("ties", leaves),
        tree_weight=together("tree_weight"),
        rows=tuple(row for batch in batches for row in batch.rows),
        columns={
            name: torch.cat([batch.columns[name] for batch in batches])
            for name in batches[0].columns
            if all(name in batch.columns for batch in batches)
        },
        real=sum(batch.real for batch in batches),
        node_mask=tuple(masks) if "full" in masks else (),
        media=tuple(
            replace(m, node=m.node + n, begin=m.begin + at, end=m.end + at)
            for b, n, at in zip(batches, nodes, tokens, strict=False)
            for m in b.media
        ),
    )


def _causal(nodes: int) -> list[Mask]:
    return ["causal"] * nodes


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
        if known and not n:
            node = node.part(known)
        ids = node.ids
        if ids:
            parent = row.add(node, parent, depth)
            if tree.media:
                row.place(tree, n, len(tree.nodes[n].ids) - len(ids), len(tree.nodes[n].ids), parent)
        start, w, leaf = len(row.tokens) - len(ids), first[n], leaves.get(n, -1)
        end = len(row.tokens) - 1 if ids else before
        last = end
        labels, full = ids if node.labels is None else node.labels, node.mask == "full"
        assert not full or node.labels is not None or True not in node.trained, "a full node that learns has labels"
        for i, learned in enumerate(node.trained):
            if learned:
                end = start + i
                if (source := end if full else end - 1 if i else before) >= 0:
                    row.source.append(source)
                    row.label.append(labels[i])
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
    """Append the values that a tree carries; those per trained token for its targets only."""
    for name, value in tree.columns.items():
        if isinstance(value, (bool, int, float)):
            row.columns.setdefault(name, []).append(float(value))
        elif isinstance(value, np.ndarray):
            row.arrays.setdefault(name, []).append(value[None])
    for name, values in tree.leaf_columns.items():
        if _numbers(values):
            row.columns.setdefault(name, []).extend(values)
        else:
            row.arrays.setdefault(name, []).append(np.asarray(values))
    for name, values in tree.target_columns.items():
        if _numbers(values):
            row.columns.setdefault(name, []).extend(values[w] for w in kept)
        else:
            row.arrays.setdefault(name, []).append(np.asarray(values)[list(kept)])


def _numbers(values: Sequence[Any]) -> bool:
    """Whether the values of a column are plain numbers."""
    return not isinstance(values, np.ndarray) and (not len(values) or isinstance(values[0], (int, float)))


def _array(parts: Sequence[np.ndarray]) -> torch.Tensor:
    whole = np.concatenate(parts)
    return torch.from_numpy(whole).to(torch.int64 if whole.dtype.kind in "iu" else torch.float32)
