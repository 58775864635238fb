"""Adapters as PEFT and the trainers on it save them: computed as PEFT computes them, or refused by name, never in part."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from luthier.core.errors import InputError
from luthier.model.adapt import adapter_config, adapters, peft
from luthier.model.load import load
from sentences import sentence

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 9, 2, 7, 30, 11]])


@pytest.fixture
def saved(tiny_folder: Path, tmp_path: Path):
    """Save an adapter with PEFT, its B large enough to matter; return the folder, and PEFT's own model."""
    from peft import LoraConfig, get_peft_model

    def save(**changes):
        base = AutoModelForCausalLM.from_pretrained(tiny_folder)
        values = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | changes
        model = get_peft_model(base, LoraConfig(**values))
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name or name.endswith(".bias"):
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter", model.eval()

    return save


def edited(folder: Path, **values: object) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        peft.read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"v_proj": 2}},
        {"rank_pattern": {"v_proj": 2}, "use_rslora": True},
        {"alpha_pattern": {"v_proj": 64}, "rank_pattern": {r"layers\.1\.self_attn\.v_proj": 2}},
        {"use_dora": True},
        {"fan_in_fan_out": True},  # PEFT: of no meaning on a linear layer
        {"target_modules": r".*layers\.1\..*(q|v)_proj"},
        {"target_modules": "all-linear", "exclude_modules": ["o_proj"]},
        {"layers_to_transform": [1]},
        {"init_lora_weights": "gaussian"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
@pytest.mark.medium
def test_what_is_read_is_computed_as_peft_computes_it(saved, tiny_folder: Path, changes) -> None:
    folder, theirs = saved(**changes)
    ours = load(tiny_folder, device=CPU, dtype=torch.float32, attention="sdpa").model
    before = ours(IDS).logits
    adapters.apply(ours, folder)
    with torch.no_grad():
        wanted = theirs(IDS).logits
        assert (wanted - before).abs().max() > 0.05
        torch.testing.assert_close(ours(IDS).logits, wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"modules_to_save": ["norm"]}, "its own 'norm'"),
        ({"trainable_token_indices": [3, 5]}, "trainable_token_indices"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa', which changes the base too"),
        ({"init_lora_weights": "olora"}, "init_lora_weights 'olora'"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "a tensor 'base_model.model.model.embed_tokens."),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::UserWarning:peft.*")
def test_what_luthier_does_not_compute_is_refused_by_name(saved, changes, name) -> None:
    folder, _ = saved(**changes)
    assert name in refusal(folder)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"bias": "all"}, "bias 'all'"),
        ({"bias": "lora_only"}, "bias 'lora_only'"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"use_qalora": True}, "use_qalora"),
        ({"megatron_config": {"a": 1}}, "megatron_config"),
        ({"arrow_config": {"top_k": 2}}, "arrow_config"),
        ({"a_setting_of_next_year": 3}, "a_setting_of_next_year"),
        ({"lora_alpha": None}, "lora_alpha is null"),
        ({"peft_type": "IA3"}, "of type 'IA3'"),
        ({"peft_type": "PROMPT_TUNING"}, "of type 'PROMPT_TUNING'"),
        ({"peft_type": "ADALORA"}, "of type 'ADALORA'"),
        ({"peft_type": "VERA"}, "of type 'VERA'"),
    ],
    ids=str,
)
def test_settings_that_are_not_known_to_be_harmless_are_refused(saved, values, name) -> None:
    assert name in refusal(edited(saved()[0], **values))


def test_settings_that_say_nothing_are_no_obstacle(saved) -> None:
    """Trainers write what they do not use: null, false, empty."""
    folder = edited(saved()[0], alpha_pattern={}, lora_bias=False, target_parameters=None, kasa_config=None, new=[])
    assert len(peft.read(folder).layers) == 4


def tensors_of(folder: Path, change) -> Path:
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return folder


def test_tensors_that_are_missing_cut_or_strange_are_named(saved, tmp_path: Path) -> None:
    folder, _ = saved()
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_"

    def without(tensors):
        return {name: tensor for name, tensor in tensors.items() if name != f"{first}B.weight"}

    cases = {
        "has no lora_B": without,
        "have different ranks": lambda t: t | {f"{first}A.weight": t[f"{first}A.weight"][:2].contiguous()},
        "has a tensor 'base_model.model.model.layers.0.self_attn.q_proj.bias'": lambda t: (
            t | {"base_model.model.model.layers.0.self_attn.q_proj.bias": torch.ones(32)}
        ),
        "has a tensor 'prompt_embeddings'": lambda t: t | {"prompt_embeddings": torch.ones(4, 32)},
        "the adapter holds no tensor": lambda t: {},
    }
    for number, (words, change) in enumerate(cases.items()):
        copy = Path(shutil.copytree(folder, tmp_path / str(number)))
        assert words in refusal(tensors_of(copy, change))


def test_an_adapter_of_another_model_is_refused_before_anything_changes(saved, tiny_folder: Path) -> None:
    folder, _ = saved()
    model = load(tiny_folder, device=CPU, dtype=torch.float32, attention="sdpa").model
    before = model(IDS).logits
    tensors_of(folder, lambda t: {name.replace("layers.1", "layers.9"): tensor for name, tensor in t.items()})
    with pytest.raises(
        InputError,
        match=sentence("adapter of another model", name="model.layers.9…", fault="this model does not have"),
    ):
        adapters.apply(model, folder)
    assert torch.equal(model(IDS).logits, before)


def test_pickled_and_pointed_at_adapters_are_refused_unread(saved) -> None:
    folder, _ = saved()
    weights = folder / "adapter_model.safetensors"
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04never read")
    assert len(peft.read(folder).layers) == 4  # beside safetensors it is of no matter
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "Git LFS pointer" in refusal(folder)
    weights.unlink()
    assert "only a pickled adapter (adapter_model.bin)" in refusal(folder)


@pytest.mark.parametrize(
    ("values", "name"),
    [({"lora_alpha": 0}, "lora_alpha is 0"), ({"lora_alpha": -4}, "lora_alpha is -4"), ({"lora_alpha": 1e300}, "lora_alpha is 1e+300"),
     ({"lora_alpha": float("nan")}, "lora_alpha is NaN"), ({"use_rslora": "yes"}, 'use_rslora is "yes"'),
     ({"use_dora": 2}, "use_dora is 2"),
     ({"modules_to_save": 5}, "modules_to_save is 5"), ({"modules_to_save": [["score"]]}, "modules_to_save is a list"),
     ({"init_lora_weights": {"a": 1}}, "init_lora_weights"), ({"auto_map": {"x": "evil.Evil"}}, "'auto_map'"), ({"bias": [1]}, "bias")],
    ids=str,
)  # fmt: skip
def test_settings_of_wrong_types_are_named(saved, values, name) -> None:
    assert name in refusal(edited(saved()[0], **values))


def test_tensors_of_wrong_types_and_shapes_are_named(saved, tmp_path: Path) -> None:
    folder, _ = saved()
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    for number, (words, tensor) in enumerate(
        {
            "is I32 of shape [4, 32]": torch.ones(4, 32, dtype=torch.int32),
            "is F32 of shape [32]": torch.ones(32),
            "is F32 of shape [0, 32]": torch.ones(0, 32),
            "is F32 of shape [1, 4, 32]": torch.ones(1, 4, 32),
            "holds NaN or infinity": torch.full((4, 32), float("nan")),
        }.items()
    ):
        copy = Path(shutil.copytree(folder, tmp_path / str(number)))
        assert words in refusal(tensors_of(copy, lambda t, tensor=tensor: t | {first: tensor}))


@pytest.mark.parametrize("name", [7, ["x"], "x" * 5000, "a\x1b[31mb", "a\0b"])
def test_the_name_of_a_base_is_a_path_or_a_name(saved, name: object) -> None:
    folder = edited(saved()[0], base_model_name_or_path=name)
    with pytest.raises(InputError, match=sentence("base not a name")):
        adapter_config.base_name(folder)


def test_files_of_an_adapter_are_files(saved) -> None:
    folder, _ = saved()
    weights = folder / "adapter_model.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    assert "a pipe or a device" in refusal(folder)
    with open(folder / "adapter_config.json", "ab") as handle:
        handle.truncate(1 << 31)
    assert "MiB, which is too large for such a file" in refusal(folder)
