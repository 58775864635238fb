"""What is wrong with a model is said in one line, with exit 2, before a row is read: the data here would be refused itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.cli import run as cli
from luthier.model import checked

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def config(**values: object) -> Callable[[Path], None]:
    """config.json with these values; without those that are None."""

    def change(folder: Path) -> None:
        said = json.loads((folder / CONFIG).read_text()) | values
        (folder / CONFIG).write_text(json.dumps({key: value for key, value in said.items() if value is not None}))

    return change


def text(content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / CONFIG).write_text(content) and None


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    return lambda folder: save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def file(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes())) and None


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()


def more_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    said = json.loads(path.read_text())
    first = max(token["id"] for token in said["added_tokens"]) + 1
    said["added_tokens"] += [
        said["added_tokens"][-1] | {"id": first + number, "content": f"<|{number}|>"} for number in range(9)
    ]
    path.write_text(json.dumps(said))


def filled(value: float) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda found: found | {"model.norm.weight": torch.full((32,), value)}


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "an architecture that nobody knows": (config(model_type="zorblax"), "zorblax"),
    "an architecture that is not computed exactly": (
        config(model_type="bloom", architectures=["BloomForCausalLM"]),
        "missing keys in the weights",
    ),
    "an encoder before the decoder": (config(model_type="t5"), "have an encoder before the decoder"),
    "no kind": (config(model_type=None, architectures=None), "model_type"),
    "code of its own": (config(auto_map={"AutoModelForCausalLM": "m.M"}), "wants to run its own code ('auto_map')"),
    "one layer more": (config(num_hidden_layers=3), "missing keys in the weights: model.layers.2."),
    "one layer less": (config(num_hidden_layers=1), "describes a model without these weights: model.layers.1."),
    "another width": (
        config(hidden_size=48),
        "mismatched keys in the weights: model.embed_tokens.weight (of shape [314, 32]; config.json says [314, 48])",
    ),
    "a huge width": (config(hidden_size=10**9), "'hidden_size' is 1,000,000,000, more than any tensor is wide"),
    "huge layers": (config(num_hidden_layers=10**9), "'num_hidden_layers' is 1,000,000,000, more than any model has"),
    "a huge vocabulary": (config(vocab_size=10**9), "'vocab_size' is 1,000,000,000, more than any tensor is wide"),
    "a huge number": (config(eos_token_id=10**30), "'eos_token_id' is a number of more than 64 bits"),
    "a width that is a word": (config(hidden_size="wide"), "'hidden_size' is \"wide\", not a whole number"),
    "a width below 0": (config(hidden_size=-32), "'hidden_size' is -32, not a whole number"),
    "no heads": (config(num_attention_heads=0), ""),
    "heads that do not divide": (config(num_attention_heads=5), ""),
    "an activation that nobody knows": (config(hidden_act="blorp"), "blorp"),
    "a type of weights that there is not": (config(dtype="float33"), "'dtype' is \"float33\", not a type of weights"),
    "no JSON": (text("{"), "config.json"),
    "null": (text("null"), "config.json"),
    "a list": (text("[]"), "config.json"),
    "a number that is none": (text('{"model_type": "llama", "rms_norm_eps": NaN}'), "config.json"),
    "no configuration": (lambda folder: (folder / CONFIG).unlink(), "no config.json"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "no *.safetensors weights"),
    "weights without an end": (file(lambda content: content[:-100]), "truncated or broken weights"),
    "weights with something after them": (file(lambda content: content + b"x"), "truncated or broken weights"),
    "weights that are something else": (file(lambda content: b"x" * len(content)), "truncated or broken weights"),
    "a tensor too few": (
        weights(lambda found: {name: one for name, one in found.items() if "layers.1.mlp.up" not in name}),
        "missing keys in the weights: model.layers.1.mlp.up_proj.weight",
    ),
    "a tensor too many": (
        weights(lambda found: found | {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}),
        "describes a model without these weights",
    ),
    "weights that are no numbers": (weights(filled(float("nan"))), "'model.norm.weight' holds NaN or infinity"),
    "no tokenizer": (without_tokenizer, "tokenizer"),
    "more tokens than the embedding": (more_tokens, "and the embedding"),
}


@pytest.fixture
def said(tmp_path: Path, tiny_folder: Path, monkeypatch: Any, capsys: Any) -> Callable[..., str]:
    """What the commands say of a model that was changed: the one line, the same from `train` and `chat`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    Path("rows.jsonl").write_text('{"prompt": ')
    shutil.copytree(tiny_folder, "model")
    checked.forget()

    def of(change: Callable[[Path], None]) -> str:
        change(Path("model"))
        heard = []
        for arguments in (
            ["train", "rows.jsonl", "--model", "model", "--out", "run", "--device", "cpu"],
            ["chat", "model", "--prompt", "x", "--device", "cpu"],
        ):
            capsys.readouterr()
            assert cli(arguments) == 2
            out, err = capsys.readouterr()
            assert out == ""
            (line,) = [line for line in err.splitlines() if not line.startswith("loading PyTorch")]
            heard.append(line)
        assert heard[0] == heard[1]
        assert not Path("run").exists()
        return heard[0]

    return of


@pytest.mark.medium
@pytest.mark.parametrize("what", BAD)
def test_a_bad_model_is_refused_before_the_data_is_read(what: str, said: Callable[..., str]) -> None:
    change, words = BAD[what]
    line = said(change)
    assert words in line
    assert "rows.jsonl" not in line


def test_a_package_that_is_missing_is_named_before_the_data_is_read(said: Callable[..., str], monkeypatch: Any) -> None:
    """Architectures with a tower of pictures ask for packages such as timm when they are made."""
    from transformers.models.llama import modeling_llama

    def missing(self: object, *args: object, **named: object) -> None:
        raise ImportError("LlamaModel requires the timm library but it was not found in your environment.\nSee x")

    monkeypatch.setattr(modeling_llama.LlamaModel, "__init__", missing)
    assert "requires the timm library" in said(lambda folder: None)


def test_data_that_is_not_there_is_said_before_the_model_is_opened(tmp_path: Path, capsys: Any) -> None:
    """The model might have to be fetched first."""
    assert cli(["train", str(tmp_path / "rows.jsonl"), "--model", "nobody/nothing"]) == 2
    assert "rows.jsonl" in capsys.readouterr().err
    assert cli(["train", "--model", "nobody/nothing"]) == 2
    assert "no data given" in capsys.readouterr().err
