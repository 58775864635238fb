"""Model folders made to do harm: pickles under other names, settings that name files, weights that lie, counts that explode."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import Bomb
from luthier.core.errors import InputError
from luthier.core.storage.files import sha256
from luthier.model.folder.configuration import load_config
from luthier.model.folder.safetensors_header import tensors
from luthier.model.folder.tokenizer import load_tokenizer
from luthier.model.hub.sources import resolve
from luthier.model.load import load
from luthier.model.sentence_encoder import Encoder
from sentences import sentence

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture
def unpickled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that torch's loader is given."""
    given: list[str] = []
    monkeypatch.setattr(torch, "load", lambda path, **options: given.append(str(path)))
    return given


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))


def refusal(folder: Path, *, at: Path | None = None) -> str:
    """What is said of a folder when its model is loaded: one line, of exit 2."""
    with pytest.raises(InputError) as caught:
        load(resolve(str(folder)), device=CPU, dtype=torch.float32)
    assert "\n" not in str(caught.value)
    if at is not None:
        assert str(caught.value).startswith(f"{at}: ")
    return str(caught.value)


# --- Pickles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["adapter_model.bin", "pytorch_model.bin", "../outside.bin", "/absolute.bin"])
def test_a_configuration_cannot_name_the_file_of_the_weights(
    model: Path, tmp_path: Path, unpickled: list[str], target: str
) -> None:
    """transformers reads `transformers_weights`, itself a pickle or an index of pickles, in place of model.safetensors."""
    path = (model / target).resolve() if target[0] != "/" else tmp_path / target[1:]
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "proof")))
    (model / "x.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"w": target}}))
    for named in ("x.safetensors.index.json", "adapter_model.bin", "model.safetensors"):
        edit(model / "config.json", transformers_weights=named)
        assert "'transformers_weights'" in refusal(model, at=model / "config.json")
    assert not unpickled
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_opened_but_what_is_hashed(model: Path, unpickled: list[str], dtype: torch.dtype) -> None:
    """Adapters that transformers applies unasked, checkpoints in parts that it unpickles, pickled weights: not one is looked into."""
    hostile = (
        "adapter_config.json",
        ".metadata",
        "__0_0.distcp",
        "pytorch_model.bin",
        "custom_generate/generate.py",
        "tf_model.h5",
    )
    for name in hostile:
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(pickle.dumps(Bomb(model / "proof")))
    opened: set[str] = set()
    watching = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and str(arguments[0]).startswith(str(model)):
            opened.add(str(Path(arguments[0]).relative_to(model)))

    sys.addaudithook(hook)  # cannot be taken off again
    loaded = load(model, device=CPU, dtype=dtype)
    watching.clear()
    assert "config.json" in opened
    assert opened <= resolve(str(model)).digests().keys()
    assert not hasattr(loaded.model, "peft_config")
    assert not unpickled


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04" + b"\0" * 99, pickle.dumps(Bomb(Path("x"))), b"\x89HDF\r\n" + b"\0" * 99]
)
def test_weights_that_are_something_else_are_named(model: Path, unpickled: list[str], content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    said = refusal(model, at=model / "model.safetensors")
    assert "truncated or broken weights: it is" in said
    assert not unpickled


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [("config.json", "configuration_files", ["config.4.0.0.json"]), ("config.json", "backbone", "owner/other"),
     ("config.json", "fusion_config", {"patch_embeddings": True}), ("config.json", "custom_pipelines", {"x": {"impl": "a.B"}}),
     ("generation_config.json", "custom_generate", "owner/code"), ("tokenizer_config.json", "init_inputs", ["/etc/passwd"]),
     ("tokenizer_config.json", "gguf_file", "../x.gguf"), ("tokenizer_config.json", "fast_tokenizer_files", ["tokenizer.4.json"]),
     ("tokenizer_config.json", "mecab_kwargs", {"mecab_dic": "/tmp"}), ("config.json", "dtype", "load"),
     ("special_tokens_map.json", "auto_map", {"AutoTokenizer": ["evil.Evil", None]})],
)  # fmt: skip
def test_settings_that_name_files_or_code_are_refused_by_name(model: Path, file: str, key: str, value: object) -> None:
    edit(model / file, **{key: value})
    assert f"'{key}'" in refusal(model, at=model / file)


def test_places_that_a_tokenizer_was_saved_at_are_not_followed(model: Path, tmp_path: Path) -> None:
    """Programs leave them behind: `special_tokens_map_file` of a disk that is elsewhere."""
    before = load_tokenizer(model)("the cat")["input_ids"]
    (tmp_path / "other.json").write_text("{}")
    places = dict.fromkeys(
        ("tokenizer_file", "special_tokens_map_file", "vocab_file", "name_or_path"), str(tmp_path / "other.json")
    )
    edit(model / "tokenizer_config.json", **places, vocab=str(tmp_path / "other.json"))
    tokenizer = load_tokenizer(model)
    assert tokenizer("the cat")["input_ids"] == before
    assert not [value for value in tokenizer.init_kwargs.values() if value == str(tmp_path / "other.json")]


def test_the_folder_of_a_tokenizer_is_the_one_it_came_from(model: Path, tmp_path: Path) -> None:
    load_tokenizer(model).save_pretrained(tmp_path / "saved")
    load_tokenizer(model).save_pretrained(tmp_path / "again")
    for path in (tmp_path / "saved").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
        assert b"luthier-" not in path.read_bytes()
    assert load_config(model).name_or_path == str(model)


def test_what_is_read_is_in_the_lineage_and_nothing_else(model: Path) -> None:
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "rag.jinja").write_text("x")
    (model / "notes.json").write_text("{}")
    (model / "added_tokens.json").write_text("{}")
    (model / "merges.txt").write_text("")
    found = resolve(str(model)).digests()
    assert {"config.json", "model.safetensors", "tokenizer.json", "merges.txt", "added_tokens.json",
            "additional_chat_templates/rag.jinja"} <= found.keys()  # fmt: skip
    assert "notes.json" not in found
    assert all(sha256(model / name) == digest for name, digest in found.items())


def test_a_snapshot_of_the_hub_is_made_of_links(model: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for path in model.iterdir():
        path.rename(blobs / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert load(resolve(str(snapshot)), device=CPU, dtype=torch.float32).model.dtype == torch.float32


# --- Weights ----------------------------------------------------------------------------------------


def header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the header of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    entries = json.loads(content[8 : 8 + length])
    text = change(entries)
    new = text if isinstance(text, bytes) else json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])


NORM = "model.norm.weight"  # 32 numbers of 4 bytes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e[NORM].update(data_offsets=[0, 128]), "begins at byte"),
        (lambda e: e[NORM].update(shape=[1 << 40]), "F32 of shape [1099511627776] another number"),
        (lambda e: e[NORM].update(shape=[1 << 62, 1 << 62]), "another number"),
        (lambda e: e[NORM].update(dtype="F64"), "and F64 of shape [32] another number"),
        (lambda e: e[NORM].update(dtype="F99"), "unknown type"),
        (lambda e: e[NORM].update(shape=[-32]), "not lists of whole numbers"),
        (lambda e: e[NORM].update(shape="32"), "not lists of whole numbers"),
        (lambda e: e[NORM].update(data_offsets=[0.0, 128.0]), "not lists of whole numbers"),
        (lambda e: e.update({NORM: 7}), "not a tensor"),
        (lambda e: e.pop(NORM), "its tensors take"),
        (
            lambda e: json.dumps(e).encode().replace(b"{", b'{"x":' + json.dumps(e[NORM]).encode() + b',"x":1,', 1),
            "names 'x' twice",
        ),
        (lambda e: b'{"a":' * 100_000, "truncated or broken weights|not readable as JSON"),
    ],
)
def test_headers_of_weights_are_held_against_the_file(model: Path, change: Any, words: str) -> None:
    header(model / "model.safetensors", change)
    said = refusal(model, at=model / "model.safetensors")
    assert any(word in said for word in words.split("|"))


def test_the_header_of_whole_weights_is_read_as_the_library_reads_it(model: Path) -> None:
    found = tensors(model / "model.safetensors")
    wanted = load_file(model / "model.safetensors")
    assert {name: tensor.shape for name, tensor in found.items()} == {n: tuple(t.shape) for n, t in wanted.items()}
    assert {tensor.dtype for tensor in found.values()} == {"F32"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(model: Path, value: float) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    assert "'model.layers.1.mlp.up_proj.weight' holds NaN or infinity" in refusal(model)


def shards(model: Path) -> Path:
    """Two files and their index in place of model.safetensors."""
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = sorted(weights)
    listed = {name: f"m-{1 + (i % 2)}.safetensors" for i, name in enumerate(names)}
    for file in ("m-1.safetensors", "m-2.safetensors"):
        save_file({n: weights[n] for n in names if listed[n] == file}, model / file, metadata={"format": "pt"})
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    return model / "model.safetensors.index.json"


def test_an_index_says_of_each_tensor_where_it_is(model: Path) -> None:
    index = shards(model)
    assert load(model, device=CPU, dtype=torch.float32)
    listed = json.loads(index.read_text())["weight_map"]
    index.write_text(
        json.dumps({"weight_map": listed | {NORM: "m-1.safetensors", "lm_head.weight": "m-2.safetensors"}})
    )
    assert "is not in m-" in refusal(model, at=index)
    index.write_text(json.dumps({"weight_map": listed}).replace("{", '{"x": 1, "x": 2, ', 1))
    assert "names 'x' twice" in refusal(model, at=index)
    index.write_text(json.dumps({"weight_map": [1]}))
    assert "no weight_map" in refusal(model, at=index)
    index.write_text(json.dumps({"weight_map": listed}))
    save_file(load_file(model / "m-1.safetensors") | {NORM: torch.ones(32)}, model / "m-1.safetensors")
    save_file(load_file(model / "m-2.safetensors") | {NORM: torch.ones(32)}, model / "m-2.safetensors")
    assert f"'{NORM}' is in m-1.safetensors too" in refusal(model, at=model / "m-2.safetensors")
    index.unlink()
    assert "2 files of weights and no model.safetensors.index.json" in refusal(model, at=model)
    save_file({"w": torch.ones(3)}, model / "model.safetensors")
    index.write_text(json.dumps({"weight_map": listed}))
    assert "are both there" in refusal(model, at=model)


# --- Counts, sizes, types ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_hidden_layers", 10**6), ("num_hidden_layers", 10**9), ("num_hidden_layers", -2), ("num_hidden_layers", "2"),
     ("num_hidden_layers", 2.5), ("num_hidden_layers", True), ("hidden_size", 10**9), ("hidden_size", "32"),
     ("intermediate_size", 10**12), ("vocab_size", 10**9), ("num_attention_heads", 10**9), ("num_key_value_heads", 10**9),
     ("head_dim", 10**9), ("num_labels", 10**9), ("num_labels", -1), ("max_position_embeddings", 10**30),
     ("max_position_embeddings", "512"), ("max_position_embeddings", -512), ("num_local_experts", 10**9), ("model_type", 7),
     ("pad_token_id", 1 << 80)],
)  # fmt: skip
def test_counts_are_held_against_the_weights(model: Path, key: str, value: object) -> None:
    edit(model / "config.json", **{key: value})
    assert f"'{key}'" in refusal(model, at=model / "config.json")


def test_labels_by_the_million_are_refused(model: Path) -> None:
    edit(model / "config.json", id2label={str(i): "x" for i in range(20_000)})
    assert "'id2label' is 20,000, more than any tensor is wide" in refusal(model)


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_size", None), ("num_attention_heads", 0), ("num_key_value_heads", 0), ("num_attention_heads", 3), ("rms_norm_eps", "x"),
     ("rope_scaling", {"rope_type": "wumpus", "factor": 2.0}), ("rope_scaling", {"rope_type": "linear", "factor": "two"}),
     ("rope_scaling", {"rope_type": "yarn", "factor": float("inf")}), ("rope_scaling", [1]), ("rope_theta", "x"), ("rope_theta", 0),
     ("rope_parameters", {"rope_type": "linear", "rope_theta": 1e4, "factor": 0}), ("sliding_window", "x"), ("hidden_act", "wumpus"),
     ("layer_types", ["full_attention"] * 5), ("layer_types", "x"), ("vocab_size", 0), ("architectures", 7), ("head_dim", 0)],
)  # fmt: skip
def test_other_settings_of_wrong_types_end_with_one_line_or_mean_nothing(model: Path, key: str, value: object) -> None:
    """A key that this kind of model does not read does no harm."""
    config = json.loads((model / "config.json").read_text())
    if key.startswith("rope"):
        config.pop("rope_parameters", None)
    (model / "config.json").write_text(json.dumps(config | {key: value}))
    if key in ("architectures", "sliding_window"):  # not read of a Llama
        assert load(model, device=CPU, dtype=torch.float32)
    else:
        refusal(model)


def test_a_table_of_positions_is_not_made_before_it_is_weighed(tmp_path: Path) -> None:
    """GPT-2 has a mask of positions by positions in every layer: a million of them are a terabyte."""
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=40, n_positions=16)).save_pretrained(tmp_path)
    edit(tmp_path / "config.json", n_positions=1_000_000)
    said = refusal(tmp_path, at=tmp_path / "config.json")
    assert "describes a model of" in said or "tables of positions" in said


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
)
def test_a_pipe_or_a_device_is_no_file_of_a_model(model: Path, name: str) -> None:
    for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path), os.mkdir):
        (model / name).unlink(missing_ok=True)
        make(model / name)
        said = refusal(model, at=model / name)
        assert "this is a pipe or a device, not a file" in said or "Is a directory" in said
        (model / name).rmdir() if (model / name).is_dir() else (model / name).unlink()


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json", "merges.txt"]
)
def test_sizes_are_capped_before_anything_is_read(model: Path, name: str) -> None:
    with open(model / name, "ab") as handle:
        handle.truncate(2 << 30)  # sparse
    assert "MiB, which is too large for such a file" in refusal(model, at=model / name)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 500 + "1" + "}" * 500, "{", "[]", "nul", "\xff"])
@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"]
)
def test_json_of_any_form_ends_with_one_line(model: Path, name: str, text: str) -> None:
    (model / name).write_bytes(text.encode("latin-1"))
    refusal(model, at=model / name)


def test_modules_of_an_encoder_lie_in_its_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    for listed, words in (
        ([{"type": "x.Pooling", "path": "../"}], sentence("strange module")),
        ([7], sentence("strange module")),
        ({}, sentence("modules not a list")),
    ):
        (model / "modules.json").write_text(json.dumps(listed))
        with pytest.raises(InputError, match=words):
            Encoder(model)
    (model / "modules.json").unlink()
    edit(model / "sentence_bert_config.json", max_seq_length="long")
    with pytest.raises(InputError, match=sentence("setting not tokens")):
        Encoder(model)


def test_settings_that_only_a_forward_pass_reads_end_with_one_line(model: Path) -> None:
    edit(model / "config.json", return_dict=False)
    assert "cannot load the model" in refusal(model)


@pytest.mark.parametrize("value", [[[]], {}, "x", [2.5], -1])
def test_tokens_that_end_an_answer_are_numbers(model: Path, value: object) -> None:
    edit(model / "generation_config.json", eos_token_id=value)
    assert "'eos_token_id'" in refusal(model, at=model / "generation_config.json")
