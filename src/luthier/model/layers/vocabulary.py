"""The vocabulary head as log-probabilities of given tokens, in tiles that stay in the processor's cache.

For state h_m and token t_m, with z = cap(scale W h_m) and c = dz / d(W h_m):

    logp_m          = z[t_m] - logsumexp(z)
    d logp_m / dh_m = c[t_m] W[t_m] - sum_v p_v c_v W_v
    entropy_m       = logsumexp(z) - sum_v p_v z_v

One sweep over the vocabulary finds them all: sums are kept relative to the largest logit so far and scaled down when
a larger one turns up (the running softmax of Milakov and Gimelshein 2018). d logp / dh does not depend on what the loss will be,
so the forward pass takes it along, and no tensor of tokens x vocabulary ever exists. The gradient of W needs the
incoming gradient: when the head is trained, its logits are computed a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from luthier.model.layers.products import padded, product, unit_of

# States and tokens of the vocabulary in one tile. On a CPU its logits and the weights that made them stay in cache.
CPU_TILE = 512, 1024
DEVICE_TILE = 2048, 8192


def tile_bytes(states: int, vocabulary: int, device: torch.device) -> int:
    """Bytes of the logits of the largest tile, in float32."""
    rows, columns = _tile(device)
    return 4 * min(states, rows) * min(vocabulary, columns)


def wide(dtype: torch.dtype) -> torch.dtype:
    """What sums over the vocabulary are taken in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class HeadLogp(torch.autograd.Function):
    """(hidden [M, H], weight [V, H], target [M], scale, cap, entropy) -> logp [M], entropy [M] or [0]; float32 or wider."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        target: torch.Tensor,
        scale: float,
        cap: float | None,
        entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        count = len(hidden)
        whole = padded(count, unit_of(hidden.dtype, hidden.device))
        hidden, target = _lengthened(hidden, whole), _lengthened(target, whole)
        norm, logp = (torch.empty(len(hidden), dtype=wide(hidden.dtype), device=hidden.device) for _ in range(2))
        spread = torch.empty_like(logp if entropy else logp[:0])
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for rows, parts in _tiles(hidden, weight):
            sweep = _Sweep(hidden[rows], target[rows], cap, slope is not None, entropy)
            for columns in parts:
                sweep.take(logits_of(hidden[rows], weight[columns], scale, cap), weight[columns], columns)
            norm[rows] = sweep.norm
            logp[rows] = sweep.chosen - sweep.norm
            if entropy:
                spread[rows] = sweep.entropy
            if slope is not None:
                slope[rows] = (scale * sweep.slope(weight)).to(hidden.dtype)
        ctx.save_for_backward(*(x for x in (hidden, weight, target, norm, slope) if x is not None))
        ctx.scale, ctx.cap, ctx.count = scale, cap, count
        logp, spread = logp[:count], spread[:count]
        ctx.mark_non_differentiable(spread)
        return logp, spread

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, target, norm, *slope = ctx.saved_tensors
        dhidden = slope[0][: ctx.count] * grads[0][:, None].to(hidden.dtype) if slope else None
        grad = _lengthened(grads[0], len(hidden))
        dweight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        if dweight is not None:
            for rows, parts in _tiles(hidden, weight):
                for columns in parts:
                    z = logits_of(hidden[rows], weight[columns], ctx.scale, ctx.cap)
                    factor = ctx.scale * grad[rows, None] * (_steepness(z, ctx.cap) if ctx.cap else 1.0)
                    dz = z.sub_(norm[rows, None]).exp_().neg_()
                    here, place = _within(target[rows], columns)
                    dz.scatter_add_(-1, place[:, None], here[:, None].to(dz.dtype))
                    dweight[columns].addmm_(dz.mul_(factor).to(hidden.dtype).T, hidden[rows])
        return dhidden, dweight, None, None, None, None


def _lengthened(x: torch.Tensor, count: int) -> torch.Tensor:
    """`x` with zeros after its rows, `count` in all."""
    return x if len(x) == count else torch.cat([x, x.new_zeros(count - len(x), *x.shape[1:])])


class _Sweep:
    """Sums over the vocabulary for a few states, block after block, all relative to exp(top)."""

    def __init__(
        self, hidden: torch.Tensor, target: torch.Tensor, cap: float | None, slope: bool, entropy: bool
    ) -> None:
        self.target, self.cap = target, cap
        self.total = hidden.new_zeros((len(hidden), 1), dtype=wide(hidden.dtype))  # of p
        self.top = torch.full_like(self.total, torch.finfo(self.total.dtype).min)
        self.logits = torch.zeros_like(self.total) if entropy else None  # of p (z - top)
        self.pull = torch.zeros_like(hidden, dtype=self.total.dtype) if slope else None  # of p c W
        self.chosen = torch.zeros_like(self.total).squeeze(-1)  # z[t]

    def take(self, z: torch.Tensor, weight: torch.Tensor, columns: slice) -> None:
        """Add a block of logits, which `weight` made. Overwrites `z`."""
        here, place = _within(self.target, columns)
        self.chosen = torch.where(here, z.gather(-1, place[:, None]).squeeze(-1), self.chosen)
        steepness = _steepness(z, self.cap) if self.cap and self.pull is not None else None
        top = torch.maximum(self.top, z.amax(-1, keepdim=True))
        lower, z = self.top - top, z.sub_(top)
        shrink = lower.exp()
        share = z.exp() if self.logits is not None else z.exp_()
        if self.logits is not None:
            self.logits.add_(self.total * lower).mul_(shrink).add_((z * share).sum(-1, keepdim=True))
        self.total.mul_(shrink).add_(share.sum(-1, keepdim=True))
        if self.pull is not None:
            share = share.mul_(steepness) if steepness is not None else share
            self.pull.mul_(shrink)
            if weight.dtype == share.dtype:
                self.pull.addmm_(share, weight)
            else:
                self.pull.add_(product(share.to(weight.dtype), weight, self.pull.dtype))
        self.top = top

    @property
    def norm(self) -> torch.Tensor:
        """logsumexp of the logits, [m]."""
        return (self.top + self.total.log()).squeeze(-1)

    @property
    def entropy(self) -> torch.Tensor:
        """[m], in nats."""
        assert self.logits is not None
        return (self.total.log() - self.logits / self.total).squeeze(-1)

    def slope(self, weight: torch.Tensor) -> torch.Tensor:
        """d logp / d (scale h), [m, H]."""
        assert self.pull is not None
        own = weight[self.target].to(self.pull.dtype)
        if self.cap:
            own *= _steepness(self.chosen[:, None], self.cap)
        return own - self.pull / self.total


def _tiles(hidden: torch.Tensor, weight: torch.Tensor) -> Iterator[tuple[slice, list[slice]]]:
    """Blocks of states, each with the blocks of the vocabulary."""
    states, tokens = _tile(hidden.device)
    parts = blocks(len(weight), tokens)
    for rows in blocks(len(hidden), states):
        yield rows, parts


def _tile(device: torch.device) -> tuple[int, int]:
    return CPU_TILE if device.type == "cpu" else DEVICE_TILE


def blocks(count: int, size: int) -> list[slice]:
    """0..count in slices of `size`."""
    return [slice(a, min(count, a + size)) for a in range(0, count, size)]


def logits_of(hidden: torch.Tensor, weight: torch.Tensor, scale: float, cap: float | None) -> torch.Tensor:
    z = product(hidden, weight.T, wide(hidden.dtype))
    if scale != 1.0:
        z.mul_(scale)
    if cap:
        z.div_(cap).tanh_().mul_(cap)
    return z


def _steepness(z: torch.Tensor, cap: float) -> torch.Tensor:
    """d cap(x) / dx where cap(x) = z."""
    return 1 - (z / cap).square_()


def _within(target: torch.Tensor, columns: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Which targets are in this block of the vocabulary, and where in it (anywhere for the others)."""
    place = target - columns.start
    here = (place >= 0) & (place < columns.stop - columns.start)
    return here, place.where(here, 0)
