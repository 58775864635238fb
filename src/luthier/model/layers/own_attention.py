"""Decoders that do not hand `tree=` down to an attention that could be replaced.

    StableLM    hands its attention a mask, and nothing else that the model was called with
    GPT-Neo     writes its attention out: softmax(q k), with no scale, in every second layer over a window
    Falcon      too: positions are rotated, and one key or a few serve all heads
    Bloom, MPT  too: s_ij = scale q_i k_j + slope_h (p_j - p_i), another slope for each head (Press et al. 2022, arXiv:2108.12409)
    ModernBERT  the decoder: has a layer between its hidden states and the vocabulary head

All of them hand down a mask, whatever they do with it. So `Handed` stands in its place, made where transformers asks for the mask:
recomputed blocks are given the same one again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import MethodType
from typing import Any

import torch
from torch import nn

from luthier.core.errors import InputError
from luthier.model.layers.attention import NAME, Handed, handing
from luthier.model.layers.decoder import before_head, decoder
from luthier.model.layers.scoring import Local, Scoring

# Where transformers looks up by name what to build.
_CLASSES = {"gpt_neo": "GPT_NEO_ATTENTION_CLASSES", "falcon": "FALCON_ATTENTION_CLASSES"}
HIGH = 256  # positions are added as p = 256 (p // 256) + p % 256, of which 16 bits hold both


def know(config: Any) -> None:
    """Let transformers build a model of `config` for Luthier's attention, where it would not find the name. Raises InputError for a
    model that transformers itself computes in two ways."""
    text = config.get_text_config()
    kind = text.model_type
    if kind == "falcon" and text.alibi:
        raise InputError(
            "transformers adds the 'alibi' of Falcon's positions once in its fused attention and twice in its plain one, so neither "
            "can be held to the other", where="--model", fix="use a Falcon with rotated positions, such as falcon-7b",
        )  # fmt: skip
    if kind in _CLASSES:
        classes = getattr(import_module(f"transformers.models.{kind}.modeling_{kind}"), _CLASSES[kind])
        classes.setdefault(NAME, classes["eager"])


def hand_down(model: nn.Module) -> None:
    """Have the attention of every layer find the `tree=` that the decoder is called with, in place. Without one all is as before."""
    root = decoder(model)
    kinds = {id(module): type(module).__name__ for module in root.modules()}
    found = [module for module in root.modules() if kinds[id(module)] in _ATTENTIONS]
    for module in found:
        if own := _ATTENTIONS[kinds[id(module)]]:
            module.forward = MethodType(partial(_forward, own), module)
    for module in root.modules():
        if kinds[id(module)] == "FalconLinear":  # which gives the same as the layer that it is derived from
            module.__class__ = nn.Linear
    if found or before_head(model):
        root.between = (before_head(model),)  # in a tuple, so that it is no part of the decoder
        root.forward = MethodType(_decoder, root)


def _decoder(root: Any, *args: Any, tree: Any = None, **others: Any) -> Any:
    own = type(root).forward
    if tree is None:
        return own(root, *args, **others)
    with handing(tree, others["position_ids"]):
        out = own(root, *args, tree=tree, **others)
    if (between := root.between[0]) is not None:
        out.last_hidden_state = between(out.last_hidden_state)
    return out


def _forward(own: Callable[..., torch.Tensor], module: Any, hidden: torch.Tensor, *args: Any, **named: Any) -> Any:
    handed = named.get("attention_mask")
    if not isinstance(handed, Handed):
        return type(module).forward(module, hidden, *args, **named)
    return own(module, hidden, *args, handed, **named), None


def _gpt_neo(module: Any, hidden: torch.Tensor, handed: Handed, **named: Any) -> torch.Tensor:
    q, k, v = (layer(hidden) for layer in (module.q_proj, module.k_proj, module.v_proj))
    q, k, v = (module._split_heads(x, module.num_heads, module.head_dim) for x in (q, k, v))
    local = Local(module.config.window_size) if module.attention_type == "local" else None
    out = handed.tree.attend(module.layer_id, q, k, v, Scoring(1.0, local))
    return module.resid_dropout(module.out_proj(out.flatten(2)))


def _falcon(
    module: Any, hidden: torch.Tensor, handed: Handed, *, position_embeddings: Any, **named: Any
) -> torch.Tensor:
    from transformers.models.falcon.modeling_falcon import apply_rotary_pos_emb

    q, k, v = (x.transpose(1, 2) for x in module._split_heads(module.query_key_value(hidden)))
    if module.new_decoder_architecture:  # where keys are repeated for all heads
        k, v = (x[:, :: module.num_heads // module.num_kv_heads] for x in (k, v))
    q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
    out = handed.tree.attend(module.layer_idx, q, k, v, Scoring(module.inv_norm_factor))
    return module.dense(out.flatten(2))


def _bloom(module: Any, hidden: torch.Tensor, residual: torch.Tensor, handed: Handed, **named: Any) -> torch.Tensor:
    q, k, v = module._reshape(module.query_key_value(hidden))
    slope = slopes(module.num_heads).to(q.device)
    q, k = _with_line(q, k, slope / module.inv_norm_factor, handed.positions)
    out = module.dense(handed.tree.attend(module.layer_idx, q, k, v, Scoring(module.inv_norm_factor)).flatten(2))
    return residual + nn.functional.dropout(out, module.hidden_dropout, module.training)


def _mpt(
    module: Any, hidden: torch.Tensor, handed: Handed, *, position_bias: torch.Tensor, **named: Any
) -> torch.Tensor:
    mixed = module.Wqkv(hidden)
    if module.clip_qkv:
        mixed = mixed.clamp(-module.clip_qkv, module.clip_qkv)
    q, k, v = (x.unflatten(2, (module.n_heads, -1)).transpose(1, 2) for x in mixed.chunk(3, dim=2))
    slope = position_bias[:, 0, -1] - position_bias[:, 0, -2]
    q, k = _with_line(q, k, slope / module.softmax_scale, handed.positions)
    out = handed.tree.attend(module.layer_idx, q, k, v, Scoring(module.softmax_scale))
    return module.out_proj(out.flatten(2))


# By the class of the attention; None where it asks for an attention by name, as most do.
_ATTENTIONS: dict[str, Callable[..., torch.Tensor] | None] = {
    "StableLmAttention": None, "GPTNeoSelfAttention": _gpt_neo, "FalconAttention": _falcon, "BloomAttention": _bloom,
    "MptAttention": _mpt,
}  # fmt: skip


def slopes(heads: int) -> torch.Tensor:
    """Of each head, [heads]: 2^(-8 i / n), i from 1, for the largest power of two n; after these every second one of 2 n."""
    whole = 2 ** int(math.log2(heads))
    first = [2.0 ** (-8 * i / whole) for i in range(1, whole + 1)]
    return torch.tensor(first + [2.0 ** (-4 * i / whole) for i in range(1, 2 * (heads - whole), 2)])


def _with_line(
    q: torch.Tensor, k: torch.Tensor, slope: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """q and k [1, heads, T, D] with two more numbers each, whose products add slope_h p_j. What -slope_h p_i would add is the same for all
    keys, and no weight depends on it."""
    lines = torch.stack([HIGH * slope, slope], -1)[None, :, None].expand(*q.shape[:3], 2)
    places = torch.stack([positions // HIGH, positions % HIGH], -1)[:, None].expand(*k.shape[:3], 2)
    return torch.cat([q, lines.to(q.dtype)], -1), torch.cat([k, places.to(k.dtype)], -1)
