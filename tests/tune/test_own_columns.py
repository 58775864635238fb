"""Rows with columns of their own are learned by templates as the same rows would be with columns of known names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from luthier.cli import run as cli

OPTIONS = (
    "--train.steps", "2", "--train.batch", "4", "--eval.rows", "4", "--eval.samples", "0", "--no-eval.forgetting", "--threads", "1",
    "--device", "cpu", "--dtype", "float32", "--lora.rank", "2",
)  # fmt: skip


def written(path: Path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.medium
def test_tickets_are_learned_without_a_script(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tickets = [{"ticket": f"Card {i} is lost.", "category": f"c{i % 3}", "why": f"Because of {i}."} for i in range(12)]
    plain = [{"prompt": row["ticket"], "completion": f"{row['category']}\n{row['why']}"} for row in tickets]
    other = [{"frage": row["prompt"], "antwort": {"text": row["completion"]}} for row in plain[8:]]
    mapping = [
        "--data.prompt", "{ticket}", "--data.completion", "{category}\\n{why}", "--data.columns",
        "eval.jsonl:prompt=frage,eval.jsonl:completion=antwort.text",
    ]  # fmt: skip
    runs = {
        "templates": [
            written(tmp_path / "tickets.jsonl", tickets[:8]),
            "--data.eval",
            written(tmp_path / "eval.jsonl", other),
            *mapping,
        ],
        "plain": [
            written(tmp_path / "plain.jsonl", plain[:8]),
            "--data.eval",
            written(tmp_path / "held.jsonl", plain[8:]),
        ],
    }
    for out, data in runs.items():
        assert cli(["train", *data, "--model", str(tiny_folder), "--out", out, *OPTIONS]) == 0
    found = [load_file(f"{out}/adapter/adapter_model.safetensors") for out in runs]
    assert found[0].keys() == found[1].keys()
    assert all(found[0][name].tobytes() == found[1][name].tobytes() for name in found[0])
    losses = [json.loads(Path(f"{out}/result.json").read_text())["metrics"]["loss"]["after"] for out in runs]
    assert losses[0] == losses[1]
