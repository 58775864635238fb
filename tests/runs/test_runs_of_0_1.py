"""Runs, settings and checkpoints of 0.1 go on: what stands in stored/ was written by its code, before the house was planned anew.

`runs-of-0.1.tar.gz` holds a model of two layers; the finished run sft; dpo from it and grpo, each killed one step after a checkpoint, grpo
in the middle of a rollout; and settings in YAML. `made.json` says what the code of that commit made of them: hashes of weights (the
weights themselves are in `finished/`), the answer to a question, a perplexity. Where the processor, Python or a library is another,
rounding is too, and weights may differ by a hundredth.
"""

from __future__ import annotations

import json
import platform
import tarfile
from pathlib import Path

import numpy
import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file

from luthier.cli import run
from luthier.core.storage.files import sha256

STORED = Path(__file__).parent / "stored" / "runs-of-0.1.tar.gz"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """What was made then, in a folder of its own that is the working folder."""
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return json.loads(Path("made.json").read_text())


@pytest.fixture
def luthier(made, capsys):
    def call(*arguments):
        capsys.readouterr()
        assert run([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    return call


def here():
    """What the last bits depend on, as `made.json` names it."""
    found = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.split(":")[1].strip() for line in found.splitlines() if line.startswith("model name")), "")
    libraries = {module.__name__: module.__version__ for module in (torch, transformers, tokenizers, numpy)}
    return {
        **libraries, "python": platform.python_version(), "threads": 1,
        "processor": name, "instructions": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip


def require_same(weights, name, made):
    """The bits of then; on another machine, its numbers."""
    then = {key: value for key, value in made["environment"].items() if key != "platform"}
    if here() == then:
        assert sha256(weights) == made["weights"][name]
        return
    wanted, found = load_file(f"finished/{name}.safetensors"), load_file(weights)
    assert wanted.keys() == found.keys()
    for key, value in wanted.items():
        assert (found[key] - value).norm() <= 0.01 * value.norm(), f"{name}: {key}"


@pytest.mark.medium
@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_a_run_that_was_killed_goes_on_to_the_bits_of_before(luthier, made, name, capsys):
    assert not Path(f"runs/{name}/adapter").exists()
    result = json.loads(luthier("train", f"runs/{name}/run.yaml", "--json"))
    assert result["steps"] == 6
    require_same(f"runs/{name}/adapter/adapter_model.safetensors", name, made)
    before = Path(f"runs/{name}/result.json").read_bytes()
    luthier("train", f"runs/{name}/run.yaml", "--json")
    assert Path(f"runs/{name}/result.json").read_bytes() == before, "it is finished"


def test_a_finished_run_answers(luthier, made):
    assert luthier("chat", "runs/sft", "--prompt", "the cat 3?", "--max-new-tokens", 8, "--device", "cpu") == "cat\n"
    assert made["chat"] == "cat"


def test_a_finished_run_is_measured(luthier, made):
    found = json.loads(
        luthier(
            "eval", "runs/sft", "--tasks", "perplexity", "--text", "notes.txt", "--out", "records", "--device", "cpu",
            "--dtype", "float32", "--json",
        )
    )  # fmt: skip
    assert found["tasks"]["perplexity"]["token_perplexity"]["value"] == pytest.approx(made["perplexity"], rel=1e-4)


@pytest.mark.medium
def test_a_finished_run_is_compared_and_its_page_is_made_again(luthier, made):
    asked = ["--data", "rows.jsonl", "--device", "cpu", "--eval.samples", 0, "--json"]
    rows = {row["name"]: row for row in json.loads(luthier("compare", "model", "runs/sft", *asked))["rows"]}
    assert rows["loss"]["verdict"] == "better"
    luthier("report", "runs/sft", "--out", "page.html")
    assert "rows.jsonl" in Path("page.html").read_text()


@pytest.mark.medium
def test_a_finished_run_is_merged(luthier, made):
    luthier("merge", "runs/sft", "--out", "merged")
    require_same("merged/model.safetensors", "merged", made)


@pytest.mark.medium
def test_settings_as_0_1_wrote_them_make_the_same_run(luthier, made):
    """Of a user, with a text where a list of one may stand; and of a run, every setting that there was."""
    luthier("train", "terse.yaml", "--out", "runs/terse", "--json")
    require_same("runs/terse/adapter/adapter_model.safetensors", "terse", made)
    Path("finished/sft.safetensors").write_bytes(Path("runs/sft/adapter/adapter_model.safetensors").read_bytes())
    luthier("train", "runs/sft/run.yaml", "--out", "runs/again", "--json")
    require_same("runs/again/adapter/adapter_model.safetensors", "sft", made)
