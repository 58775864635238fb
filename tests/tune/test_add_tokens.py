"""Whole runs that add tokens: rows that learn, the same answers in PEFT, transformers and here, resume to the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import tiny_model
from luthier.cli import run as cli
from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.export.merge import merge
from luthier.runs.open import log_probabilities, open_model
from luthier.tune.train import run
from luthier.tune.verify import resume
from sentences import sentence

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*tie_word_embeddings|.*ensure_weight_tying|.*is_gradient_checkpointing"
)
TEXT = "the<call>cat</call>dog"


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folder(request, tmp_path: Path, tiny_tokenizer) -> Path:
    """A model with as many rows as its tokenizer has tokens."""
    model = tiny_model("sdpa", vocabulary=len(tiny_tokenizer), tie_word_embeddings=request.param)
    model.generation_config.eos_token_id = tiny_tokenizer.eos_token_id
    model.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def settings(folder: Path, tmp_path: Path):
    def make(**changes):
        rows, tokens = tmp_path / "rows.jsonl", tmp_path / "tokens.txt"
        answers = {"completion": "<call>red</call>"} if changes.get("method", "sft") == "sft" else {
            "chosen": "<call>red</call>", "rejected": "no dog"}  # fmt: skip
        rows.write_text("".join(json.dumps({"prompt": f"the cat {i}?", **answers}) + "\n" for i in range(12)))
        tokens.write_text("<call>\n</call>\n")
        base = {
            "model": str(folder), "data.path": [str(rows)], "text.add_tokens": str(tokens), "out": str(tmp_path / "run"),
            "train.batch": 4, "train.steps": 4, "train.checkpoint": 2, "train.keep": 9, "data.holdout": 0.2,
            "eval.max_new_tokens": 4, "lora.rank": 2, "threads": 1, "device": "cpu", "dtype": "float32",
            "train.lr": 1e-2, "eval.forgetting": False,
        }  # fmt: skip
        return resolve(base | {name.replace("__", "."): value for name, value in changes.items()})

    return make


def both(run_folder: Path, base: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """log p of a text with new tokens: here, of the adapter in PEFT, of the merged model in transformers."""
    from peft import AutoPeftModelForCausalLM

    opened = open_model(str(run_folder), device="cpu", dtype="float32")
    here = log_probabilities(opened, [TEXT])
    ids = torch.tensor([opened.tokenizer.encode(TEXT)])
    assert (
        AutoTokenizer.from_pretrained(run_folder / "adapter").encode(TEXT, add_special_tokens=False) == ids[0].tolist()
    )
    merged = merge(run_folder, None, "float32")
    assert merged["largest_difference"] < 1e-4
    models = (
        AutoPeftModelForCausalLM.from_pretrained(run_folder / "adapter"),
        AutoModelForCausalLM.from_pretrained(merged["merged"]),
    )
    found = []
    for model in models:
        with torch.no_grad():
            logp = model(ids).logits[0, :-1].log_softmax(-1)
        found.append(logp.gather(1, ids[0, 1:, None])[:, 0])
    return here, *found


@pytest.mark.medium
def test_adapters_learn_new_tokens_and_peft_and_transformers_agree(
    settings, folder: Path, tmp_path: Path, tiny_tokenizer
) -> None:
    result = run(settings())
    size = len(tiny_tokenizer)
    assert result["metrics"]["loss"]["after"] < result["metrics"]["loss"]["before"]
    embed = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")[
        "base_model.model.model.embed_tokens.weight"
    ]
    assert len(embed) == size + 2
    base = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    mean = base.mean(0)
    assert float((embed[size] - mean).abs().max()) > 1e-3  # it learned
    assert float((embed[size] - embed[size + 1]).abs().max()) > 1e-3
    here, theirs, merged = both(tmp_path / "run", folder)
    torch.testing.assert_close(theirs, here, atol=2e-5, rtol=0)
    torch.testing.assert_close(merged, here, atol=1e-4, rtol=0)
    assert resume(tmp_path / "run")["same_bits"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"tune": "full"},
        {"tune": "qlora", "quant__block": 16},
        {"method": "dpo"},
        {"method": "grpo", "reward__use": ["length:3"], "rollout__samples": 4, "rollout__max_new_tokens": 6},
        {"method": "ppo", "reward__use": ["length:3"], "rollout__max_new_tokens": 6},
    ],
    ids=lambda changes: f"{changes.get('method', 'sft')}-{changes.get('tune', 'lora')}",
)
def test_every_kind_of_run_repeats_to_the_same_bits(settings, folder: Path, tmp_path: Path, changes) -> None:
    run(settings(**changes))
    assert resume(tmp_path / "run")["same_bits"]
    if changes.get("tune") == "full":
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
        assert model.get_input_embeddings().weight.shape[0] == len(
            AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
        )
    elif changes.get("tune") != "qlora":  # whose base PEFT has not
        here, theirs, merged = both(tmp_path / "run", folder)
        torch.testing.assert_close(theirs, here, atol=5e-5, rtol=0)
        torch.testing.assert_close(merged, here, atol=2e-4, rtol=0)


@pytest.mark.medium
def test_a_run_goes_on_from_a_run_with_tokens_of_its_own(settings, tmp_path: Path) -> None:
    run(settings())
    again = settings(model=str(tmp_path / "run"), text__add_tokens=None, out=str(tmp_path / "second"))
    assert run(again)["metrics"]["loss"]["after"] <= run(settings())["metrics"]["loss"]["before"]
    embed = [load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")["base_model.model.model.embed_tokens.weight"]
             for name in ("run", "second")]  # fmt: skip
    assert embed[0].shape == embed[1].shape
    assert not torch.equal(*embed)


@pytest.mark.medium
def test_tokens_without_rows_are_refused_before_the_data_is_read(
    settings, folder: Path, tmp_path: Path, tiny_tokenizer
) -> None:
    """Unless they are those that are added."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<call>"])
    tokenizer.save_pretrained(folder)
    size = len(tiny_tokenizer)
    with pytest.raises(
        InputError, match=sentence("tokens beyond embedding", tokens=size + 1, rows=size, token="<call>")
    ):
        run(settings(text__add_tokens=None))
    run(settings(train__steps=1))
    embed = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")[
        "base_model.model.model.embed_tokens.weight"
    ]
    assert len(embed) == size + 2


def test_the_option_is_called_as_what_it_tunes(folder: Path, tmp_path: Path, capsys) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    assert cli(["train", str(rows), "--model", str(folder), "--tune.add_tokens", str(tmp_path / "none.txt")]) == 2
    assert "--tune.add_tokens: no such file" in capsys.readouterr().err
