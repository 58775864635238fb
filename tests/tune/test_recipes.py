"""The recipes of examples/*.yaml: each runs on a few rows of what it names, with a tiny model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from conftest import medium_but
from luthier.cli import run as cli
from luthier.config.resolve import read_yaml, resolve

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "examples").glob("*.yaml"))
SMALL = [
    "--train.steps", "2", "--train.batch", "2", "--limit", "40", "--eval.rows", "4", "--eval.max_new_tokens", "4",
    "--text.max_length", "256", "--text.too_long", "cut", "--no-eval.forgetting",
    "--threads", "1", "--device", "cpu", "--dtype", "float32", "--lora.rank", "2",
]  # fmt: skip
MEASURED = {
    "support": "rouge_l", "classification": "accuracy", "summaries": "rouge_l", "domain": "loss", "preferences": "accuracy",
    "rewards": "reward", "reward_model": "accuracy",
}  # fmt: skip


def test_there_is_a_recipe_for_each_common_task():
    assert {path.stem for path in RECIPES} == set(MEASURED)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_is_for_what_it_needs_and_what_to_expect(path):
    words = [line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]
    text = " ".join(words)
    assert f"luthier train examples/{path.name} " in text
    assert "Your rows: " in text and "What to expect" in text
    for option in re.findall(r"--([a-z_]+\.[a-z_]+)", text):
        resolve({option: read_setting(option)})  # what it speaks of is there


def read_setting(option):
    """The value that this setting has anyway, as YAML would give it."""
    section, _, name = option.partition(".")
    return resolve({}).model_dump(mode="json")[section][name]


@pytest.mark.parametrize("path", medium_but(RECIPES, ROOT / "examples" / "support.yaml"), ids=lambda path: path.stem)
def test_a_recipe_runs_on_a_few_rows(path, shared, tiny_folder, tmp_path, monkeypatch, capsys):
    """As it stands, but for the sizes and the model; so every option in it is a real one, and its data is read as it says."""
    monkeypatch.chdir(ROOT)
    small = [*SMALL]
    recipe = read_yaml(path)
    if recipe.get("eval", {}).get("samples") != 0:
        small += ["--eval.samples", "2"]
    if path.stem == "rewards":
        small += ["--rollout.samples", "2", "--rollout.max_new_tokens", "4"]
    if path.stem == "summaries":  # rows of one's own, as its first lines say
        rows = tmp_path / "rows.jsonl"
        pairs = ({"document": f"the cat {i} sat on the mat", "summary": f"cat {i}"} for i in range(20))
        rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        small += [str(rows), "--data.columns", "prompt=document", "--data.columns", "completion=summary"]
    status = cli(["train", str(path), "--model", str(tiny_folder), "--out", str(tmp_path / "run"), "--json", *small])
    told = capsys.readouterr()
    assert status == 0, told.err
    assert MEASURED[path.stem] in json.loads(told.out)["metrics"]
    kept = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert kept["method"] == recipe.get("method", "sft")
