"""A model or a run, opened for use."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import luthier
from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.core.types.examples import Message
from luthier.runs.open import log_probabilities, open_model
from luthier.tune.train import run
from sentences import sentence

TEXTS = ["the cat sat on the mat", "who", "a red dog ran by the tree and the blue cat"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_folder):
    """Finished runs by tune kind."""
    folder = tmp_path_factory.mktemp("runs")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"who {i}", "completion": "cat"}) + "\n" for i in range(16)))
    for tune in ("lora", "qlora", "full"):
        run(resolve({"model": str(tiny_folder), "data.path": [str(rows)], "out": str(folder / tune), "tune": tune, "threads": 1,
                     "device": "cpu", "dtype": "float32", "train.lr": 1e-2, "eval.samples": 0, "eval.forgetting": False,
                     "text.system": "be a cat"}))  # fmt: skip
    run(resolve({"model": str(tiny_folder), "data.path": [str(rows)], "out": str(folder / "alpaca"), "threads": 1, "device": "cpu",
                 "dtype": "float32", "eval.samples": 0, "eval.forgetting": False, "text.template": "alpaca",
                 "text.system": "be a dog"}))  # fmt: skip
    return folder


def opened(path, **named):
    return open_model(str(path), device="cpu", dtype="float32", **named)


def test_log_probabilities_are_those_of_transformers(tiny_folder):
    from transformers import AutoModelForCausalLM

    model = opened(tiny_folder)
    theirs = AutoModelForCausalLM.from_pretrained(tiny_folder)
    parts = []
    for text in TEXTS:
        ids = torch.tensor([model.tokenizer.encode(text)])
        parts.append(theirs(ids).logits[0].log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None])[:, 0].detach())
    torch.testing.assert_close(
        log_probabilities(model, TEXTS).sort()[0], torch.cat(parts).sort()[0], atol=1e-5, rtol=1e-5
    )


def test_switching_back_gives_the_base_bit_for_bit(runs, tiny_folder):
    base = log_probabilities(opened(tiny_folder), TEXTS)
    model = opened(runs / "lora")
    assert model.active == "lora"
    tuned = log_probabilities(model, TEXTS)
    assert (tuned - base).abs().max() > 1e-3
    model.switch("base")
    assert torch.equal(log_probabilities(model, TEXTS), base)
    model.switch("lora")
    assert torch.equal(log_probabilities(model, TEXTS), tuned)


def test_a_qlora_run_is_opened_on_the_base_it_was_trained_on(runs, tiny_folder):
    model = opened(runs / "qlora")
    model.switch("base")
    quantized = log_probabilities(model, TEXTS)
    assert (quantized - log_probabilities(opened(tiny_folder), TEXTS)).abs().max() > 1e-4


def test_a_whole_model_needs_no_base(runs):
    model = opened(runs / "full")
    assert (model.active, list(model.names)) == ("base", [])


def test_an_adapter_over_a_named_model(runs, tiny_folder):
    model = opened(tiny_folder, adapter=[str(runs / "lora")])
    assert (model.active, list(model.names)) == ("lora", ["lora"])
    direct = opened(tiny_folder, adapter=[str(runs / "lora" / "adapter")])
    assert torch.equal(log_probabilities(model, TEXTS), log_probabilities(direct, TEXTS))


def test_adapters_of_the_same_folder_name_are_told_apart(runs, tmp_path):
    """'lora' and '.../other/lora': the second once took the place of the first."""
    shutil.copytree(runs / "lora", tmp_path / "lora")
    model = opened(runs / "lora", adapter=[str(tmp_path / "lora")])
    assert list(model.names) == ["lora", f"{tmp_path.name}/lora"]


def test_a_run_is_asked_under_the_system_prompt_it_was_trained_with(runs, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "luthier.runs.open.stream", lambda model, ids, *rest, **named: asked.append(list(ids)) or iter(())
    )
    model = opened(runs / "lora")
    question = Message("user", "who")
    for turns in ([question], [Message("system", "be a cat"), question], [Message("system", "be a dog"), question]):
        list(model.answer(turns, {}))
    assert asked[0] == asked[1] != asked[2]


def test_an_adapter_is_asked_as_its_run_was_and_the_base_as_itself(runs, tiny_folder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "luthier.runs.open.stream",
        lambda model, ids, *rest, **named: asked.append((list(ids), rest[0].stop)) or iter(()),
    )
    model = opened(tiny_folder, adapter=[str(runs / "alpaca")])
    for one, name in (
        (model, "alpaca"),
        (model, "base"),
        (opened(runs / "alpaca"), "alpaca"),
        (opened(tiny_folder), "base"),
    ):
        one.switch(name)
        list(one.answer([Message("user", "who")], {}))
    assert asked[0] == asked[2] != asked[3] == asked[1]


@pytest.mark.medium
def test_an_adapter_of_qlora_brings_its_base(runs, tiny_folder):
    alone = log_probabilities(opened(runs / "qlora"), TEXTS)
    assert torch.equal(log_probabilities(opened(tiny_folder, adapter=[str(runs / "qlora")]), TEXTS), alone)
    said = sentence("adapters of two bases", base="a base that is not quantized", other="a base in nf4, blocks of 64")
    for name, other in ((tiny_folder, [runs / "lora", runs / "qlora"]), (runs / "lora", [runs / "qlora"])):
        with pytest.raises(InputError, match=said):
            opened(name, adapter=[str(path) for path in other])


def test_what_cannot_be_opened(runs, tiny_folder, tmp_path):
    with pytest.raises(InputError, match=sentence("no such adapter", name="x", there="base, lora")):
        opened(runs / "lora").switch("x")
    with pytest.raises(InputError, match=sentence("no such run", fix="did you mean '…/lora'?")):
        opened(runs / "loar")
    with pytest.raises(InputError, match=sentence("no such run", fix="see which runs are there")):
        opened(runs / "xyz")
    (tmp_path / "run.yaml").write_text(f"model: {tiny_folder}\n")
    with pytest.raises(InputError, match=sentence("run not finished")):
        opened(tmp_path)
    with pytest.raises(InputError, match=sentence("no adapter settings", file="adapter_config.json")):
        opened(tiny_folder, adapter=[str(tmp_path)])


def test_whoever_needs_a_model_has_it_opened_here():
    """Runs that learn, rewards, judges, benchmarks and chats: none loads weights, quantizes a base or puts an adapter on it itself."""
    package = Path(luthier.__file__).parent
    ways = ("model_load.load(", "adapters.apply(", "quantize_base(")
    found = {
        (path.relative_to(package).as_posix(), way)
        for path in package.rglob("*.py")
        if "model" not in path.relative_to(package).parts[0]
        for way in ways
        if re.search(rf"(?<![a-z_]){re.escape(way)}", path.read_text())
    }
    assert found == {("runs/open.py", way) for way in ways}
