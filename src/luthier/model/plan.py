"""How a packed batch attends: each node to itself causally and to its ancestors whole.

On a CPU, blocks of queries of like size are gathered into a few padded groups and attend as batches
of dense products. On a GPU, one block-sparse kernel takes the rule `j <= i < reach[j]`, where
reach[j] is the end of the subtree of j's node: in depth-first order that is exactly "j is i or comes
before it, and j's node is i's node or an ancestor of it".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from luthier.core.types import Batch

BLOCK = 128  # queries that attend together: what lies above the diagonal is skipped between blocks
WASTE = 1.4  # a group may compute this many times the scores its blocks need
SCORES = 1 << 21  # scores of one head computed at once: bounds memory
HIDDEN = -1e30  # finite, so that a row of padding stays a number


@dataclass(frozen=True)
class Group:
    """n blocks of queries, padded to Lq queries and Lk keys.

    queries [n, Lq] and keys [n, Lk] are token indices (padding points at token 0);
    hidden  [n, Lq, Lk] is True where attention must not go, and everywhere in padding.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    hidden: torch.Tensor


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
        self.positions = batch.positions.cpu()
        self.device = device
        self._windowed: dict[int, list[Group]] = {}
        self._masks: dict[int | None, Any] = {}

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        """q [1, heads, T, D], k and v [1, kv_heads, T, D] -> [1, T, heads, D]."""
        if q.device.type == "cuda":
            mask = self.block_mask(window)
            return _flex()(q, k, v, block_mask=mask, scale=scaling, enable_gqa=True).transpose(1, 2)
        rows = [x[0].transpose(0, 1) for x in (q, k, v)]
        groups = self.groups if window is None else self.windowed(window)
        out: torch.Tensor = _GroupAttention.apply(*rows, groups, self.order, scaling)
        return out[None]

    @cached_property
    def groups(self) -> list[Group]:
        """Groups of blocks that together hold every token as a query once."""
        blocks = self._blocks()
        return [_group([blocks[i] for i in members]) for members in _arrange([(b[1], len(b[0])) for b in blocks])]

    def windowed(self, window: int) -> list[Group]:
        """The groups of layers in which a token sees only the last `window` tokens of its path, itself included."""
        if window not in self._windowed:
            depth = self.positions
            self._windowed[window] = [
                replace(g, hidden=g.hidden | (depth[g.queries][:, :, None] - depth[g.keys][:, None] >= window))
                for g in self.groups
            ]
        return self._windowed[window]

    @cached_property
    def order(self) -> torch.Tensor:
        """[T]: where each token's output stands in the concatenated outputs of the groups."""
        order = torch.empty(self.starts[-1], dtype=torch.int64)
        offset = 0
        for group in self.groups:
            real = ~group.hidden.all(-1).reshape(-1)
            places = torch.arange(offset, offset + real.numel())
            order[group.queries.reshape(-1)[real]] = places[real]
            offset += real.numel()
        return order

    def block_mask(self, window: int | None = None) -> Any:
        """The rule `j <= i < reach[j]` for flex attention, and `depth[i] - depth[j] < window` when there is one."""
        if window not in self._masks:
            from torch.nn.attention.flex_attention import create_block_mask

            tokens = self.starts[-1]
            ends = torch.tensor(reach(self.starts, self.parents)).repeat_interleave(torch.tensor(self.starts).diff())
            ends, depth = ends.to(self.device), self.positions.to(self.device)
            width = tokens if window is None else window

            def visible(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
                return (j <= i) & (i < ends[j]) & (depth[i] - depth[j] < width)

            self._masks[window] = create_block_mask(visible, None, None, tokens, tokens, device=str(self.device))
        return self._masks[window]

    def _paths(self) -> list[list[int]]:
        """The token indices each node sees: those of its ancestors, root first, then its own."""
        paths: list[list[int]] = []
        for n, parent in enumerate(self.parents):
            own = list(range(self.starts[n], self.starts[n + 1]))
            paths.append((paths[parent] if parent >= 0 else []) + own)
        return paths

    def _blocks(self) -> list[tuple[list[int], int]]:
        """(tokens seen by the block's last query, number of queries): the queries are the last of those seen."""
        blocks = []
        for n, path in enumerate(self._paths()):
            own = self.starts[n + 1] - self.starts[n]
            before = len(path) - own
            blocks += [(path[: before + min(own, a + BLOCK)], min(BLOCK, own - a)) for a in range(0, own, BLOCK)]
        return blocks


def _arrange(sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Group blocks of (queries, keys) so that padding wastes little and few groups remain."""
    groups: list[list[int]] = []
    wide = high = area = 0
    for i in sorted(range(len(sizes)), key=lambda i: (*sizes[i][::-1], i), reverse=True):
        queries, keys = sizes[i]
        wider, higher = max(wide, queries), max(high, keys)
        cost = (len(groups[-1]) + 1) * wider * higher if groups else 0
        if not groups or cost > min(SCORES, WASTE * (area + queries * keys)):
            groups.append([])
            wider, higher, area = queries, keys, 0
        groups[-1].append(i)
        wide, high, area = wider, higher, area + queries * keys
    return groups


def _group(blocks: Sequence[tuple[list[int], int]]) -> Group:
    lq, lk = max(own for _, own in blocks), max(len(path) for path, _ in blocks)
    queries = torch.zeros(len(blocks), lq, dtype=torch.int64)
    keys = torch.zeros(len(blocks), lk, dtype=torch.int64)
    hidden = torch.ones(len(blocks), lq, lk, dtype=torch.bool)
    for i, (path, own) in enumerate(blocks):
        seen = torch.tensor(path)
        queries[i, :own] = seen[len(path) - own :]
        keys[i, : len(path)] = seen
        hidden[i, :own, : len(path)] = torch.ones(own, len(path), dtype=torch.bool).triu(len(path) - own + 1)
    return Group(queries, keys, hidden)


def _heads(x: torch.Tensor, index: torch.Tensor, kv: int) -> torch.Tensor:
    """Rows of x [T, heads, D] gathered by index [n, L] -> [n kv, heads/kv L, D]: heads that share keys together."""
    n, length = index.shape
    heads, dim = x.shape[1:]
    rows = x.index_select(0, index.reshape(-1)).view(n, length, kv, heads // kv, dim)
    return rows.permute(0, 2, 3, 1, 4).reshape(n * kv, heads // kv * length, dim)


def _tokens(x: torch.Tensor, index: torch.Tensor, kv: int) -> torch.Tensor:
    """The reverse of `_heads`: [n kv, heads/kv L, D] -> [n L, heads, D]."""
    n, length = index.shape
    share, dim = x.shape[1] // length, x.shape[2]
    return x.view(n, kv, share, length, dim).permute(0, 3, 1, 2, 4).reshape(n * length, kv * share, dim)


def _hide(scores: torch.Tensor, group: Group, kv: int, value: float) -> None:
    """Fill the hidden entries of scores [n kv, heads/kv Lq, Lk] with `value`, in place."""
    n, lq, lk = group.hidden.shape
    scores.view(n, kv, -1, lq, lk).masked_fill_(group.hidden.view(n, 1, 1, lq, lk), value)


class _GroupAttention(torch.autograd.Function):
    """softmax(scale q k^T + mask) v, group by group, the scores computed again in the backward pass.

    Nothing of size queries x keys is kept between the passes, and heads that share keys share one
    product, so keys are never repeated. Backward as in Dao et al. 2022: with P the weights and O the
    output, dS = P * (dO v^T - rowsum(dO * O)).
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        groups: list[Group],
        order: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """q [T, H, D], k and v [T, Hkv, D] -> [T, H, D]."""
        kv = k.shape[1]
        rows, norms = [], []
        for group in groups:
            scores = _heads(q, group.queries, kv) @ _heads(k, group.keys, kv).transpose(1, 2)
            _hide(scores.mul_(scale), group, kv, HIDDEN)
            norm = torch.logsumexp(scores.float() if scores.dtype == torch.bfloat16 else scores, -1, keepdim=True)
            weights = scores.sub_(norm).exp_()
            rows.append(_tokens(weights @ _heads(v, group.keys, kv), group.queries, kv))
            norms.append(norm)
        out = torch.cat(rows).index_select(0, order)
        ctx.save_for_backward(q, k, v, out, order, *norms)
        ctx.groups, ctx.scale = groups, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, out, order, *norms = ctx.saved_tensors
        (grad,) = grads
        kv = k.shape[1]
        rows, dk, dv = [], torch.zeros_like(k), torch.zeros_like(v)
        for group, norm in zip(ctx.groups, norms, strict=True):
            qg, gg, og = (_heads(x, group.queries, kv) for x in (q, grad, out))
            kg, vg = (_heads(x, group.keys, kv) for x in (k, v))
            weights = (qg @ kg.transpose(1, 2)).mul_(ctx.scale).sub_(norm).exp_()
            _hide(weights, group, kv, 0.0)  # padded queries too: they send nothing to keys and values
            dscores = (gg @ vg.transpose(1, 2)).sub_((gg * og).sum(-1, keepdim=True)).mul_(weights).mul_(ctx.scale)
            rows.append(_tokens(dscores @ kg, group.queries, kv))
            dk.index_add_(0, group.keys.reshape(-1), _tokens(dscores.transpose(1, 2) @ qg, group.keys, kv))
            dv.index_add_(0, group.keys.reshape(-1), _tokens(weights.transpose(1, 2) @ gg, group.keys, kv))
        return torch.cat(rows).index_select(0, order), dk, dv, None, None, None


def _flex() -> Any:
    """Flex attention, compiled once per process: the eager form would build the whole score matrix."""
    global _COMPILED
    if _COMPILED is None:
        from torch.nn.attention.flex_attention import flex_attention

        _COMPILED = torch.compile(flex_attention, dynamic=True)
    return _COMPILED


_COMPILED: Any = None
