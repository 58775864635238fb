"""Models, adapters, encoders, tokenizers, templates and the cache, damaged and opened as `luthier chat` and `show` open them."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import fuzz_files
from fuzz_files import Material
from fuzz_mutate import damage
from fuzz_reading import changed_file, command, one_of, reader, say_something


@reader(36)
def model_folder(material: Material, draw: random.Random, folder: Path) -> None:
    place = folder / "m"
    fuzz_files.copies(draw.choice((material.model, material.model, material.sharded)), place)
    _plant(folder, place)
    changed_file(one_of(place, draw, "*.json", "*.json", "*.safetensors", "*.jinja"), draw)
    say_something(place)


def _plant(folder: Path, place: Path) -> None:
    """Pickles that nobody may open, in the folder and outside of it."""
    for path in (
        folder / "outside.bin",
        place / "adapter_model.bin",
        place / "pytorch_model.bin",
        place / "outside.bin",
    ):
        path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")


@reader(36)
def gguf(material: Material, draw: random.Random, folder: Path) -> None:
    path = folder / "small.gguf"
    path.write_bytes(other_gguf(draw) if draw.random() < 0.6 else damage(material.gguf, draw))
    say_something(path)


def other_gguf(draw: random.Random) -> bytes:
    """A GGUF file that is whole, with values or tensors that are others."""
    from fuzz_files import ARRAY, BOOL, F32, F64, GGUF, I32, TEXT, U32, U64

    values, tensors = dict(GGUF), fuzz_files.gguf_tensors()
    others: tuple[tuple[Any, Any], ...] = (
        (U32, 0), (U32, 1), (U32, 3), (U32, 2**32 - 1), (I32, -1), (U64, 2**63), (F32, float("nan")), (F64, 1e308), (F64, -1.0),
        (TEXT, ""), (TEXT, "\x1b[31m"), (TEXT, "x" * 100_000), (TEXT, "../x"), (TEXT, "llama"), (TEXT, "mamba"), (TEXT, "{{ x"),
        ((ARRAY, TEXT), []), ((ARRAY, TEXT), ["", ""]), ((ARRAY, I32), [-1] * 1000), ((ARRAY, U32), []), ((ARRAY, F32), [0.5]),
        ((ARRAY, TEXT), ["a b c", "a"]), (TEXT, "qwen3"), (TEXT, "gpt2"), (TEXT, "default"), (BOOL, True),
    )  # fmt: skip
    for _ in range(draw.choice((1, 1, 2, 3))):
        key = draw.choice(list(values))
        match draw.randrange(8):
            case 0:
                del values[key]
            case 1:
                name = draw.choice(list(tensors))
                tensors[draw.choice(("blk.99.attn_q.weight", "x", "rope_freqs.weight", name + "x"))] = tensors.pop(name)
            case 2:
                name = draw.choice(list(tensors))
                tensors[name] = tensors[name][..., :8] if draw.random() < 0.5 else tensors[name][:3]
            case 3:
                values[draw.choice(("llama.rope.scaling.type", "general.alignment", "llama.attention.key_length", "llama.expert_count",
                                    "tokenizer.ggml.eot_token_id", "tokenizer.ggml.add_eos_token"))] = draw.choice(others)  # fmt: skip
            case _:
                values[key] = draw.choice(others)
    return fuzz_files.gguf_bytes(values, tensors)


@reader(26)
def adapter(material: Material, draw: random.Random, folder: Path) -> None:
    place = folder / "a"
    fuzz_files.copies(draw.choice((material.adapter, material.peft)), place)
    _plant(folder, place)
    changed_file(one_of(place, draw, "adapter_config.json", "adapter_config.json", "*.safetensors", "*.json"), draw)
    say_something(place, base=draw.choice((None, str(material.model))))


@reader(36)
def tokenizer(material: Material, draw: random.Random, folder: Path) -> None:
    place = folder / "m"
    fuzz_files.copies(material.model, place)
    changed_file(one_of(place, draw, "tokenizer.json", "tokenizer*.json", "*.jinja"), draw, structure=0.8)
    rows = folder / "rows.jsonl"
    rows.write_bytes(material.rows["chats.jsonl"])
    command("show", rows, "--model", place, "--json")


JINJA = (
    b"{{ messages | tojson }}", b"{{ ''.__class__.__mro__ }}", b"{{ messages.append(1) }}", b"{% set x = [0] * 10 ** 9 %}",
    b"{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", b"{{ 'x'.encode().ljust(10 ** 10) }}", b"{% include '/etc/passwd' %}",
    b"{% for a in range(10 ** 9) %}{{ a }}{% endfor %}", b"{{ raise_exception('\x1b[31m\nno') }}", b"{{ messages[0] | attr('x') }}",
    b"{{ undefined_name.x }}", b"{{ 1 / 0 }}", b"{{ messages | sum }}", b"{{ '%d' % 'x' }}", b"{{ [] | first | upper }}", b"{{ self }}",
    b"{% set ns = namespace(a=1) %}{% for i in range(99) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | tojson | length }}",
    b"{{ cycler.__init__.__globals__ }}", b"{{ messages | groupby('role') | list | string }}", b"{{ ('(' * 90000) }}", b"{{ " + b"(" * 3000,
    b"{{ strftime_now('%Y' * 100000) }}", b"{{ strftime_now(1) }}", b"{{ messages | map(attribute='x.y.z') | list }}", b"{% raw %}",
)  # fmt: skip


@reader(30)
def chat_template(material: Material, draw: random.Random, folder: Path) -> None:
    import trl

    known = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
    text = draw.choice(known).read_bytes()
    if draw.random() < 0.5:
        place = draw.choice([found.start() for found in re.finditer(rb"\{[%{]", text)])
        text = text[:place] + draw.choice(JINJA) + text[place:]
    else:
        text = damage(text, draw)
    path = folder / "template.jinja"
    path.write_bytes(text)
    rows = folder / "rows.jsonl"
    rows.write_bytes(material.rows[draw.choice(("chats.jsonl", "tools.jsonl"))])
    command("show", rows, "--model", material.model, "--text.template", path, "--json")


@reader(8)
def cache_of_models(material: Material, draw: random.Random, folder: Path) -> None:
    from luthier.model.hub.sources import resolve

    path = folder / "small.gguf"
    path.write_bytes(material.gguf)
    cached = resolve(str(path)).folder
    changed_file(one_of(cached, draw, "luthier.json", "luthier.json", "*"), draw)
    command("models", "--json")
    say_something(path)


@reader(16)
def encoder(material: Material, draw: random.Random, folder: Path) -> None:
    from luthier.model.hub.sources import resolve_encoder
    from luthier.model.sentence_encoder import Encoder

    place = folder / "e"
    fuzz_files.copies(material.encoder, place)
    _plant(folder, place)
    changed_file(
        one_of(
            place, draw, "modules.json", "*/config.json", "sentence_bert_config.json", "config.json", "*.safetensors"
        ),
        draw,
    )
    Encoder(resolve_encoder(str(place)).folder).embed(["the cat", "", "a red dog " * 50])
