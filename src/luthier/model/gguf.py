"""GGUF -> a transformers folder: config.json, safetensors, tokenizer, chat template, generation_config.json.

The header is read by `read_header`, which trusts no number in the file before it is checked against the
file's size. Blocks are expanded with the `gguf` package. Llama and Qwen models and byte-level tokenizers
are converted here, exactly and in seconds; others go through transformers' own GGUF loader.
"""

from __future__ import annotations

import itertools
import json
import math
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from safetensors.torch import save_file

from luthier.core.errors import InputError
from luthier.core.files import write_json
from luthier.core.log import warn

if TYPE_CHECKING:
    import numpy as np

FRESH = "download the file again, or take another model"
SHARD_BYTES = 2 * 1024**3

# --- The file -------------------------------------------------------------------------------------

_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor lies in the file. `shape` is in torch's order, `start` counts from the file's first byte."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself: `values` are its metadata, `tensors` its table of weights by name."""

    path: Path
    values: dict[str, Any]
    tensors: dict[str, TensorPlace]

    @property
    def architecture(self) -> str:
        return str(self.values["general.architecture"])

    def number(self, key: str, kind: type[int] | type[float] = int) -> Any:
        """A required number of the architecture, such as number('block_count')."""
        name = f"{self.architecture}.{key}"
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"the GGUF header has no number '{name}'", where=self.path, mend=FRESH)
        return kind(value)


class _Cursor:
    """Reads little-endian values in order and never past the end of the file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.place = data, path, 0

    def fail(self, what: str) -> InputError:
        return InputError(f"{what} at byte {self.place}", where=self.path, mend=FRESH)

    def skip(self, count: int) -> int:
        """Move on by `count` bytes and return where they began."""
        start = self.place
        if count > len(self.data) - start:
            raise self.fail("the GGUF file is truncated or its header is wrong")
        self.place += count
        return start

    def number(self, code: str) -> Any:
        return struct.unpack_from(f"<{code}", self.data, self.skip(struct.calcsize(f"<{code}")))[0]

    def count(self, least: int) -> int:
        """A number of things that take at least `least` bytes each: so many must fit in what is left."""
        found = int(self.number("Q"))
        if found * least > len(self.data) - self.place:
            raise self.fail(f"the GGUF header promises {found} entries, more than the file holds,")
        return found

    def text(self) -> str:
        length = self.count(1)
        start = self.skip(length)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail("the GGUF header has text that is not UTF-8") from None

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise self.fail(f"the GGUF header has a value of unknown type {kind}")
        item = self.number("I")
        if item == _STRING:
            return [self.text() for _ in range(self.count(8))]
        if item not in _NUMBERS:
            raise self.fail(f"the GGUF header has an array of type {item}")
        width = struct.calcsize(_NUMBERS[item])
        count = self.count(width)
        return list(struct.unpack_from(f"<{count}{_NUMBERS[item]}", self.data, self.skip(count * width)))


def read_header(path: Path) -> Header:
    """The metadata and the tensor table of a GGUF file (version 2 or 3, little-endian).

    Every count, length, offset and size is checked against the file before it is used, tensors may
    not overlap, and names may not repeat. Raises InputError for a file that is not whole.
    """
    try:
        with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(_Cursor(data, path))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the GGUF file: {error}", where=path, mend=FRESH) from None


def _header(cursor: _Cursor) -> Header:
    if cursor.number("4s") != b"GGUF":
        raise InputError("not a GGUF file", where=cursor.path, mend=FRESH)
    version = cursor.number("I")
    if version not in (2, 3):
        raise cursor.fail(f"GGUF version {version}; this reader knows 2 and 3,")
    tensor_count, value_count = cursor.count(24), cursor.count(13)
    values: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.text()
        if key in values:
            raise cursor.fail(f"the GGUF header names '{key}' twice")
        values[key] = cursor.value(cursor.number("I"))
    if not isinstance(values.get("general.architecture"), str):
        raise InputError("the GGUF header names no architecture", where=cursor.path, mend=FRESH)
    table = [_table_entry(cursor) for _ in range(tensor_count)]
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        raise cursor.fail(f"the GGUF header has alignment {alignment!r}, not a power of two,")
    start = -(-cursor.place // alignment) * alignment
    return Header(cursor.path, values, _tensor_places(cursor, table, start, alignment))


def _table_entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.text()
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= 4:
        raise cursor.fail(f"tensor '{name}' has {dimensions} dimensions")
    shape = tuple(int(cursor.number("Q")) for _ in range(dimensions))
    return name, shape[::-1], int(cursor.number("I")), int(cursor.number("Q"))


def _tensor_places(
    cursor: _Cursor, table: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int
) -> dict[str, TensorPlace]:
    places: dict[str, TensorPlace] = {}
    for name, shape, number, offset in table:
        try:
            kind = GGMLQuantizationType(number)
            block, width = GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError):
            raise cursor.fail(f"tensor '{name}' has unknown type {number}") from None
        size = math.prod(shape) // block * width
        end = start + offset + size
        if name in places or 0 in shape or shape[-1] % block or offset % alignment or end > len(cursor.data):
            raise cursor.fail(f"tensor '{name}' does not fit the file (shape {shape}, offset {offset}, ends at {end})")
        places[name] = TensorPlace(name, shape, kind, start + offset, size)
    ordered = sorted(places.values(), key=lambda place: place.start)
    for before, after in itertools.pairwise(ordered):
        if before.start + before.size > after.start:
            raise cursor.fail(f"tensors '{before.name}' and '{after.name}' overlap")
    return places


# --- Conversion -----------------------------------------------------------------------------------


def convert(path: Path, out: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the model in the GGUF file `path` into the folder `out`, weights rounded to `dtype`.

    Quantized blocks are expanded in float32 and rounded once. Raises InputError for a file that is
    not whole and for an architecture or tokenizer that neither Luthier nor transformers can convert.
    """
    header = read_header(path)
    out.mkdir(parents=True, exist_ok=True)
    if header.architecture in _ARCHITECTURES:
        config = _config(header, dtype)
        _write_shards(out, dtype, _places_by_parameter(header, config), header)
    else:
        config = _convert_through_transformers(header, out, dtype)
    config.save_pretrained(out)
    _write_tokenizer(header, out, config)
    stops = _stop_ids(header)
    special = {"bos_token_id": config.bos_token_id, "eos_token_id": stops or None, "pad_token_id": config.pad_token_id}
    write_json(out / "generation_config.json", {name: value for name, value in special.items() if value is not None})


def _stop_ids(header: Header) -> list[int]:
    """End of text, of turn and of message, in that order, each once: generation stops at any of them."""
    found = [header.values.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    return list(dict.fromkeys(token for token in found if token is not None))


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

    architecture, heads = header.architecture, header.number("attention.head_count")
    hidden = header.number("embedding_length")
    if f"{architecture}.expert_count" in header.values or "token_embd.weight" not in header.tensors:
        raise InputError(f"this kind of '{architecture}' GGUF cannot be converted", where=header.path, mend=FRESH)
    key_length = header.values.get(f"{architecture}.attention.key_length")
    settings = {
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "hidden_size": hidden,
        "intermediate_size": header.number("feed_forward_length"),
        "num_hidden_layers": header.number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": header.values.get(f"{architecture}.attention.head_count_kv", heads),
        "head_dim": key_length or hidden // heads,
        "max_position_embeddings": header.number("context_length"),
        "rms_norm_eps": _decimal(header.number("attention.layer_norm_rms_epsilon", float)),
        "rope_parameters": _rope(header, key_length or hidden // heads),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "bos_token_id": header.values.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": header.values.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": header.values.get("tokenizer.ggml.padding_token_id"),
        "dtype": dtype,
    }
    if architecture == "llama":
        settings["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
        settings["mlp_bias"] = "blk.0.ffn_up.bias" in header.tensors
    return AutoConfig.for_model(architecture, **settings)


def _decimal(value: float) -> float:
    """The short decimal that was stored as a float32: 9.99999974e-06 -> 1e-05."""
    return float(f"{value:.7g}")


def _rope(header: Header, head_dim: int) -> dict[str, Any]:
    """Rotary settings: plain, linear, or Llama 3's, which a GGUF stores only as its divisors per frequency."""
    base = _decimal(float(header.values.get(f"{header.architecture}.rope.freq_base", 10000.0)))
    plain = {"rope_type": "default", "rope_theta": base}
    scaling = header.values.get(f"{header.architecture}.rope.scaling.type", "none")
    if "rope_freqs.weight" in header.tensors:
        stored = torch.from_numpy(_expand(header, header.tensors["rope_freqs.weight"])).double()
        return plain | _llama3_rope(stored, base, head_dim, header.path)
    if scaling == "linear":
        return plain | {"rope_type": "linear", "factor": header.number("rope.scaling.factor", float)}
    if scaling != "none":
        raise InputError(f"rotary scaling '{scaling}' is not supported", where=header.path, mend="take another model")
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
        raise InputError("the rotary frequencies are scaled in an unknown way", where=path, mend="take another model")
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
            raise InputError(f"unknown tensor '{name}'", where=header.path, mend="take another model")
        prefix = f"model.layers.{parts[1]}." if parts[1] else ""
        found[f"{prefix}{table[parts[2]]}.{parts[3]}"] = place
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    expected = {name: tuple(value.shape) for name, value in model.named_parameters()}
    for name in sorted(expected.keys() ^ found.keys()):
        what = "is missing" if name in expected else "belongs to no layer of the model"
        raise InputError(f"weight '{name}' {what}", where=header.path, mend=FRESH)
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise InputError(
                f"weight '{name}' has shape {found[name].shape}, not {shape}", where=header.path, mend=FRESH
            )
    return found


def _expand(header: Header, place: TensorPlace) -> np.ndarray:
    """The tensor in float32."""
    import numpy as np

    raw = np.fromfile(header.path, dtype=np.uint8, count=place.size, offset=place.start)
    block, width = GGML_QUANT_SIZES[place.kind]
    rows = raw.reshape(*place.shape[:-1], place.shape[-1] // block * width)
    plain = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}
    if place.kind in plain:
        return rows.view(plain[place.kind]).astype(np.float32)
    try:
        return np.ascontiguousarray(dequantize(rows, place.kind), dtype=np.float32)
    except NotImplementedError:
        raise InputError(
            f"weights of type {place.kind.name} cannot be expanded", where=header.path, mend="take another quantization"
        ) from None


def _rotary_order(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp interleaves the two halves of each head's rows (2i, 2i+1); transformers keeps them apart (i, i+D/2)."""
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)


def _write_shards(out: Path, dtype: torch.dtype, places: dict[str, TensorPlace], header: Header) -> None:
    """Expand and write the weights, SHARD_BYTES at a time, so that a large model need not fit in memory."""
    heads = {"attn_q": header.number("attention.head_count")}
    heads["attn_k"] = header.values.get(f"{header.architecture}.attention.head_count_kv", heads["attn_q"])

    def weight(place: TensorPlace) -> torch.Tensor:
        values = torch.from_numpy(_expand(header, place))
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


def _convert_through_transformers(header: Header, out: Path, dtype: torch.dtype) -> Any:
    """Let transformers load the file, and write what it loaded. Slower, and the model must fit in memory."""
    import transformers

    # Newer versions keep the blocks packed unless told otherwise; older ones have no such setting.
    packing = getattr(transformers, "GgufConfig", None)
    unpacked = {"quantization_config": packing(dequantize=True)} if packing else {}
    try:
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            header.path.parent, gguf_file=header.path.name, dtype=dtype, local_files_only=True,
            output_loading_info=True, **unpacked,
        )  # fmt: skip
    except (ValueError, ImportError, NotImplementedError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"GGUF of architecture '{header.architecture}' cannot be converted: {reason}",
            where=header.path, mend="take a folder with safetensors",
        ) from None  # fmt: skip
    if report["missing_keys"]:
        raise InputError(f"weights are missing: {sorted(report['missing_keys'])[0]}", where=header.path, mend=FRESH)
    weights = {name: value.detach().to(dtype).contiguous() for name, value in model.named_parameters()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = model.config
    config.architectures = [type(model).__name__]
    for name in ("quantization_config", "_pre_quantization_dtype"):
        config.__dict__.pop(name, None)
    return config


# --- Tokenizer ------------------------------------------------------------------------------------

# How text is cut before byte pairs are merged, by the file's `tokenizer.ggml.pre`. "digits" cuts every digit
# apart and then takes GPT-2's rule; a pattern replaces that rule. What is not here goes through transformers.
_GPT2, _DIGITS = "gpt2", "digits"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {
    "gpt-2": _GPT2, "smollm": _DIGITS, "starcoder": _DIGITS, "refact": _DIGITS, "command-r": _DIGITS,
    "llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3,
    "qwen2": _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),
}  # fmt: skip
_CONTROL, _USER_DEFINED = 3, 4


def _write_tokenizer(header: Header, out: Path, config: Any) -> None:
    values = header.values
    split = _SPLITS.get(str(values.get("tokenizer.ggml.pre")))
    if values.get("tokenizer.ggml.model") != "gpt2" or split is None:
        _write_transformers_tokenizer(header, out)
        return
    tokens = values.get("tokenizer.ggml.tokens", [])
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = values.get(f"tokenizer.ggml.{key}_token_id")
        if number is not None and not 0 <= number < len(tokens):
            raise InputError(f"{name} token {number} is not among {len(tokens)} tokens", where=header.path, mend=FRESH)
        settings[f"{name}_token"] = None if number is None else tokens[number]
    settings["model_max_length"] = config.max_position_embeddings
    if "tokenizer.chat_template" in values:
        settings["chat_template"] = values["tokenizer.chat_template"]
    tokenizer = _byte_pair_tokenizer(header, split, settings)
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "tokenizer_config.json", settings)


def _byte_pair_tokenizer(header: Header, split: str, special: dict[str, Any]) -> Any:
    """A byte-level BPE `tokenizers.Tokenizer` with the file's vocabulary, merges and added tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    values = header.values
    tokens = values.get("tokenizer.ggml.tokens", [])
    merges = [tuple(merge.split(" ")) for merge in values.get("tokenizer.ggml.merges", [])]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    whole = len(vocabulary) == len(tokens) > 0 and all(len(m) == 2 and "".join(m) in vocabulary for m in merges)
    if not whole or not vocabulary.keys() >= {part for merge in merges for part in merge}:
        raise InputError("the vocabulary or the merges of the tokenizer are broken", where=header.path, mend=FRESH)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=split == _LLAMA3))
    if values.get("tokenizer.ggml.pre") == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    cuts: list[Any] = []
    if split == _DIGITS:
        cuts.append(pre_tokenizers.Digits(individual_digits=True))
    elif split != _GPT2:
        cuts.append(pre_tokenizers.Split(Regex(split), behavior="isolated"))
    cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split in (_GPT2, _DIGITS)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, values.get("tokenizer.ggml.token_type", []), strict=False):
        if kind == _CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif kind == _USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=False)])
    before = special["bos_token"] if values.get("tokenizer.ggml.add_bos_token") else None
    after = special["eos_token"] if values.get("tokenizer.ggml.add_eos_token") else None
    around = [token for token in (before, after) if token]
    if around:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*([before] if before else []), "$A", *([after] if after else [])],
            special_tokens=[(token, vocabulary[token]) for token in around],
        )
    return tokenizer


def _write_transformers_tokenizer(header: Header, out: Path) -> None:
    """The tokenizer as transformers builds it, for kinds that are not byte-level BPE of a known cut."""
    from transformers import AutoTokenizer

    kind = header.values.get("tokenizer.ggml.model")
    if kind == "gpt2":
        warn(f"{header.path}: unknown text splitting '{header.values.get('tokenizer.ggml.pre')}'; tokens may differ")
    try:
        tokenizer = AutoTokenizer.from_pretrained(header.path.parent, gguf_file=header.path.name, local_files_only=True)
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"tokenizer '{kind}' cannot be converted: {reason}",
            where=header.path,
            mend="take a folder with safetensors",
        ) from None
    tokenizer.save_pretrained(out)
    settings = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    if "tokenizer.chat_template" in header.values:
        settings["chat_template"] = header.values["tokenizer.chat_template"]
        (out / "chat_template.jinja").unlink(missing_ok=True)
    write_json(out / "tokenizer_config.json", settings)
