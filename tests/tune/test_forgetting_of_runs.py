"""What every run says it lost: divergence both ways, general texts, benchmarks, how general prompts are answered."""

from __future__ import annotations

import json

import pytest
import torch

from conftest import changed
from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.core.storage.files import sha256
from luthier.evals.detectors.refusals import refusal
from luthier.evals.forgetting import GENERAL_PROMPTS
from luthier.tune import forgetting
from luthier.tune.evaluator import Evaluator
from luthier.tune.train import run
from sentences import sentence
from whole_runs import questions

pytestmark = pytest.mark.medium


@pytest.fixture
def settings(tiny_folder, tmp_path):
    questions(tmp_path / "rows.jsonl")

    def make(**changes):
        base = {
            "model": str(tiny_folder), "data.path": [str(tmp_path / "rows.jsonl")], "out": str(tmp_path / "run"),
            "train.batch": 4, "train.tokens": 512, "data.holdout": 0.2, "eval.samples": 0, "lora.rank": 2, "threads": 1,
            "device": "cpu", "dtype": "float32", "train.lr": 1e-2,
        }  # fmt: skip
        return base | {key.replace("__", "."): value for key, value in changes.items()}

    return make


def records(folder, stage):
    return [json.loads(line) for line in (folder / "evals" / f"{stage}.jsonl").read_text().splitlines()]


def distribution(model, prompt, answer):
    """log p of the whole vocabulary at each token of the answer, by an untouched model of transformers."""
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        return model(ids).logits[0].double().log_softmax(-1)[len(prompt) - 1 : -1]


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_the_divergence_is_that_of_the_whole_distributions(settings, tiny_folder, tmp_path, tune):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    found = run(resolve(settings(tune=tune)))["forgetting"]
    start = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    if tune == "full":
        tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").eval()
    else:
        tuned = AutoModelForCausalLM.from_pretrained(tiny_folder)
        tuned = PeftModel.from_pretrained(tuned, tmp_path / "run" / "adapter").eval()
    before = [r for r in records(tmp_path / "run", "before") if "own" in r]
    after = [r for r in records(tmp_path / "run", "after") if "own" in r]
    for name, answers, p, q in (("before", before, start, tuned), ("after", after, tuned, start)):
        assert len(answers) == len(GENERAL_PROMPTS)
        total = 0.0
        for record in answers:
            one, other = (distribution(model, record["prompt_ids"], record["own"]) for model in (p, q))
            total += float((one.exp() * (one - other)).sum())
        divergence = found["kl"][f"on_answers_{name}"]
        assert divergence["value"] == pytest.approx(total / sum(len(r["own"]) for r in answers), rel=1e-3)
        assert 0 < divergence["low"] < divergence["value"] < divergence["high"]
        assert divergence["n"] == 16
    read = [r for r in records(tmp_path / "run", "after") if "general" in r]
    assert [r["general"] for r in read] == [r["own"] for r in before]


def test_how_general_prompts_are_answered(settings, tmp_path):
    answers = run(resolve(settings(train__epochs=3)))["forgetting"]["answers"]
    for side in ("before", "after"):
        own = [r for r in records(tmp_path / "run", side) if "own" in r]
        assert answers["length"][side] == pytest.approx(sum(len(r["own"]) for r in own) / 16)
        assert answers["ended"][side] == pytest.approx(sum(r["ended"] == "stop" for r in own) / 16)
        assert answers["refused"][side] == pytest.approx(sum(refusal(r["said"]) is not None for r in own) / 16)
    assert answers["length"]["after"] < answers["length"]["before"]  # the data's answers are one word long


def test_nothing_is_measured_when_nothing_is_asked(settings, tmp_path):
    assert run(resolve(settings(eval__forgetting=False)))["forgetting"] is None
    assert not [r for r in records(tmp_path / "run", "after") if "own" in r or "general" in r]


def test_without_room_for_the_start_the_divergence_is_left_out_and_said(settings, monkeypatch, capsys):
    monkeypatch.setattr(forgetting.memory, "available", lambda device: 1000)
    found = run(resolve(settings(force=True)))["forgetting"]
    assert found["kl"] is None
    assert found["drift"] > 0
    assert "the divergence from the starting model is left out: it needs" in capsys.readouterr().err


def test_general_texts_of_the_user(settings, tmp_path):
    """What is learned gets likelier and what is not like it less likely, each by its interval."""
    near, far = tmp_path / "near.jsonl", tmp_path / "far.txt"
    near.write_text((tmp_path / "rows.jsonl").read_text())
    far.write_text("Zebras graze quietly.\n\nWho knows QUX 7?\n\nFjord and pyx.\n" * 4)
    found = {}
    for path in (near, far):
        config = resolve(settings(out=str(tmp_path / path.stem), eval__general=[str(path)], train__epochs=3))
        found[path.stem] = run(config)["forgetting"]["general"]
        lineage = json.loads((tmp_path / path.stem / "lineage.json").read_text())
        assert lineage["inputs"]["general"] == {str(path): sha256(path)}
    assert found["near"]["n"] == 40
    assert found["near"]["high"] < 0 < found["far"]["difference"]
    texts = [r for r in records(tmp_path / "near", "after") if "text" in r]
    assert found["near"]["after"] == pytest.approx(sum(r["loss"] for r in texts) / sum(r["units"] for r in texts))


def test_only_some_rows_of_long_files_are_read(settings, tmp_path):
    config = settings(eval__general=[str(tmp_path / "rows.jsonl")], eval__rows=9)
    assert run(resolve(config))["forgetting"]["general"]["n"] == 9


@pytest.fixture
def scenes(tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    rows = [
        {"activity_label": "Cats", "ctx_a": f"A cat sat on mat {i}.", "ctx_b": "it", "endings": list("wxyz"), "label": i % 4}
        for i in range(20)
    ]  # fmt: skip
    (folder / "hellaswag_val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_slice_of_a_benchmark_before_and_after(settings, scenes, tmp_path):
    from luthier.evals.benchmarks.evaluation import BenchmarkOptions, evaluate

    changes = {"eval__benchmark": "hellaswag", "eval__benchmark_dir": str(scenes), "eval__benchmark_limit": 12}
    result = run(resolve(settings(**changes)))
    found = result["forgetting"]["benchmarks"]["hellaswag"]
    assert (found["metric"], found["n"]) == ("acc_norm", 12)
    for side, model in (("before", resolve(settings()).model), ("after", str(tmp_path / "run"))):
        asked = BenchmarkOptions(
            tasks="hellaswag", data_dir=scenes, limit=12, out=tmp_path / side, device="cpu", dtype="float32"
        )
        theirs = evaluate(model, asked)["tasks"]["hellaswag"]
        assert found[side] == pytest.approx(theirs["acc_norm"]["value"])
    lineage = json.loads((tmp_path / "run" / "lineage.json").read_text())
    assert lineage["inputs"]["benchmark"] == {
        "hellaswag": {"hellaswag_val.jsonl": sha256(scenes / "hellaswag_val.jsonl")}
    }


def test_what_was_measured_is_not_measured_again(settings, scenes, tmp_path, monkeypatch):
    changes = {"eval__benchmark": "hellaswag", "eval__benchmark_dir": str(scenes)}
    config = resolve(settings(**changes, eval__general=[str(tmp_path / "rows.jsonl")]))
    whole = run(config)
    (tmp_path / "run" / "result.json").unlink()
    changed(tmp_path / "run", "result.json")
    monkeypatch.setattr(forgetting.benchmark_run, "measure", lambda *a, **k: pytest.fail("measured again"))
    monkeypatch.setattr(Evaluator, "measure", lambda *a, **k: pytest.fail("measured again"))
    again = run(config)
    assert {k: v for k, v in again.items() if k != "seconds" and "memory" not in k} == {
        k: v for k, v in whole.items() if k != "seconds" and "memory" not in k
    }


def test_what_cannot_be_measured_is_refused_in_one_line(settings, scenes, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "who?", "chosen": "a", "rejected": "b"}\n')
    text = {"eval__general": [str(tmp_path / "rows.jsonl")]}
    for changes, said in (
        ({"eval__general": [str(pairs)]}, sentence("rows neither text nor chats")),
        ({**text, "eval__forgetting": False}, sentence("forgetting turned off", where="--eval.general")),
        ({**text, "method": "reward"}, sentence("method writes no text", where="--eval.general", method="reward")),
        ({"eval__benchmark": "hellaswag"}, sentence("no files of measure", where="--data-dir", name="hellaswag")),
        (
            {"eval__benchmark": "helaswag"},
            sentence("unknown name", where="--tasks", kind="task", name="helaswag", fix="did you mean 'hellaswag'?"),
        ),
        ({"eval__benchmark": "wikitext"}, sentence("no score for each document", where="--tasks", texts="wikitext")),
        (
            {"eval__benchmark": "arc_easy", "eval__benchmark_dir": str(scenes)},
            sentence("no folder given"),
        ),
    ):
        with pytest.raises(InputError, match=said) as caught:
            run(resolve(settings(**changes)))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
