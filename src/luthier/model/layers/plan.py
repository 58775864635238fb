"""How a packed batch attends: each node to itself causally (a full node whole, as in an encoder) and to its ancestors whole.

On a CPU, blocks of queries of like size are gathered into a few padded groups, and each group is one
call of torch's fused attention. On a GPU, one block-sparse kernel takes the rule `j <= i < reach[j]`, where
reach[j] is the end of the subtree of j's node: in depth-first order that is exactly "j is i or comes
before it, and j's node is i's node or an ancestor of it" (with full nodes `j < sight[i] and i < reach[j]`, where sight[i] is the end
of i's node). Where that kernel cannot be had (heads narrower than 16, no
compiler on the machine) or gains nothing (short rows) the groups serve there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from luthier.core.types.batch import Batch
from luthier.model.layers import flex
from luthier.model.layers.products import padded, unit_of
from luthier.model.layers.scoring import Local, Scoring, attended
from luthier.model.layers.state import Layer, Unfolding

BLOCK = 128  # queries that attend together: what lies above the diagonal is skipped between blocks
WASTE = 1.4  # a group may compute this many times the scores its blocks need
ENTRIES = 1 << 22  # entries of one group's mask: bounds memory
NARROWEST = 16  # head size from which on the block-sparse kernel exists


class Gathered(NamedTuple):
    """What the groups of a pass hold, padding included: queries, keys, and scores (the queries of each block times its keys)."""

    queries: int
    keys: int
    scores: int


class Block(NamedTuple):
    """Queries that attend together: tokens first..last of those `seen`. Each sees those up to itself, in a full node all."""

    seen: list[int]
    first: int
    last: int
    full: bool


@dataclass(frozen=True)
class Group:
    """n blocks of queries, padded to Lq queries and Lk keys.

    queries [n, Lq] and keys [n, Lk] are token indices (padding points at token 0);
    hidden  [n, Lq, Lk] is True where attention must not go, and everywhere in padding.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    hidden: torch.Tensor

    def to(self, device: torch.device) -> Group:
        """The same group with its tensors on `device`."""
        return Group(self.queries.to(device), self.keys.to(device), self.hidden.to(device))


def by_row(positions: torch.Tensor) -> torch.Tensor:
    """Positions of a batch, [T] or [axes, T], as transformers' models take them for one row: [1, T] or [axes, 1, T]."""
    return positions[..., None, :]


def reach(starts: Sequence[int], parents: Sequence[int]) -> list[int]:
    """For each node, one past the last token of its subtree."""
    ends = list(starts[1:])
    for n in range(len(parents) - 1, -1, -1):  # children come after their parents
        if parents[n] >= 0:
            ends[parents[n]] = max(ends[parents[n]], ends[n])
    return ends


class TreePlan:
    """The attention of one batch, shared by all layers. Pass it to the model as `tree=`."""

    def __init__(self, batch: Batch, device: torch.device, unit: int = 1) -> None:
        self.starts, self.parents = batch.node_start, batch.node_parent
        self.full = [mask == "full" for mask in batch.node_mask] or [False] * len(self.parents)
        self.device = device
        self.unit = unit  # queries and keys of a group are padded to multiples of it
        self._masks: dict[tuple[torch.dtype, Local | None], list[tuple[Group, torch.Tensor]]] = {}
        self._block_masks: dict[Local | None, Any] = {}

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scoring: Scoring) -> torch.Tensor:
        """q [1, heads, T, D], k and v [1, kv_heads, T, D] -> [1, T, heads, D]."""
        if q.device.type == "cuda" and q.shape[-1] >= NARROWEST and q.shape[-2] >= BLOCK:
            out = flex.block_sparse(q, k, v, self.block_mask(scoring.local), scoring)
            if out is not None:
                return out.transpose(1, 2)
        self.unit = unit_of(q.dtype, q.device)  # of all layers alike
        q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
        parts = [attend_blocks(q, k, v, group, mask, scoring) for group, mask in self.masked(q.dtype, scoring.local)]
        return torch.cat(parts).index_select(0, self.order)[None]

    def mix(self, layer: int, own: Layer, hidden: torch.Tensor) -> torch.Tensor:
        """A layer with a state, on the row hidden [1, T, H]: each path from its own beginning. See `Mixer`."""
        return self.unfolding.run(own, hidden)

    @cached_property
    def unfolding(self) -> Unfolding:
        """The row's paths from a root to a leaf."""
        parents = set(self.parents)
        paths = [path for n, path in enumerate(self._paths()) if n not in parents and path]
        return Unfolding(paths, _arrange([(1, len(path)) for path in paths]), self.device)

    @cached_property
    def groups(self) -> list[Group]:
        """Groups of blocks that together hold every token as a query once."""
        blocks = self._blocks()
        sizes = self._sizes(blocks)
        return [_group([blocks[i] for i in members], *_largest(sizes, members)) for members in _arrange(sizes)]

    @property
    def gathered(self) -> Gathered:
        """What the groups hold, without making them."""
        return gathered(self._sizes(self._blocks()))

    def _sizes(self, blocks: Sequence[Block]) -> list[tuple[int, int]]:
        """(queries, keys) of each block, padded."""
        return [(padded(b.last - b.first, self.unit), padded(len(b.seen), self.unit)) for b in blocks]

    @cached_property
    def depth(self) -> torch.Tensor:
        """[T]: how many tokens precede each on its path, by which windows are measured whatever positions a node has."""
        before, parts = [0] * len(self.parents), []
        for n, parent in enumerate(self.parents):
            before[n] = before[parent] + self.starts[parent + 1] - self.starts[parent] if parent >= 0 else 0
            parts.append(torch.arange(before[n], before[n] + self.starts[n + 1] - self.starts[n]))
        return torch.cat(parts)

    def masked(self, dtype: torch.dtype, local: Local | None = None) -> list[tuple[Group, torch.Tensor]]:
        """Each group with what is added to its scores, [n, 1, Lq, Lk]: 0 where attention may go, else -inf.

        With `local` a token sees only some tokens of its path; in a full node as many to either side. Rows of padding are left open,
        so that they stay numbers; nobody reads them.
        """
        if (dtype, local) not in self._masks:
            out = []
            for group in self.groups:
                hidden = group.hidden & ~group.hidden.all(-1, keepdim=True)
                if local is not None:
                    place = self.depth[group.queries][:, :, None]
                    back = place - self.depth[group.keys][:, None]
                    hidden |= self._far(back, group.queries[:, :, None], local.seen(place)) & ~group.hidden
                out.append((group, torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))[:, None]))
            self._masks[dtype, local] = [(g.to(self.device), m.to(self.device)) for g, m in out]
        return self._masks[dtype, local]

    @cached_property
    def order(self) -> torch.Tensor:
        """[T]: where each token's output stands in the concatenated outputs of the groups."""
        order = torch.zeros(self.starts[-1], dtype=torch.int64)
        offset = 0
        for group in self.groups:
            real = ~group.hidden.all(-1).reshape(-1)
            places = torch.arange(offset, offset + real.numel())
            order[group.queries.reshape(-1)[real]] = places[real]
            offset += real.numel()
        return order.to(self.device)

    def block_mask(self, local: Local | None = None) -> Any:
        """The rule `j <= i < reach[j]` for flex attention, and `depth[i] - depth[j] < seen[i]` where a layer looks back a part of
        the way."""
        if local not in self._block_masks:
            from torch.nn.attention.flex_attention import create_block_mask

            tokens = self.starts[-1]
            ends = torch.tensor(reach(self.starts, self.parents)).repeat_interleave(torch.tensor(self.starts).diff())
            ends, depth = ends.to(self.device), self.depth.to(self.device)

            seen = torch.as_tensor(tokens if local is None else local.seen(depth), device=self.device).expand(tokens)
            seen = seen.contiguous()  # kernels take tensors alone

            def above(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
                return (j <= i) & (i < ends[j])

            def near(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
                return above(b, h, i, j) & (depth[i] - depth[j] < seen[i])

            rule = above if local is None else near
            if any(self.full):
                rule = self._both_ways(ends, seen)
            self._block_masks[local] = create_block_mask(rule, None, None, tokens, tokens, device=str(self.device))
        return self._block_masks[local]

    def _both_ways(self, ends: torch.Tensor, seen: torch.Tensor) -> Any:
        """The rule where some nodes are full: `j < sight[i] and i < reach[j]`, and no farther than `seen[i]` tokens."""
        sight, depth, whole = self._sight.to(self.device), self.depth.to(self.device), self._whole.to(self.device)

        def rule(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
            back = depth[i] - depth[j]
            near = torch.where(whole[i], back.abs(), back) < seen[i]
            return (j < sight[i]) & (i < ends[j]) & near

        return rule

    @cached_property
    def _whole(self) -> torch.Tensor:
        """[T]: whether a token is one of a full node."""
        return torch.tensor(self.full).repeat_interleave(torch.tensor(self.starts).diff())

    @cached_property
    def _sight(self) -> torch.Tensor:
        """[T]: one past the last token of its own node that a token sees."""
        ends = torch.tensor(self.starts[1:]).repeat_interleave(torch.tensor(self.starts).diff())
        return torch.where(self._whole, ends, torch.arange(len(ends)) + 1)

    def _far(self, back: torch.Tensor, queries: torch.Tensor, seen: torch.Tensor | int) -> torch.Tensor:
        """Where a key lies `back` tokens before its query, which looks at so many."""
        if not any(self.full):
            return back >= seen
        return torch.where(self._whole[queries], back.abs(), back) >= seen

    def _paths(self) -> list[list[int]]:
        """The token indices each node sees: those of its ancestors, root first, then its own."""
        paths: list[list[int]] = []
        for n, parent in enumerate(self.parents):
            own = list(range(self.starts[n], self.starts[n + 1]))
            paths.append((paths[parent] if parent >= 0 else []) + own)
        return paths

    def _blocks(self) -> list[Block]:
        """The queries of all nodes, each once; of a causal node what its last query does not see is left out."""
        blocks = []
        for n, path in enumerate(self._paths()):
            before = len(path) - (self.starts[n + 1] - self.starts[n])
            for first in range(before, len(path), BLOCK):
                last = min(len(path), first + BLOCK)
                blocks.append(Block(path if self.full[n] else path[:last], first, last, self.full[n]))
        return blocks


def gathered(sizes: Sequence[tuple[int, int]], unit: int = 1) -> Gathered:
    """What groups of blocks of these (queries, keys) hold, padded to multiples of `unit`."""
    sizes = [(padded(queries, unit), padded(keys, unit)) for queries, keys in sizes]
    total = Gathered(0, 0, 0)
    for members in _arrange(sizes):
        (lq, lk), n = _largest(sizes, members), len(members)
        total = Gathered(total.queries + n * lq, total.keys + n * lk, total.scores + n * lq * lk)
    return total


def _largest(sizes: Sequence[tuple[int, int]], members: Sequence[int]) -> tuple[int, int]:
    """The most queries and the most keys of these blocks."""
    return max(sizes[i][0] for i in members), max(sizes[i][1] for i in members)


def _arrange(sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Group blocks of (queries, keys) so that padding wastes little and few groups remain."""
    groups: list[list[int]] = []
    wide = high = area = 0
    for i in sorted(range(len(sizes)), key=lambda i: (*sizes[i][::-1], i), reverse=True):
        queries, keys = sizes[i]
        wider, higher = max(wide, queries), max(high, keys)
        cost = (len(groups[-1]) + 1) * wider * higher if groups else 0
        if not groups or cost > min(ENTRIES, WASTE * (area + queries * keys)):
            groups.append([])
            wider, higher, area = queries, keys, 0
        groups[-1].append(i)
        wide, high, area = wider, higher, area + queries * keys
    return groups


def _group(blocks: Sequence[Block], lq: int, lk: int) -> Group:
    queries = torch.zeros(len(blocks), lq, dtype=torch.int64)
    keys = torch.zeros(len(blocks), lk, dtype=torch.int64)
    hidden = torch.ones(len(blocks), lq, lk, dtype=torch.bool)
    for i, block in enumerate(blocks):
        seen, own = torch.tensor(block.seen), block.last - block.first
        queries[i, :own] = seen[block.first : block.last]
        keys[i, : len(seen)] = seen
        beyond = torch.ones(own, len(seen), dtype=torch.bool).triu(block.first + 1)
        hidden[i, :own, : len(seen)] = False if block.full else beyond
    return Group(queries, keys, hidden)


def attend_blocks(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, group: Group, mask: torch.Tensor, scoring: Scoring
) -> torch.Tensor:
    """One group of q [T, H, D] on k and v [T, Hkv, D] -> [n Lq, H, D]."""
    qg, kg, vg = (
        x.reshape(len(x), -1).index_select(0, index.reshape(-1)).view(*index.shape, *x.shape[1:]).transpose(1, 2)
        for x, index in ((q, group.queries), (k, group.keys), (v, group.keys))
    )
    # On a GPU the fused kernels add up keys in no fixed order in the backward pass.
    with sdpa_kernel(SDPBackend.MATH) if q.device.type == "cuda" else nullcontext():
        out = attended(qg, kg, vg, mask, scoring)
    return out.transpose(1, 2).flatten(0, 1)
