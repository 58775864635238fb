"""Small valid files of every kind that Luthier reads, made once, to be damaged."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROWS = [
    {"instruction": f"name the thing number {i}", "input": "the cat sat" if i % 3 else "", "output": "cat" if i % 2 else "a red dog"}
    for i in range(24)
]  # fmt: skip
ROWS += [ROWS[0] | {"output": "a blue tree"}, ROWS[0]]  # contradictions, to be corrected
CHATS = [
    {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": f"who sat on mat {i}?"},
                  {"role": "assistant", "content": "the cat"}], "source": "a" if i % 2 else "b"}
    for i in range(6)
]  # fmt: skip
PAIRS = [{"prompt": f"what ran {i}?", "chosen": "the dog ran", "rejected": "no"} for i in range(6)]
TOOLS = [
    {"messages": [{"role": "user", "content": "add"}, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{\"a\": 1}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "2"}, {"role": "assistant", "content": "2"}],
     "tools": [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "null"}}}}}]}
] * 3  # fmt: skip
LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "alpaca": ROWS[:6], "chats": CHATS, "pairs": PAIRS, "tools": TOOLS,
    "sharegpt": [{"conversations": [{"from": "human", "value": "who?"}, {"from": "gpt", "value": "the cat"}]}] * 3,
    "labels": [{"text": f"a red tree {i}", "label": i % 2} for i in range(6)],
    "rankings": [{"prompt": "who?", "responses": ["the cat", "a dog", "no"], "scores": [3, 2.5, 1]}] * 3,
    "rated": [{"prompt": "who?", "completion": "the cat", "label": True}, {"prompt": "what?", "completion": "no", "label": False}],
    "triples": [{"anchor": "the cat", "positive": "a cat", "negative": "a tree"}] * 3,
    "squad": [{"title": "t", "paragraphs": [{"context": "the cat sat", "qas": [{"question": "who?", "answers": [{"text": "cat"}]}]}]}],
    "texts": [{"text": "the cat sat on the mat by the tree"}] * 3,
}  # fmt: skip
JUDGMENTS = [
    {"prompt": f"who sat {i}?", "models": ["base", "tuned"], "answers": ["a dog", f"the cat {i}"], "order": [1, 0] if i % 2 else [0, 1],
     "verdict": [2, 1] if i % 3 else [1, 1], "annotator": "ann", "info": {"margin": 0.5}}
    for i in range(8)
]  # fmt: skip
ALPACA_EVAL = [
    {"instruction": f"who {i}?", "output_1": "a", "output_2": "b", "generator_1": "m", "generator_2": "n", "preference": 1.0 + i % 2,
     "annotator": "x"}
    for i in range(4)
]  # fmt: skip
SUITE = """\
name: small
system: be brief
pass_rate: 0.5
sampling: {max_new_tokens: 8, seed: 3}
groups:
  - name: facts
    threshold: 0.5
    checks:
      - length: {max: 80}
    cases:
      - prompt: who sat on the mat?
        checks:
          - contains: cat
          - not: {regex: "^dog"}
      - name: numbers
        messages:
          - {role: user, content: "how many?"}
        reference: "3"
        checks:
          - number: {value: 3, within: 0.5}
          - one_of: [three, "3"]
  - name: rows
    rows: rows.jsonl
    prompt: "{instruction}"
    checks:
      - similar: {to: "{output}", at_least: 0.2}
      - json: {schema: {type: object, properties: {a: {type: integer}}, $defs: {}}}
      - equals: {text: "{output}", ignore_case: true}
"""
ANSWERS = ("the cat sat", "3", '{"a": 1}', "", "x" * 300, "[[1, 2], {}]")


@dataclass(frozen=True)
class Material:
    """The valid files: folders of models, adapters and a run; files of rows by name."""

    model: Path
    sharded: Path
    gguf: bytes
    adapter: Path
    peft: Path
    encoder: Path
    run: Path
    rows: dict[str, bytes]
    fixes: bytes


def copies(folder: Path, to: Path) -> None:
    """The regular files below a folder, copied; small ones, so that this takes no time."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(".lock"):
            place = to / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())


def rows_as_files() -> dict[str, bytes]:
    """The rows of every layout as JSON Lines; some as JSON, CSV, TSV, parquet, Arrow, text, and compressed."""
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    lines = {name: "".join(json.dumps(row) + "\n" for row in rows).encode() for name, rows in LAYOUTS.items()}
    out = {f"{name}.jsonl": text for name, text in lines.items()}
    out |= {f"{name}.json": json.dumps(LAYOUTS[name], indent=1).encode() for name in ("alpaca", "chats", "squad")}
    out["columns.json"] = json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}).encode()
    out["splits.json"] = json.dumps({"version": 1, "train": ROWS[:4], "test": ROWS[4:6]}).encode()
    for mark, ending in ((",", "csv"), ("\t", "tsv")):
        cells = [list(ROWS[0]), *([f'"{value}"' for value in row.values()] for row in ROWS[:8])]
        out[f"table.{ending}"] = "\n".join(mark.join(row) for row in cells).encode() + b"\n"
    out["labels.csv"] = (
        b"text,label,score\n" + b"".join(b"a red tree %d,%d,%d.0\n" % (i, i % 2, i) for i in range(9)) + b"x,,\n"
    )
    out["notes.txt"] = b"the cat sat on the mat.\n\nA red dog ran by the tree.\n" * 4
    out["page.md"] = b"# Title\n\nthe cat sat\n\n```python\nx = 1\n```\n" * 3
    for name in ("alpaca", "chats", "tools"):
        out[f"{name}.jsonl.gz"] = gzip.compress(lines[name], mtime=0)
        table = pa.Table.from_pylist(json.loads(json.dumps(LAYOUTS[name])))
        out[f"{name}.parquet"], out[f"{name}.arrow"] = written(table, "parquet"), written(table, "arrow")
    return out


def written(table: Any, kind: str) -> bytes:
    """An Arrow table as the bytes of a parquet file, an Arrow file, or an Arrow stream."""
    import pyarrow as pa
    import pyarrow.parquet

    sink = pa.BufferOutputStream()
    if kind == "parquet":
        pa.parquet.write_table(table, sink)
    else:
        opened = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with opened(sink, table.schema) as writer:
            writer.write_table(table)
    return bytes(sink.getvalue())


# The header of a small GGUF file: key -> (type, value), as docs/gguf.md of ggml numbers the types.
BYTES = sorted(
    {chr(b) for b in [*range(33, 127), *range(161, 173), *range(174, 256)]} | {chr(256 + n) for n in range(68)}
)
TOKENS = ["<|a|>", "<|b|>", *BYTES, "Ġt", "he", "Ġthe"]
U32, F32, BOOL, TEXT, ARRAY, U64, F64, I32 = 4, 6, 7, 8, 9, 10, 12, 5
GGUF: dict[str, tuple[Any, Any]] = {
    "general.architecture": (TEXT, "llama"),
    "llama.context_length": (U32, 64), "llama.embedding_length": (U32, 16), "llama.block_count": (U32, 1),
    "llama.feed_forward_length": (U32, 24), "llama.attention.head_count": (U32, 2), "llama.attention.head_count_kv": (U32, 1),
    "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5), "llama.rope.freq_base": (F32, 10000.0),
    "tokenizer.ggml.model": (TEXT, "gpt2"), "tokenizer.ggml.pre": (TEXT, "smollm"),
    "tokenizer.ggml.tokens": ((ARRAY, TEXT), TOKENS), "tokenizer.ggml.token_type": ((ARRAY, I32), [3, 3, *[1] * (len(TOKENS) - 2)]),
    "tokenizer.ggml.merges": ((ARRAY, TEXT), ["Ġ t", "h e", "Ġt he"]),
    "tokenizer.ggml.bos_token_id": (U32, 0), "tokenizer.ggml.eos_token_id": (U32, 1), "tokenizer.ggml.padding_token_id": (U32, 1),
    "tokenizer.ggml.add_bos_token": (BOOL, True),
    "tokenizer.chat_template": (TEXT, "{% for m in messages %}<|a|>{{ m['content'] }}<|b|>{% endfor %}"),
}  # fmt: skip
_CODES = {4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 12: "d"}


def gguf_tensors() -> dict[str, np.ndarray]:
    """The weights of the model that GGUF describes."""
    shapes = {
        "token_embd.weight": (len(TOKENS), 16), "output_norm.weight": (16,), "blk.0.attn_norm.weight": (16,),
        "blk.0.ffn_norm.weight": (16,), "blk.0.attn_q.weight": (16, 16), "blk.0.attn_k.weight": (8, 16),
        "blk.0.attn_v.weight": (8, 16), "blk.0.attn_output.weight": (16, 16), "blk.0.ffn_gate.weight": (24, 16),
        "blk.0.ffn_up.weight": (24, 16), "blk.0.ffn_down.weight": (16, 24),
    }  # fmt: skip
    draw = np.random.default_rng(0)
    return {name: draw.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def gguf_bytes(values: dict[str, tuple[Any, Any]], tensors: dict[str, np.ndarray]) -> bytes:
    """A GGUF file, version 3, whatever the values are."""
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)))
    for key, (kind, value) in values.items():
        out += _text(key) + _typed(kind, value)
    data = bytearray()
    for name, array in tensors.items():
        out += _text(name) + struct.pack("<I", array.ndim) + b"".join(struct.pack("<Q", n) for n in array.shape[::-1])
        out += struct.pack("<IQ", 0, len(data))
        data += array.tobytes()
        data += b"\0" * (-len(data) % 32)
    out += b"\0" * (-len(out) % 32)
    return bytes(out + data)


def _text(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw


def _typed(kind: Any, value: Any) -> bytes:
    if isinstance(kind, tuple):
        inner = kind[1]
        items = b"".join(_text(item) if inner == TEXT else struct.pack(f"<{_CODES[inner]}", item) for item in value)
        return struct.pack("<IIQ", ARRAY, inner, len(value)) + items
    return struct.pack("<I", kind) + (_text(value) if kind == TEXT else struct.pack(f"<{_CODES[kind]}", value))


def make(folder: Path, model: Path) -> Material:
    """All of it, below `folder`; `model` is a tiny model in transformers' format."""
    from luthier.config.resolve import resolve
    from luthier.diagnose.fixes import propose
    from luthier.tune.train import run

    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings = {
        "model": str(model), "data.path": [str(rows)], "out": str(folder / "run"), "threads": 1, "device": "cpu", "dtype": "float32",
        "train.batch": 8, "train.checkpoint": 1, "eval.rows": 4, "eval.samples": 3, "eval.max_new_tokens": 6, "eval.every": 2,
        "lora.rank": 2, "eval.forgetting": False, "data.holdout": 0.3,
    }  # fmt: skip
    run(resolve(settings))
    propose(folder / "run", folder / "fixes.jsonl")
    fixes = [json.loads(line) | {"accept": True} for line in (folder / "fixes.jsonl").read_text().splitlines()]
    return Material(
        model=model, sharded=_sharded(folder / "sharded", model), gguf=gguf_bytes(GGUF, gguf_tensors()),
        adapter=folder / "run" / "adapter", peft=_peft(folder / "peft", model), encoder=_encoder(folder / "encoder", model),
        run=folder / "run", rows=rows_as_files(),
        fixes="".join(json.dumps(fix) + "\n" for fix in fixes).encode(),
    )  # fmt: skip


def _sharded(out: Path, model: Path) -> Path:
    """The same model in two files, with an index."""
    from safetensors.torch import load_file, save_file

    copies(model, out)
    (out / "model.safetensors").unlink()
    tensors = load_file(model / "model.safetensors")
    names = {f"model-{i + 1:05d}-of-00002.safetensors": list(tensors)[i::2] for i in range(2)}
    for file, part in names.items():
        save_file({name: tensors[name] for name in part}, out / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, part in names.items() for name in part}}
    (out / "model.safetensors.index.json").write_text(json.dumps(index))
    return out


def _peft(out: Path, model: Path) -> Path:
    """An adapter as PEFT saves it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model)
    get_peft_model(base, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])).save_pretrained(out)
    return out


def _encoder(out: Path, model: Path) -> Path:
    """What sentence-transformers writes beside a model."""
    copies(model, out)
    (out / "1_Pooling").mkdir()
    kinds = ("Transformer", "Pooling", "Normalize")
    listed = [{"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
              for i, kind in enumerate(kinds)]  # fmt: skip
    (out / "modules.json").write_text(json.dumps(listed))
    (out / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    )
    (out / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": False}))
    return out
