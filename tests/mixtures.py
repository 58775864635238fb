"""Tiny random mixtures of experts, as transformers has them."""

from __future__ import annotations

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from luthier.model.layers import attention, experts

VOCABULARY = 64
_PLAIN = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "head_dim": 16,
}
_SHARED = {"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
_LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 12, "head_dim": 8,
    "num_key_value_heads": 4,
}  # fmt: skip
FAMILIES = {
    "qwen3_moe": _EXPERTS,
    "mixtral": {**_EXPERTS, "sliding_window": None},
    "olmoe": {**_EXPERTS, "head_dim": 8, "intermediate_size": 24},
    "minimax_m2": _EXPERTS,
    "gpt_oss": {
        **_EXPERTS, "intermediate_size": 24, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "glm4_moe": {**_EXPERTS, **_SHARED},
    "deepseek_v2": {**_EXPERTS, **_SHARED, **_LATENT},
    "deepseek_v3": {**_EXPERTS, **_SHARED, **_LATENT},
}  # fmt: skip


def mixture(family: str = "qwen3_moe", dtype: torch.dtype = torch.float32, attention_of: str = "eager", **changes):
    """A seeded model with weights large enough to matter, whose experts are computed as transformers computes them."""
    attention.register()
    experts.register()
    config = CONFIG_MAPPING[family](**{**_PLAIN, **FAMILIES[family], **changes})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention_of, experts_implementation="eager")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 1.5 / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return model.to(dtype).eval()
