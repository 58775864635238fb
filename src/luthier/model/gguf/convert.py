"""GGUF -> a transformers folder: config.json, safetensors, tokenizer, chat template, generation_config.json.

Llama and Qwen models are converted here, exactly and in seconds; other architectures go through
transformers' own GGUF loader.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from luthier.core.errors import InputError
from luthier.core.foreign.calls import library_errors
from luthier.core.storage.files import refuse_pointer, write_json
from luthier.model.gguf.container import DOWNLOAD_AGAIN, Header, TensorPlace, expand, read_header
from luthier.model.gguf.tokenizer import alone, write_tokenizer
from luthier.model.quiet import quiet

SHARD_BYTES = 2 * 1024**3


def convert(path: Path, out: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the model in the GGUF file `path` into the folder `out`, weights rounded to `dtype`.

    Quantized blocks are expanded in float32 and rounded once. Raises InputError for a file that is
    not whole and for an architecture or tokenizer that neither Luthier nor transformers can convert.
    """
    header = read_header(path)
    _hold_counts(header)
    out.mkdir(parents=True, exist_ok=True)
    if header.architecture in _ARCHITECTURES:
        config = _config(header, dtype)
        _write_shards(out, dtype, _places_by_parameter(header, config), header)
    else:
        config = convert_through_transformers(header, out, dtype)
    config.save_pretrained(out)
    write_tokenizer(header, out, config.max_position_embeddings)
    stops = _stop_ids(header)
    special = {"bos_token_id": config.bos_token_id, "eos_token_id": stops or None, "pad_token_id": config.pad_token_id}
    write_json(out / "generation_config.json", {name: value for name, value in special.items() if value is not None})


def read_config(path: Path) -> Any | None:
    """The configuration of the model in a GGUF file, of whose weights none is read; None for an architecture that transformers
    converts. Raises InputError as `convert` does."""
    refuse_pointer(path)
    header = read_header(path)
    _hold_counts(header)
    return _config(header, torch.bfloat16) if header.architecture in _ARCHITECTURES else None


def _stop_ids(header: Header) -> list[int]:
    """End of text, of turn and of message, in that order, each once: generation stops at any of them."""
    count = len(header.several("tokenizer.ggml.tokens", str))
    found = [header.token(name, count) for name in ("eos", "eot", "eom")]
    return list(dict.fromkeys(token for token in found if token is not None))


def _hold_counts(header: Header) -> None:
    """Raise InputError for counts and lengths that the tensors do not bear out: nothing of their size is made."""
    widest = max((max(place.shape) for place in header.tensors.values()), default=1)
    for key, value in header.values.items():
        if not key.startswith(f"{header.architecture}.") or isinstance(value, (str, list)):
            continue
        if key == header.own("block_count"):
            header.whole(key, len(header.tensors), 0)
        elif key.endswith(("context_length", "original_context_length")):
            header.whole(key, 1 << 31)
        elif re.search(r"(_count|_length|_size|dimension_count)(_kv)?$", key):
            header.whole(key, max(widest, 1 << 16), 0)


# Architecture -> whether llama.cpp stores the rows of q and k in its own rotary order.
_ARCHITECTURES = {"llama": True, "qwen2": False, "qwen3": False}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def _config(header: Header, dtype: torch.dtype) -> Any:
    """The transformers configuration that the header describes."""
    from transformers import AutoConfig

    architecture = header.architecture
    if header.own("expert_count") in header.values or "token_embd.weight" not in header.tensors:
        raise InputError(
            f"this kind of '{architecture}' GGUF cannot be converted", where=header.path, fix=DOWNLOAD_AGAIN
        )
    size = max(max(place.shape) for place in header.tensors.values())
    hidden, heads = (
        header.whole(header.own("embedding_length"), size),
        header.whole(header.own("attention.head_count"), size),
    )
    width = header.whole(header.own("attention.key_length"), size, 2, hidden // heads)
    tokens = header.tensors["token_embd.weight"].shape[0]
    settings = {
        "vocab_size": tokens,
        "hidden_size": hidden,
        "intermediate_size": header.whole(header.own("feed_forward_length"), size),
        "num_hidden_layers": header.whole(header.own("block_count"), len(header.tensors)),
        "num_attention_heads": heads,
        "num_key_value_heads": header.whole(header.own("attention.head_count_kv"), heads, 1, heads),
        "head_dim": width,
        "max_position_embeddings": header.whole(header.own("context_length"), 1 << 31),
        "rms_norm_eps": _decimal(header.decimal(header.own("attention.layer_norm_rms_epsilon"))),
        "rope_parameters": _rope(header, width),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "bos_token_id": header.token("bos", tokens),
        "eos_token_id": header.token("eos", tokens),
        "pad_token_id": header.token("padding", tokens),
        "dtype": dtype,
    }
    if architecture == "llama":
        settings["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
        settings["mlp_bias"] = "blk.0.ffn_up.bias" in header.tensors
    with library_errors(f"its header describes no {architecture} model", where=header.path, fix=DOWNLOAD_AGAIN):
        return AutoConfig.for_model(architecture, **settings)


def _decimal(value: float) -> float:
    """The short decimal that was stored as a float32: 9.99999974e-06 -> 1e-05."""
    return float(f"{value:.7g}")


def _rope(header: Header, head_dim: int) -> dict[str, Any]:
    """Rotary settings: plain, linear, or Llama 3's, which a GGUF stores only as its divisors per frequency."""
    base = _decimal(header.decimal(header.own("rope.freq_base"), 10000.0))
    plain = {"rope_type": "default", "rope_theta": base}
    scaling = header.text(header.own("rope.scaling.type"), "none")
    if "rope_freqs.weight" in header.tensors:
        stored = torch.from_numpy(expand(header, header.tensors["rope_freqs.weight"])).double()
        return plain | _llama3_rope(stored, base, head_dim, header.path)
    if scaling == "linear":
        return plain | {"rope_type": "linear", "factor": header.decimal(header.own("rope.scaling.factor"))}
    if scaling != "none":
        raise InputError(f"rotary scaling '{scaling}' is not supported", where=header.path, fix="take another model")
    return plain


def _llama3_rope(stored: torch.Tensor, base: float, head_dim: int, path: Path) -> dict[str, Any]:
    """Llama 3's rotary settings, whose divisors must come out as those `stored`."""
    factor = float(stored.max())
    found = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
             "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
    wavelength = 2 * math.pi * base ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    smooth = ((8192 / wavelength - 1.0) / (4.0 - 1.0)).clamp(0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if stored.shape != expected.shape or not torch.allclose(stored, expected, rtol=1e-3):
        raise InputError("the rotary frequencies are scaled in an unknown way", where=path, fix="take another model")
    return found


def _places_by_parameter(header: Header, config: Any) -> dict[str, TensorPlace]:
    """Parameter name -> its tensor in the file; every parameter once, with the shape the model has."""
    from transformers import AutoModelForCausalLM

    found: dict[str, TensorPlace] = {}
    for name, place in header.tensors.items():
        parts = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
        table = _LAYER if parts and parts[1] else _TOP
        if name == "rope_freqs.weight":
            continue
        if parts is None or parts[2] not in table:
            raise InputError(f"unknown tensor '{name}'", where=header.path, fix="take another model")
        prefix = f"model.layers.{parts[1]}." if parts[1] else ""
        found[f"{prefix}{table[parts[2]]}.{parts[3]}"] = place
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    expected = {name: tuple(value.shape) for name, value in model.named_parameters()}
    for name in sorted(expected.keys() ^ found.keys()):
        what = "is missing" if name in expected else "belongs to no layer of the model"
        raise InputError(f"weight '{name}' {what}", where=header.path, fix=DOWNLOAD_AGAIN)
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise InputError(
                f"weight '{name}' has shape {found[name].shape}, not {shape}", where=header.path, fix=DOWNLOAD_AGAIN
            )
    return found


def _rotary_order(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp interleaves the two halves of each head's rows (2i, 2i+1); transformers keeps them apart (i, i+D/2)."""
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)


def _write_shards(out: Path, dtype: torch.dtype, places: dict[str, TensorPlace], header: Header) -> None:
    """Expand and write the weights, SHARD_BYTES at a time, so that a large model need not fit in memory."""
    most = 1 << 31
    heads = {"attn_q": header.whole(header.own("attention.head_count"), most)}
    heads["attn_k"] = header.whole(header.own("attention.head_count_kv"), most, 1, heads["attn_q"])

    def weight(place: TensorPlace) -> torch.Tensor:
        values = torch.from_numpy(expand(header, place))
        part = place.name.split(".")[-2]
        if _ARCHITECTURES[header.architecture] and part in heads:
            values = _rotary_order(values, heads[part])
        return values.to(dtype).contiguous()

    shards = list(_shards(places, dtype.itemsize))
    index: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: weight(places[name]) for name in names}, out / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(math.prod(place.shape) for place in places.values()) * dtype.itemsize
        write_json(out / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})


def _shards(places: dict[str, TensorPlace], width: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, place in places.items():
        grown = size + math.prod(place.shape) * width
        if names and grown > SHARD_BYTES:
            yield names
            names, grown = [], math.prod(place.shape) * width
        names.append(name)
        size = grown
    yield names


def convert_through_transformers(header: Header, out: Path, dtype: torch.dtype) -> Any:
    """Let transformers load the file, and write what it loaded. Slower, and the model must fit in memory."""
    import transformers

    # Newer versions keep the blocks packed unless told otherwise; older ones have no such setting.
    packing = getattr(transformers, "GgufConfig", None)
    unpacked = {"quantization_config": packing(dequantize=True)} if packing else {}
    what, fix = f"GGUF of architecture '{header.architecture}' cannot be converted", "take a folder with safetensors"
    with alone(header.path) as folder, quiet(), library_errors(what, where=header.path, fix=fix, copy=folder):
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=header.path.name, dtype=dtype, local_files_only=True, output_loading_info=True, **unpacked
        )
    if report["missing_keys"]:
        raise InputError(
            f"weights are missing: {sorted(report['missing_keys'])[0]}", where=header.path, fix=DOWNLOAD_AGAIN
        )
    weights = {name: value.detach().to(dtype).contiguous() for name, value in model.named_parameters()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = model.config
    config.architectures = [type(model).__name__]
    for name in ("quantization_config", "_pre_quantization_dtype"):
        config.__dict__.pop(name, None)
    return config
