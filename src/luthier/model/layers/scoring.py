"""How one layer scores the tokens that it attends to, and the products for layers that torch's fused attention does not know.

score   s_ij = scaling * q_i . k_j, or with a cap  c tanh(s_ij / c)            (Gemma 2)
weight  exp(s_ij) / (sum_j exp(s_ij) + exp(sink))                              (gpt-oss: a sink takes weight and gives nothing)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Local:
    """How far back a token looks: at the last `size` tokens of its path, itself included, or, `chunked`, at those of its path from
    the last multiple of `size` on."""

    size: int
    chunked: bool = False

    def seen(self, place: torch.Tensor) -> torch.Tensor | int:
        """How many tokens those at these places of their paths look at, themselves included."""
        return place % self.size + 1 if self.chunked else self.size

    def __getitem__(self, part: object) -> Local:
        """The same: models cut their masks to the queries and keys of a layer."""
        return self


@dataclass(frozen=True)
class Scoring:
    """What a layer asks of its attention. `sinks` has one number a head, [heads]."""

    scaling: float
    local: Local | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether scores are those of torch's fused attention: neither capped nor with a sink."""
        return self.softcap is None and self.sinks is None


def attended(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scoring: Scoring
) -> torch.Tensor:
    """q [n, heads, Lq, D], k and v [n, kv_heads, Lk, D] -> [n, heads, Lq, Dv]; `mask` is added to the scores, and None is causal, for as
    many keys as queries."""
    if scoring.softcap is not None:
        if mask is None:
            mask = _causal(q)
        if torch.is_grad_enabled():  # the matrix of scores is made again for the gradient
            from torch.utils.checkpoint import checkpoint

            out: torch.Tensor = checkpoint(
                products, q, k, v, mask, scoring, use_reentrant=False, preserve_rng_state=False
            )
            return out
        return products(q, k, v, mask, scoring)
    if scoring.sinks is not None:
        return _with_sinks(q, k, v, _causal(q) if mask is None else mask, scoring)
    return scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scoring.scaling, enable_gqa=q.shape[1] != k.shape[1]
    )


def products(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scoring: Scoring
) -> torch.Tensor:
    """The same by plain products, in which the matrix of scores is made. Without a mask every query sees every key."""
    count, heads, length, _ = q.shape
    scores = q.reshape(count, k.shape[1], -1, q.shape[-1]) @ k.transpose(-1, -2)
    scores = scores.view(count, heads, length, -1).to(torch.promote_types(q.dtype, torch.float32)) * scoring.scaling
    if scoring.softcap is not None:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    if mask is not None:
        scores = scores + mask
    if scoring.sinks is not None:
        scores = torch.cat([scores, _by_query(q, scoring.sinks).to(scores.dtype)], -1)
    weights = scores.softmax(-1)[..., : k.shape[2]].to(q.dtype)
    return (weights.view(count, k.shape[1], -1, k.shape[2]) @ v).view(count, heads, length, -1)


def _with_sinks(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scoring: Scoring
) -> torch.Tensor:
    """Fused attention with one more key, which every query sees: its score is the sink, by one more number in q and k, and its value
    is nothing."""
    assert scoring.sinks is not None
    q = torch.cat([q, (_by_query(q, scoring.sinks) / scoring.scaling).to(q.dtype)], -1)
    k, v = F.pad(k, (0, 1, 0, 1)), F.pad(v, (0, 1, 0, 1))
    k[..., -1, -1] = 1
    out = scaled_dot_product_attention(
        q, k, v, attn_mask=F.pad(mask, (0, 1)), scale=scoring.scaling, enable_gqa=q.shape[1] != k.shape[1]
    )
    return out[..., :-1]


def _by_query(q: torch.Tensor, sinks: torch.Tensor) -> torch.Tensor:
    """[heads] -> [n, heads, Lq, 1]. Where heads that share keys stand as queries of one, [n, kv_heads, heads of each, 1]."""
    return sinks.view(1, q.shape[1], -1, 1).expand(*q.shape[:3], 1)


def _causal(q: torch.Tensor) -> torch.Tensor:
    """[Lq, Lq] to be added to scores."""
    return torch.full((q.shape[2], q.shape[2]), -torch.inf, dtype=q.dtype, device=q.device).triu_(1)


def local_of(size: int | None, config: Any) -> Local | None:
    """What a mask of this many tokens means in a model of `config`: chunks where that is their size, else a window."""
    if size is None:
        return None
    return Local(
        size,
        chunked=size == getattr(config, "attention_chunk_size", None)
        and size != getattr(config, "sliding_window", None),
    )
