"""Whole runs on a tiny mixture of experts: what learns, what the journal says of the experts, exports, resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.export.merge import merge
from luthier.model.load import load
from luthier.tune.train import run
from luthier.tune.verify import resume
from mixtures import mixture
from sentences import sentence

pytestmark = pytest.mark.filterwarnings("ignore:.*rank_pattern|.*alpha_pattern|.*is_gradient_checkpointing")
IDS = torch.arange(5, 25)[None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer) -> Path:
    """A Qwen3-MoE as transformers saves it, each expert by itself, with a tokenizer."""
    out = tmp_path_factory.mktemp("models") / "mixture"
    model = mixture(vocab_size=len(tiny_tokenizer) + 5)
    model.generation_config.eos_token_id = tiny_tokenizer.eos_token_id
    model.save_pretrained(out)
    tiny_tokenizer.save_pretrained(out)
    return out


@pytest.fixture
def settings(folder: Path, tmp_path: Path):
    def make(**changes):
        path = tmp_path / "rows.jsonl"
        answers = (
            {"completion": "red cat"} if changes.get("method") == "sft" else {"chosen": "red cat", "rejected": "no dog"}
        )
        rows = [{"prompt": f"the cat {i}?", **answers} for i in range(12)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        base = {
            "model": str(folder), "data.path": [str(path)], "out": str(tmp_path / "run"), "method": "dpo", "train.batch": 4,
            "train.steps": 4, "train.checkpoint": 2, "train.keep": 9, "data.holdout": 0.2, "eval.max_new_tokens": 4, "lora.rank": 4,
            "threads": 1, "device": "cpu", "dtype": "float32", "train.lr": 1e-2,
        }  # fmt: skip
        return resolve(base | {name.replace("__", "."): value for name, value in changes.items()})

    return make


def journal(run_folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def merged_and_peft(run_folder: Path, base: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of the merged model in transformers, and of the adapter in PEFT."""
    from peft import PeftModel

    out = merge(run_folder, None, "float32")
    assert out["largest_difference"] < 1e-4
    whole = AutoModelForCausalLM.from_pretrained(out["merged"])
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run_folder / "adapter")
    with torch.no_grad():
        return tuple(model(IDS).logits.log_softmax(-1) for model in (whole, adapted))


@pytest.mark.medium
def test_a_run_with_adapters_on_experts(settings, folder: Path, tmp_path: Path, capsys) -> None:
    """Its journal says what the experts got, its adapter is the same in PEFT and merged, and its steps repeat to the same bits."""
    run(settings(train__router_loss=0.1))
    assert "the router that chooses among the experts stays as it is" in capsys.readouterr().err
    lines = journal(tmp_path / "run")
    assert len(lines) == 4
    for line in lines:
        assert len(line["expert_load"]) == 4
        assert sum(line["expert_load"]) == pytest.approx(1, abs=1e-3)
        assert 1 <= line["expert_load_max"] <= 2  # of four experts two are taken: at most all tokens' half
        assert 0 <= line["experts_idle"] < 1
        assert line["router_loss"] >= 1.5
    tensors = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert tensors["base_model.model.model.layers.0.mlp.experts.lora_A.weight"].shape == (4 * 2, 24)
    whole, adapted = merged_and_peft(tmp_path / "run", folder)
    torch.testing.assert_close(adapted, whole, atol=2e-5, rtol=0)
    assert resume(tmp_path / "run")["same_bits"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"method": "sft", "tune": "full", "train__router_loss": 0.01},
        {"method": "sft", "tune": "qlora", "quant__block": 16},
        {"method": "dpo", "tune": "qlora", "quant__kind": "int8", "quant__block": 16},
        {"method": "grpo", "reward__use": ["length:3"], "rollout__samples": 4, "rollout__max_new_tokens": 6},
        {
            "method": "ppo",
            "tune": "qlora",
            "quant__block": 16,
            "reward__use": ["length:3"],
            "rollout__max_new_tokens": 6,
        },
    ],
    ids=lambda changes: f"{changes['method']}-{changes.get('tune', 'lora')}",
)
def test_every_kind_of_run_repeats_to_the_same_bits(settings, folder: Path, tmp_path: Path, changes) -> None:
    run(settings(**changes))
    assert resume(tmp_path / "run")["same_bits"]
    if changes.get("tune") != "full":
        whole = merge(tmp_path / "run", None, "float32")
        assert whole["largest_difference"] < 1e-4
    else:
        models = [
            load(path, device=torch.device("cpu"), dtype=torch.float32).model
            for path in (folder, tmp_path / "run" / "model")
        ]
        before, after = (model.model.layers[0].mlp for model in models)
        assert not torch.equal(after.gate.weight, before.gate.weight)
        assert not torch.equal(after.experts.down_proj, before.experts.down_proj)


def test_a_dense_model_has_nothing_to_balance(settings, tiny_folder: Path, capsys) -> None:
    with pytest.raises(InputError, match=sentence("no router to balance")):
        run(settings(model=str(tiny_folder), train__router_loss=0.1))
    assert "before" not in capsys.readouterr().err  # nothing was measured yet
