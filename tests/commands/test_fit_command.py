"""`luthier fit`: what is printed, for people and as JSON, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import LlamaConfig, MixtralConfig, PreTrainedConfig

from luthier.cli import run

pytestmark = pytest.mark.medium

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip


def folder(tmp_path: Path, config: PreTrainedConfig) -> str:
    config.save_pretrained(tmp_path)
    return str(tmp_path)


def test_tables_of_a_config_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", folder(tmp_path, LlamaConfig(**SMALL)), "--memory", "16GB", "--lora.rank", "4"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    words = [line.split() for line in out.splitlines()]
    assert ["mlp.up_proj", "32", "×", "64", "2,048", "384", "18.75", "%", "2", "4,096"] in words
    assert any(line[:1] == ["qlora"] and line[1] == "nf4" for line in words)
    assert "256 tokens" in out and "of a processor with 16GB" in out  # the model reads no more


def test_a_gpu_that_is_too_small_and_a_mixture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = folder(tmp_path, MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2))
    assert run(["fit", name, "--gpu", "100kb", "--context", "128", "--context", "256", "--batch", "3"]) == 0
    out = capsys.readouterr().out
    assert "no: does not fit" in out and out.count("no, ") == 12 and "3 rows a pass" in out
    assert "of them for each token" in out and "mlp.experts.down_proj" in out


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", folder(tmp_path, LlamaConfig(**SMALL, tie_word_embeddings=True)), "--gpu", "24", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["device"], found["dtype"], found["free_bytes"]) == ("cuda", "bfloat16", 24 * 10**9)
    assert found["tied"] and found["head"] == 0 and found["embedding"] == 96 * 32
    assert all(cell["fits"] for row in found["tune"] for cell in row["cells"])
    assert (
        sum(one["count"] * one["adapter"] for one in found["layers"])
        == found["adapters"]
        == found["tune"][2]["trainable"]
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--gpu", "much"], "--gpu: 'much' is no size of a memory; such as 24GB"),
        (
            ["--context", "300"],
            "--context: rows of 300 tokens are longer than the model's context of 256; give 256 or less",
        ),
        (["--lora.targets", "q_projj"], "q_projj"),
    ],
)
def test_refused_in_one_line(more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", folder(tmp_path, LlamaConfig(**SMALL)), *more]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and "\n" not in err.removeprefix(
        "loading PyTorch and the model libraries; this takes a few seconds\n"
    )


def test_what_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", str(tmp_path)]) == 2
    (tmp_path / "config.json").write_text('{"model_type": "no such type"}')
    assert run(["fit", str(tmp_path)]) == 2
    assert run(["fit", "smollm"]) == 2
    assert "smollm2-135m" in capsys.readouterr().err
