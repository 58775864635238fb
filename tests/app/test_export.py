"""What a run leaves for others: PEFT and transformers load it and compute the same."""

from __future__ import annotations

import json

import pytest
import torch

from luthier.app.train import run
from luthier.core.config import resolve

ROWS = [{"instruction": f"name {i}", "input": "the cat" if i % 2 else "", "output": "cat"} for i in range(24)]


@pytest.fixture
def tuned(tmp_path, tiny_folder):
    def make(**changes):
        rows = tmp_path / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        base = {"model": str(tiny_folder), "data.path": [str(rows)], "out": str(tmp_path / "run"), "threads": 1, "device": "cpu",
                "dtype": "float32", "train.lr": 1e-2, "train.batch": 4, "eval.samples": 0, "eval.forgetting": False}  # fmt: skip
        run(resolve(base | {key.replace("__", "."): value for key, value in changes.items()}))
        return tmp_path / "run"

    return make


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lora__dora": True},
        {"lora__init": "pissa"},
        {"lora__rslora": True},
        {"lora__targets": ["q_proj", "v_proj"]},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
def test_peft_loads_the_adapter_and_gives_the_same_logits(tuned, tiny_folder, changes):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from luthier.app.use import log_probabilities, open_model

    folder = tuned(**changes)
    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    opened = open_model(str(folder), device="cpu", dtype="float32")
    text = "the cat sat on the mat by the tree"
    ids = torch.tensor([opened.tokenizer.encode(text)])

    def logp(model):
        with torch.no_grad():
            return model.eval()(ids).logits[0].log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None])[:, 0]

    before = logp(base)
    theirs = logp(PeftModel.from_pretrained(base, folder / "adapter"))
    ours = log_probabilities(opened, [text])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (theirs - before).abs().max() > 1e-2


@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
def test_peft_finds_the_base_of_an_adapter(tuned, tiny_folder, tmp_path, monkeypatch):
    """A model that was named by a relative path is found from elsewhere too."""
    from peft import AutoPeftModelForCausalLM

    from luthier.app.use import log_probabilities, open_model

    monkeypatch.chdir(tiny_folder.parent)
    folder = tuned(model=tiny_folder.name)
    monkeypatch.chdir(tmp_path)
    text = "the cat sat on the mat"
    found = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter", dtype=torch.float32).eval()
    monkeypatch.chdir(tiny_folder.parent)
    opened = open_model(str(folder), device="cpu", dtype="float32")
    ids = torch.tensor([opened.tokenizer.encode(text)])
    with torch.no_grad():
        theirs = found(ids).logits[0].log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(log_probabilities(opened, [text]), theirs, atol=1e-5, rtol=0)


def test_the_exported_template_renders_the_trained_prompt(tuned):
    """LLaMA-Factory#4544 and others: trained in one template, served in another."""
    from transformers import AutoTokenizer

    from luthier.core.types import Message
    from luthier.text.template import load_template
    from luthier.text.tokenizer import Tokenizer

    folder = tuned(text__template="alpaca")
    served = AutoTokenizer.from_pretrained(folder / "adapter")
    ours = load_template("alpaca", Tokenizer(served))
    talks = [
        [Message("user", "who is it")],
        [Message("system", "be kind"), Message("user", "who")],
        [Message("user", "one"), Message("assistant", "two"), Message("user", "three")],
    ]
    for talk in talks:
        theirs = served.apply_chat_template([m.as_dict() for m in talk], tokenize=False, add_generation_prompt=True)
        assert theirs == ours.render(talk, prompt=True)
        assert theirs.endswith("### Response:\n")


def test_the_template_of_the_model_is_kept_as_it_is(tuned, tiny_tokenizer):
    folder = tuned()
    assert (folder / "adapter" / "chat_template.jinja").read_text() == tiny_tokenizer.chat_template


def test_nothing_is_pickled(tuned):
    folder = tuned(tune="full")
    assert {p.suffix for p in folder.rglob("*") if p.is_file() and p.name != ".lock"} <= {
        ".html", ".json", ".jsonl", ".yaml", ".safetensors", ".svg", ".jinja", ".txt",
    }  # fmt: skip
