"""Tiny random models of the architectures that transformers knows, made from their own default configurations.

`tiny_config(kind)` takes the default of a kind and makes it small by the names of its settings (SIZES); what that does not do
for a kind stands in EXCEPTIONS. Layers are of each kind that the architecture has, windows are shorter than the rows of the tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

VOCABULARY = 330
SIZES: dict[str, int] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size"), VOCABULARY),
    **dict.fromkeys(
        (
            "hidden_size", "d_model", "n_embd", "embedding_size", "dim", "word_embed_proj_dim", "decoder_hidden_size", "hidden_dim",
            "attention_hidden_size", "lru_width", "embed_dim", "out_hidden_size", "embedding_dim", "input_hidden_size", "emb_dim",
        ), 32,
    ),
    **dict.fromkeys(
        (
            "intermediate_size", "ffn_dim", "d_ff", "ffn_hidden_size", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim", "dff", "dim_ff",
            "feed_forward_size", "mlp_hidden_size", "dense_intermediate_size", "intermediate_size_mlp", "prefix_dense_intermediate_size",
        ), 64,
    ),
    **dict.fromkeys(
        (
            "moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size", "expert_intermediate_size",
            "expert_dim", "moe_shared_expert_intermediate_size", "expert_hidden_size", "expert_ffn_hidden_size",
        ), 24,
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers", "depth", "num_blocks"), 4
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads"), 4
    ),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_head", "swa_head_dim", "kv_channels"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "context_length"), 256),
    **dict.fromkeys(
        ("sliding_window", "attention_chunk_size", "local_attention", "window_size", "attention_window_size", "sliding_window_size"), 8
    ),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token", "top_k_experts"), 2),
    **dict.fromkeys(
        ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "first_k_dense_replace", "n_group", "topk_group"), 1
    ),
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 12, "qk_head_dim": 24,
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 16, "mamba_num_heads": 8,
    "mamba_head_dim": 8, "ssm_state_size": 8, "state_size": 8, "n_groups": 1, "chunk_size": 16, "mamba_d_ssm": 64,
    "image_size": 28, "patch_size": 14, "hidden_size_per_layer_input": 8, "laurel_rank": 4, "num_nextn_predict_layers": 0,
    "linear_head_dim": 8, "linear_num_heads": 4,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "rotary_dim": 4, "index_topk": 4,
}  # fmt: skip
_MLA = {"num_key_value_heads": 4, "head_dim": 8}
# Settings by kind, or by the kind of the text part, where the defaults made small are no model, or not the one that is in use.
EXCEPTIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        (
            "axk1", "axk2", "deepseek_v3", "deepseek_v32", "dots3_note_text", "glm4_moe_lite",
            "glm_moe_dsa", "minicpm3", "sarvam_mla", "youtu",
        ), _MLA,
    ),
    "bailing_hybrid": _MLA | {"layer_group_size": 2, "linear_head_dim": 8},
    "cpmant": {"dim_head": 8},
    "deepseek_v2": _MLA | {"num_experts_per_tok": 2},
    "kimi_linear": {"layer_types": ["linear_attention", "full_attention"] * 2, "num_key_value_heads": 4},
    "longcat_flash": _MLA | {"zero_expert_num": 1},
    "xlnet": {"d_head": 8},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "sliding_window": 8, "num_experts_per_tok": 2},
    "gemma2": {"query_pre_attn_scalar": 16, "final_logit_softcapping": 3.0},
    "gemma3n_text": {
        "num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 2, "altup_num_inputs": 2,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0], "intermediate_size": [64] * 4,
    },
    "gemma4_text": {"final_logit_softcapping": 2.0, "num_kv_shared_layers": 2, "global_head_dim": 24},
    "gemma4_unified_text": {"final_logit_softcapping": 2.0, "global_head_dim": 24},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.7, "attention_multiplier": 0.2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2, "logits_scaling": 3.0},
    "helium": {"head_dim": 8, "num_key_value_heads": 4},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "hyperclovax": {"logits_scaling": 0.5},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "falcon_h1": {"lm_head_multiplier": 0.5},
    "ministral": {"head_dim": 16},
    "nemotron": {"head_dim": 16},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 2},
    "qwen2_moe": {"use_sliding_window": True, "max_window_layers": 2},
    "qwen2_5_vl_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
    "qwen2_vl_text": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
    "recurrent_gemma": {"block_types": ["recurrent", "recurrent", "attention"]},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip


def tiny_config(kind: str, **changes: Any) -> Any:
    """The configuration of a tiny model of `kind`."""
    from transformers import CONFIG_MAPPING

    default = CONFIG_MAPPING[kind]()
    return CONFIG_MAPPING[kind](**(_small(default) | changes))


def _small(config: Any) -> dict[str, Any]:
    """The settings that differ from those of `config`."""
    from transformers import PretrainedConfig

    said, small = config.to_dict(), {}
    depth = next(
        (said[k] for k in ("num_hidden_layers", "n_layer", "n_layers", "num_layers") if isinstance(said.get(k), int)),
        None,
    )
    for name, value in said.items():
        part = vars(config).get(name)
        if isinstance(part, PretrainedConfig):
            small[name] = _small(part) | {"model_type": part.model_type}
        elif name in SIZES and ((isinstance(value, int) and not isinstance(value, bool)) or name == "sliding_window"):
            small[name] = SIZES[name]
        elif isinstance(value, list) and name.endswith("types") and len(value) == depth:
            kinds = list(dict.fromkeys(value))
            small[name] = (kinds * 4)[: max(4, len(kinds))]
    return small | EXCEPTIONS.get(config.model_type, {})


@torch.no_grad()
def spread(model: Any) -> None:
    """Give the weights of `model` values that are large enough for what is computed wrongly to show."""
    generator = torch.Generator().manual_seed(0)
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, torch.nn.Embedding)}
    for name, weight in model.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        if any(part in name for part in ("A_log", "dt_bias", ".D", "dt_proj", "x_proj", "time_", "alpha_")):
            continue  # of a recurrence: as the architecture starts them, so that it stays a number
        if weight.dim() >= 3 and "conv" in name:
            weight.copy_(drawn * 0.5)
        elif weight.dim() >= 2:
            weight.copy_(drawn * (0.3 if id(weight) in embeddings else weight.shape[-1] ** -0.5))
        elif "sinks" in name:
            weight.copy_(drawn)
        else:
            weight.add_(drawn * 0.1)


def make(kind: str, folder: Path, tokenizer: Any, **changes: Any) -> Path:
    """A folder with a tiny model of `kind`, as transformers writes it."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    torch.manual_seed(0)
    config = tiny_config(kind, **changes)
    whole = AutoModelForCausalLM if kind in CAUSAL else AutoModelForImageTextToText
    with torch.device("meta"):
        assert sum(weight.numel() for weight in whole.from_config(config).parameters()) < 2_000_000, "not tiny"
    model = whole.from_config(config).float()
    spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
