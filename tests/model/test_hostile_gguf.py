"""GGUF files made to do harm: every number, type and list of the header is held against the file before memory is taken."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from luthier.core.errors import InputError
from luthier.model.gguf import container, convert
from luthier.model.hub.sources import resolve
from sentences import sentence

U8, I32, F32, BOOL, TEXT, ARRAY, U64, F64, U32 = 0, 5, 6, 7, 8, 9, 10, 12, 4
CODES = {U8: "B", I32: "i", F32: "f", BOOL: "?", U64: "Q", F64: "d", U32: "I"}
BYTES = sorted(
    {chr(b) for b in [*range(33, 127), *range(161, 173), *range(174, 256)]} | {chr(256 + n) for n in range(68)}
)
TOKENS = ["<|a|>", "<|b|>", *BYTES]
VALUES: dict[str, tuple[Any, Any]] = {
    "general.architecture": (TEXT, "llama"), "llama.context_length": (U32, 64), "llama.embedding_length": (U32, 16),
    "llama.block_count": (U32, 1), "llama.feed_forward_length": (U32, 24), "llama.attention.head_count": (U32, 2),
    "llama.attention.head_count_kv": (U32, 2), "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
    "llama.rope.freq_base": (F32, 1e4), "tokenizer.ggml.model": (TEXT, "gpt2"), "tokenizer.ggml.pre": (TEXT, "smollm"),
    "tokenizer.ggml.tokens": ((ARRAY, TEXT), TOKENS), "tokenizer.ggml.merges": ((ARRAY, TEXT), []),
    "tokenizer.ggml.token_type": ((ARRAY, I32), [3, 3] + [1] * len(BYTES)), "tokenizer.ggml.bos_token_id": (U32, 0),
    "tokenizer.ggml.eos_token_id": (U32, 1),
}  # fmt: skip


def packed(kind: Any, value: Any) -> bytes:
    if kind == TEXT:
        return struct.pack("<Q", len(value.encode())) + value.encode()
    if isinstance(kind, tuple):
        return struct.pack("<IQ", kind[1], len(value)) + b"".join(packed(kind[1], item) for item in value)
    return struct.pack(f"<{CODES[kind]}", value)


def file(values: dict[str, tuple[Any, Any]], rename: dict[str, str] | None = None) -> bytes:
    """A GGUF file of a Llama of one layer, with these values in its header."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(TOKENS), hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=2, tie_word_embeddings=True)  # fmt: skip
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "attn_norm", "q_proj": "attn_q",
             "post_attention_layernorm": "ffn_norm", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
             "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}  # fmt: skip
    table, data = b"", b""
    tensors = list(LlamaForCausalLM(config).named_parameters())
    for name, weight in tensors:
        parts = name.split(".")
        new = f"blk.0.{names[parts[-2]]}.weight" if parts[1] == "layers" else f"{names['.'.join(parts[:-1])]}.weight"
        table += packed(TEXT, (rename or {}).get(new, new)) + struct.pack("<I", weight.dim())
        table += b"".join(struct.pack("<Q", size) for size in reversed(weight.shape)) + struct.pack("<IQ", 0, len(data))
        content = weight.detach().numpy().astype(np.float32).tobytes()
        data += content + b"\0" * (-len(content) % 32)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, (kind, value) in values.items():
        header += (
            packed(TEXT, key) + struct.pack("<I", ARRAY if isinstance(kind, tuple) else kind) + packed(kind, value)
        )
    header += table
    return header + b"\0" * (-len(header) % 32) + data


def refusal(path: Path, out: Path) -> str:
    with pytest.raises(InputError) as caught:
        convert.convert(path, out)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_the_file_itself_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(file(VALUES))
    convert.convert(path, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("llama.block_count", (U32, 2**32 - 1)), ("llama.block_count", (U64, 10**6)), ("llama.block_count", (I32, -1)),
     ("llama.block_count", (TEXT, "1")), ("llama.block_count", (F64, float("nan"))), ("llama.block_count", ((ARRAY, U32), [1])),
     ("llama.embedding_length", (U64, 10**9)), ("llama.attention.head_count", (U32, 0)), ("llama.attention.head_count", (U32, 2**31)),
     ("llama.attention.head_count_kv", (U32, 0)), ("llama.attention.head_count_kv", (TEXT, "2")),
     ("llama.attention.key_length", (F32, float("inf"))), ("llama.feed_forward_length", (U64, 2**63)), ("llama.context_length", (U32, 0)),
     ("llama.context_length", (U64, 2**60)), ("llama.attention.layer_norm_rms_epsilon", (F64, float("inf"))),
     ("llama.attention.layer_norm_rms_epsilon", (TEXT, "x")), ("llama.rope.freq_base", (F32, float("nan"))),
     ("llama.rope.freq_base", (TEXT, "x")), ("llama.rope.scaling.type", (U32, 3)), ("llama.expert_count", (U64, 2**40)),
     ("tokenizer.ggml.tokens", (U32, 9)), ("tokenizer.ggml.tokens", ((ARRAY, U32), [1, 2])), ("tokenizer.ggml.merges", ((ARRAY, I32), [1])),
     ("tokenizer.ggml.merges", (TEXT, "a b")), ("tokenizer.ggml.token_type", ((ARRAY, F32), [0.5])),
     ("tokenizer.ggml.token_type", ((ARRAY, TEXT), ["x"])), ("tokenizer.ggml.bos_token_id", (TEXT, "0")),
     ("tokenizer.ggml.eos_token_id", (U32, 2**32 - 1)), ("tokenizer.ggml.eos_token_id", (I32, -1)),
     ("tokenizer.ggml.eot_token_id", ((ARRAY, U32), [1])), ("tokenizer.ggml.add_bos_token", (TEXT, "yes")),
     ("tokenizer.ggml.pre", (U32, 1)), ("tokenizer.ggml.model", ((ARRAY, TEXT), [])), ("tokenizer.chat_template", (U32, 1))],
)  # fmt: skip
def test_values_of_other_types_and_sizes_are_named(tmp_path: Path, key: str, value: tuple[Any, Any]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(file(VALUES | {key: value}))
    assert f"'{key}' of the GGUF header is" in refusal(path, tmp_path / "out")


@pytest.mark.parametrize(
    "key", [key for key in VALUES if key.startswith("llama.") and "kv" not in key and "base" not in key]
)
def test_values_that_are_absent_are_named(tmp_path: Path, key: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(file({name: value for name, value in VALUES.items() if name != key}))
    assert f"'{key}' of the GGUF header is absent" in refusal(path, tmp_path / "out")


def test_lists_are_bounded_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(file(VALUES | {"x": ((ARRAY, U8), [0] * 900), "y": ((ARRAY, U8), [0] * 900)}))
    monkeypatch.setattr(container, "ITEMS", 2000)
    assert "lists of more than 2,000 items" in refusal(path, tmp_path / "out")
    monkeypatch.setattr(container, "HEADER_BYTES", 1000)
    assert "the GGUF header is longer than" in refusal(path, tmp_path / "out")


def test_what_lies_beside_a_file_is_not_read(tmp_path: Path) -> None:
    """transformers' own reader of GGUF applies adapters and takes tokenizers that it finds in the folder."""
    path = tmp_path / "m.gguf"
    path.write_bytes(file({**VALUES, "general.architecture": (TEXT, "gemma")}))
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}')
    seen: list[list[str]] = []
    whole = convert.alone

    def watched(path: Path) -> Any:
        context = whole(path)
        folder = context.__enter__()
        seen.append([entry.name for entry in folder.iterdir()])
        context.__exit__(None, None, None)
        return whole(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "alone", watched)
        (tmp_path / "out").mkdir()
        with pytest.raises(InputError):
            convert.convert_through_transformers(container.read_header(path), tmp_path / "out", torch.float32)
    assert seen == [["m.gguf"]]


def test_a_pipe_is_no_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    os.mkfifo(tmp_path / "m.gguf")
    with pytest.raises(InputError):
        resolve(str(tmp_path / "m.gguf"))
    with pytest.raises(InputError, match=sentence("pipe in the way")):
        container.read_header(tmp_path / "m.gguf")
