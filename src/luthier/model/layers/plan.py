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
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from luthier.core import log
from luthier.core.foreign.calls import reason
from luthier.core.types.batch import Batch

BLOCK = 128  # queries that attend together: what lies above the diagonal is skipped between blocks
WASTE = 1.4  # a group may compute this many times the scores its blocks need
ENTRIES = 1 << 22  # entries of one group's mask: bounds memory
NARROWEST = 16  # head size from which on the block-sparse kernel exists


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

    def __init__(self, batch: Batch, device: torch.device) -> None:
        self.starts, self.parents = batch.node_start, batch.node_parent
        self.full = [mask == "full" for mask in batch.node_mask] or [False] * len(self.parents)
        self.device = device
        self._masks: dict[tuple[torch.dtype, int | None], list[tuple[Group, torch.Tensor]]] = {}
        self._block_masks: dict[int | None, Any] = {}

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        """q [1, heads, T, D], k and v [1, kv_heads, T, D] -> [1, T, heads, D]."""
        if q.device.type == "cuda" and q.shape[-1] >= NARROWEST and q.shape[-2] >= BLOCK:
            out = _block_sparse(q, k, v, self.block_mask(window), scaling)
            if out is not None:
                return out.transpose(1, 2)
        q, k, v = (x[0].transpose(0, 1) for x in (q, k, v))
        parts = [_attend(q, k, v, group, mask, scaling) for group, mask in self.masked(q.dtype, window)]
        return torch.cat(parts).index_select(0, self.order)[None]

    @cached_property
    def groups(self) -> list[Group]:
        """Groups of blocks that together hold every token as a query once."""
        blocks = self._blocks()
        sizes = [(block.last - block.first, len(block.seen)) for block in blocks]
        return [_group([blocks[i] for i in members]) for members in _arrange(sizes)]

    @cached_property
    def depth(self) -> torch.Tensor:
        """[T]: how many tokens precede each on its path, by which windows are measured whatever positions a node has."""
        before, parts = [0] * len(self.parents), []
        for n, parent in enumerate(self.parents):
            before[n] = before[parent] + self.starts[parent + 1] - self.starts[parent] if parent >= 0 else 0
            parts.append(torch.arange(before[n], before[n] + self.starts[n + 1] - self.starts[n]))
        return torch.cat(parts)

    def masked(self, dtype: torch.dtype, window: int | None) -> list[tuple[Group, torch.Tensor]]:
        """Each group with what is added to its scores, [n, 1, Lq, Lk]: 0 where attention may go, else -inf.

        With a `window` a token sees only the last so many tokens of its path, itself included; in a full node as many to
        either side. Rows of padding are left open, so that they stay numbers; nobody reads them.
        """
        if (dtype, window) not in self._masks:
            out = []
            for group in self.groups:
                hidden = group.hidden & ~group.hidden.all(-1, keepdim=True)
                if window is not None:
                    back = self.depth[group.queries][:, :, None] - self.depth[group.keys][:, None]
                    hidden |= self._far(back, group.queries[:, :, None], window) & ~group.hidden
                out.append((group, torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))[:, None]))
            self._masks[dtype, window] = [(g.to(self.device), m.to(self.device)) for g, m in out]
        return self._masks[dtype, window]

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

    def block_mask(self, window: int | None = None) -> Any:
        """The rule `j <= i < reach[j]` for flex attention, and `depth[i] - depth[j] < window` when there is one."""
        if window not in self._block_masks:
            from torch.nn.attention.flex_attention import create_block_mask

            tokens = self.starts[-1]
            ends = torch.tensor(reach(self.starts, self.parents)).repeat_interleave(torch.tensor(self.starts).diff())
            ends, depth = ends.to(self.device), self.depth.to(self.device)

            far = torch.tensor(tokens if window is None else window, device=self.device)  # kernels take tensors alone

            def above(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
                return (j <= i) & (i < ends[j])

            def near(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
                return above(b, h, i, j) & (depth[i] - depth[j] < far)

            rule = above if window is None else near
            if any(self.full):
                rule = self._both_ways(ends, window)
            self._block_masks[window] = create_block_mask(rule, None, None, tokens, tokens, device=str(self.device))
        return self._block_masks[window]

    def _both_ways(self, ends: torch.Tensor, window: int | None) -> Any:
        """The rule where some nodes are full: `j < sight[i] and i < reach[j]`."""
        sight, depth, whole = self._sight.to(self.device), self.depth.to(self.device), self._whole.to(self.device)
        far = torch.tensor(self.starts[-1] if window is None else window, device=self.device)

        def rule(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
            back = depth[i] - depth[j]
            near = torch.where(whole[i], back.abs(), back) < far
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

    def _far(self, back: torch.Tensor, queries: torch.Tensor, window: int) -> torch.Tensor:
        """Where a key lies `back` tokens before its query, out of the window."""
        if not any(self.full):
            return back >= window
        return torch.where(self._whole[queries], back.abs(), back) >= window

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


def _group(blocks: Sequence[Block]) -> Group:
    lq, lk = max(block.last - block.first for block in blocks), max(len(block.seen) for block in blocks)
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


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, group: Group, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """One group of q [T, H, D] on k and v [T, Hkv, D] -> [n Lq, H, D]."""
    qg, kg, vg = (
        x.reshape(len(x), -1).index_select(0, index.reshape(-1)).view(*index.shape, *x.shape[1:]).transpose(1, 2)
        for x, index in ((q, group.queries), (k, group.keys), (v, group.keys))
    )
    # On a GPU the fused kernels add up keys in no fixed order in the backward pass.
    with sdpa_kernel(SDPBackend.MATH) if q.device.type == "cuda" else nullcontext():
        out = scaled_dot_product_attention(
            qg, kg, vg, attn_mask=mask, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
    return out.transpose(1, 2).flatten(0, 1)


def _block_sparse(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, scaling: float) -> torch.Tensor | None:
    """Flex attention, compiled once per process (the eager form would build the whole score matrix); None where it
    cannot be compiled. Before the first step that learns its backward pass is tried too: that is compiled when it runs."""
    from torch._dynamo.exc import TorchDynamoException
    from torch.nn.attention.flex_attention import flex_attention

    global _compiled, _learns
    if _compiled is False:
        return None
    if _compiled is None:
        _compiled = torch.compile(flex_attention, dynamic=True)
    kernel = partial(_compiled, block_mask=mask, scale=scaling, enable_gqa=True)
    try:
        if not _learns and torch.is_grad_enabled() and q.requires_grad:
            kernel(*(x.detach().requires_grad_() for x in (q, k, v))).sum().backward()
            _learns = True
        out: torch.Tensor = kernel(q, k, v)
    except torch.OutOfMemoryError:
        raise
    except (TorchDynamoException, RuntimeError) as error:
        _compiled = False
        log.warn(f"the attention kernel for this GPU could not be compiled, a slower one is used: {reason(error)}")
        return None
    return out


_compiled: Any = None  # the kernel; False where compiling it failed
_learns = False  # whether its backward pass was seen to work
