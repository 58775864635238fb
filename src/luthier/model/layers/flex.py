"""Flex attention on a GPU: one block-sparse kernel that takes the rule of a plan, compiled when it is first needed."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch

from luthier.core import log
from luthier.core.foreign.calls import reason
from luthier.model.layers.scoring import Scoring

compiled: Any = None  # the kernel; False where compiling it failed
learns: set[tuple[Any, ...]] = set()  # caps, sinks, rules, sizes and types whose backward pass was seen to work


def block_sparse(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, scoring: Scoring) -> torch.Tensor | None:
    """Flex attention, compiled once per process (the eager form would build the whole score matrix); None where it
    cannot be compiled. Before the first step that learns its backward pass is tried too: that is compiled when it runs.

    Caps change scores within the kernel. A sink takes its part of the weights afterwards: exp(lse) / (exp(lse) + exp(sink)) is
    left of them, with lse the logarithm of the sum over the keys.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    global compiled
    if compiled is False:
        return None
    if compiled is None:
        compiled = torch.compile(flex_attention, dynamic=True)
    cap, sinks = scoring.softcap, scoring.sinks
    kernel = partial(compiled, block_mask=mask, scale=scoring.scaling, enable_gqa=True)
    if cap is not None:
        kernel = partial(kernel, score_mod=_capped(cap))
    if sinks is not None:
        kernel = partial(_without_sinks, partial(kernel, return_aux=AuxRequest(lse=True)), sinks)
    try:
        rule = getattr(mask, "mask_mod", None)  # its masks, sizes and types have kernels of their own
        kind = (cap, sinks is None, getattr(rule, "__name__", ""), q.shape[-1], q.dtype)
        if kind not in learns and torch.is_grad_enabled() and q.requires_grad:
            kernel(*(x.detach().requires_grad_() for x in (q, k, v))).sum().backward()
            learns.add(kind)
        out: torch.Tensor = kernel(q, k, v)
    except torch.OutOfMemoryError:
        raise
    except (TorchDynamoException, RuntimeError) as error:
        compiled = False
        log.warn(f"the attention kernel for this GPU could not be compiled, a slower one is used: {reason(error)}")
        return None
    return out


def _without_sinks(kernel: Any, sinks: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """What `kernel` gives, less the part that the sinks take."""
    out, aux = kernel(q, k, v)
    kept = torch.sigmoid(aux.lse - sinks.to(aux.lse.dtype).view(1, -1, 1))
    return (out * kept[..., None]).to(out.dtype)


@cache
def _capped(cap: float) -> Any:
    """The change of scores that flex attention compiles: one function for each cap, so that it is compiled once."""

    def change(score: torch.Tensor, b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return cap * torch.tanh(score / cap)

    return change
