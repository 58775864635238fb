"""Rows whose last turn calls a function are answered and measured as calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.cli import run as cli

OPTIONS = (
    "--train.steps", "1", "--train.batch", "4", "--eval.rows", "4", "--eval.samples", "4", "--eval.max_new_tokens", "4",
    "--no-eval.forgetting", "--threads", "1", "--device", "cpu", "--dtype", "float32", "--lora.rank", "2",
)  # fmt: skip
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather.", "parameters": {"type": "object"}},
}


def row(place: str) -> dict:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"place": place}}}
    turns = [
        {"role": "user", "content": f"Is it hot in {place}?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    return {"messages": turns, "tools": [TOOL]}


@pytest.mark.medium
def test_rows_that_end_in_a_call_are_measured(tmp_path, tiny_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row(f"Town {i}")) + "\n" for i in range(16)))
    assert cli(["train", "rows.jsonl", "--model", str(tiny_folder), "--out", "run", *OPTIONS]) == 0
    metrics = json.loads(Path("run/result.json").read_text())["metrics"]
    assert {"tool_calls", "tool_names", "tool_arguments"} <= metrics.keys()
    assert metrics["tool_calls"]["n"] == 3 and metrics["tool_calls"]["after"] == 0.0  # a model of noise calls nothing
