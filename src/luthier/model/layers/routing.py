"""How a router spreads tokens over experts: the loss that asks for balance, and what each expert was given.

    L_s = E sum_e f_e P_e        f_e the share of the choices of text s that e is, times k; P_e its mean probability

as transformers' load_balancing_loss_func has it (Switch Transformer, Fedus et al. 2021), over the tokens and layers of one text: from
the root of a tree to the end of a leaf, as a sequence by itself would be. So neither packing nor micro-batches change it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from luthier.core.types.batch import Batch
from luthier.model.layers.pooling import paths


def balance(logits: Sequence[torch.Tensor], batch: Batch, taken: int) -> torch.Tensor:
    """The router's logits [T, E] of each layer, of which a token takes `taken` experts -> L_s of each leaf's text, [L]. The least that
    an even spread gives is `taken`."""
    spread = [layer.float().softmax(-1) for layer in logits]
    chosen = [torch.zeros_like(p).scatter_(1, p.detach().topk(taken, dim=-1).indices, 1.0) for p in spread]
    of = _texts(batch, spread[0])
    layers, experts = len(spread), spread[0].shape[-1]
    counts, weights = of @ torch.stack(chosen).sum(0) / layers, of @ torch.stack(spread).sum(0) / layers
    return experts * (counts * weights).sum(-1)


def _texts(batch: Batch, like: torch.Tensor) -> torch.Tensor:
    """[L, T]: 1 / n where one of the n tokens of a leaf's text stands, else 0."""
    starts = batch.node_start
    out = torch.zeros(len(batch.leaf_end), starts[-1])
    for leaf, path in enumerate(paths(batch)):
        for node in path:
            out[leaf, starts[node] : starts[node + 1]] = 1.0
    return (out / out.sum(1, keepdim=True)).to(like.device, like.dtype)


def load(chosen: Sequence[tuple[torch.Tensor, int]], real: int) -> torch.Tensor:
    """The experts [T, k] that tokens chose in each layer, with the number of experts -> how many choices each got, [layers, E], those
    of the `real` tokens alone. Layers with fewer experts have zeros at the end."""
    most = max(experts for _, experts in chosen)
    layers = torch.cat([index[:real].flatten() + layer * most for layer, (index, _) in enumerate(chosen)])
    return torch.bincount(layers, minlength=len(chosen) * most).view(len(chosen), most)


def figures(counts: torch.Tensor) -> dict[str, float | list[float]]:
    """What a step's journal says of `load`'s counts over the step.

    expert_load      share of the choices that went to each expert, over all layers: 1 / E each where they are even
    expert_load_max  the largest share of an expert in its layer, as a multiple of an even one
    experts_idle     share of the experts, over all layers, that no token of the step chose
    """
    shares = counts.double() / counts.sum(1, keepdim=True)
    return {
        "expert_load": [round(share, 5) for share in shares.mean(0).tolist()],
        "expert_load_max": round(float(shares.max()) * counts.shape[1], 4),
        "experts_idle": round(float((counts == 0).double().mean()), 5),
    }
