"""`luthier merge`: how close the merged model is, and that transformers loads it."""

from __future__ import annotations

import json
import os

import pytest
import torch

from luthier.cli import run

TRAIN = ["--train.lr", "0.01", "--train.epochs", "3", "--eval.samples", "0", "--no-eval.forgetting", "--dtype", "float32",
         "--threads", "1", "--device", "cpu", "--json"]  # fmt: skip


@pytest.fixture
def tuned(tmp_path, tiny_folder, capsys):
    def make(tune, *options):
        rows = tmp_path / "rows.jsonl"
        rows.write_text("".join(json.dumps({"prompt": f"who {i}", "completion": "cat"}) + "\n" for i in range(20)))
        out = tmp_path / tune
        arguments = ["train", rows, "--model", tiny_folder, "--tune", tune, "--out", out, *TRAIN, *options]
        assert run([str(a) for a in arguments]) == 0
        capsys.readouterr()
        return out

    return make


@pytest.mark.medium
@pytest.mark.parametrize(
    ("tune", "options"),
    [
        ("lora", []),
        ("lora", ["--lora.dora"]),
        ("lora", ["--lora.init", "pissa"]),
        ("lora", ["--lora.rslora"]),
        ("qlora", []),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_the_merged_model_says_what_the_run_says(tuned, capsys, tune, options):
    """peft#2321 #2105, transformers#31293: merged into a 4-bit base, the model changed. Here through full precision."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from luthier.runs.open import log_probabilities, open_model

    folder = tuned(tune, *options)
    assert run(["merge", str(folder), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"merged", "dtype", "largest_difference", "mean_difference", "tokens"}
    assert 0 <= result["mean_difference"] <= result["largest_difference"] < 1e-4
    assert result["tokens"] > 1000
    ours = log_probabilities(open_model(str(folder), device="cpu", dtype="float32"), ["the cat sat on the mat"])
    theirs = AutoModelForCausalLM.from_pretrained(result["merged"])
    tokenizer = AutoTokenizer.from_pretrained(result["merged"])
    ids = torch.tensor([tokenizer("the cat sat on the mat")["input_ids"]])
    logp = theirs(ids).logits[0].log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(logp.detach(), ours, atol=1e-4, rtol=0)


@pytest.mark.medium
def test_it_says_how_close_and_may_be_done_again(tuned, capsys):
    """unsloth#3091 #5410 #2142, torchtune#1101: the merged model differed, and nobody could tell."""
    folder = tuned("lora")
    for _ in range(2):
        assert run(["merge", str(folder), "--dtype", "bfloat16"]) == 0
        out = capsys.readouterr().out
        assert "merged (bfloat16): log-probabilities of" in out.replace("\n", " ")
    assert not [name for name in os.listdir(folder) if name.startswith(".merged")]


def test_a_folder_with_something_in_it_is_left_alone(tuned, tiny_folder, capsys):
    folder = tuned("lora")
    before = sorted(os.listdir(tiny_folder))
    assert run(["merge", str(folder), "--out", str(tiny_folder)]) == 2
    assert "the folder is not empty; give another --out" in capsys.readouterr().err
    assert sorted(os.listdir(tiny_folder)) == before


def test_a_whole_model_has_nothing_to_merge(tuned, capsys):
    folder = tuned("head")
    assert run(["merge", str(folder)]) == 2
    assert "this run tuned the model itself; nothing to merge" in capsys.readouterr().err
