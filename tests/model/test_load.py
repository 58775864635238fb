"""Loading: devices, types, what ends an answer, and errors of one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from luthier.core.errors import InputError
from luthier.model import load as loading
from luthier.model.folder.tokenizer import load_tokenizer
from luthier.model.hub.sources import resolve
from luthier.model.load import cpu_has_bfloat16, load, pick_device, pick_dtype
from sentences import sentence

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shards", ["1GB", "40KB"])
def test_types_and_shards_load_as_transformers_loads_them(
    model: Path, tmp_path: Path, dtype: torch.dtype, saved: torch.dtype, shards: str
) -> None:
    AutoModelForCausalLM.from_pretrained(model, dtype=saved).save_pretrained(tmp_path / "again", max_shard_size=shards)
    shutil.copytree(
        model, tmp_path / "again", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "config.json")
    )
    assert (len(list((tmp_path / "again").glob("*.safetensors"))) > 1) == (shards == "40KB")
    ours = load(tmp_path / "again", device=CPU, dtype=dtype, attention="sdpa").model
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype=dtype)
    assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()
    assert ours.config.tie_word_embeddings == theirs.config.tie_word_embeddings
    assert (ours.lm_head.weight is ours.get_input_embeddings().weight) == theirs.config.tie_word_embeddings
    found, wanted = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (ours, theirs))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype for name in wanted)


PEAK = """
import sys, torch
from pathlib import Path
from luthier.model.load import load
import transformers.models.llama.modeling_llama  # what loading imports is not what it holds
def kilobytes(name):
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])
before = kilobytes("VmRSS")
model = load(Path(sys.argv[1]), device=torch.device("cpu"), dtype=torch.float32).model
print(1024 * (kilobytes("VmHWM") - before) / sum(p.nbytes for p in model.parameters()))
"""


@pytest.mark.medium
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_that_change_type_are_not_held_twice(smollm2_folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PEAK, str(smollm2_folder)], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1]) < 1.35  # 1.5 with the file


def test_a_folder_loads_as_transformers_loads_it(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load(resolve(str(model)), device=CPU, dtype=torch.float32, attention="sdpa")
    expected = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    capfd.readouterr()
    ids = torch.tensor([[1, 5, 9, 2]])
    torch.testing.assert_close(loaded.model(ids).logits, expected(ids).logits, rtol=1e-5, atol=1e-5)
    assert loaded.address == str(model.resolve())
    assert not loaded.model.training
    assert load(model, device=CPU, dtype=torch.bfloat16).model.dtype == torch.bfloat16
    assert capfd.readouterr() == ("", "")


def test_tokens_that_end_an_answer_come_from_both_places(model: Path) -> None:
    own = load_tokenizer(model).eos_token_id
    path = model / "generation_config.json"
    for listed, expected in ((own, (own,)), ([7, own, 3], (own, 7, 3)), (None, (own,))):
        path.write_text(json.dumps({"eos_token_id": listed}))
        assert load(model, device=CPU, dtype=torch.float32).eos_ids == expected


def test_weights_that_lack_a_layer_are_refused(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3, "layer_types": None}))
    with pytest.raises(InputError, match=sentence("weights missing", problem="missing keys", listed="…layers.2…")):
        load(model, device=CPU, dtype=torch.float32)


def with_weights(model: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = model / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # read as they are, and one by one
def test_a_head_that_is_missing_is_refused_not_made_up(model: Path, dtype: torch.dtype) -> None:
    """transformers gives it random weights: config.json says that the embedding's are not the head's."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(
        InputError,
        match=sentence(
            "weights missing",
            problem="missing keys",
            listed="lm_head.weight (config.json says that it is not the embedding's)",
        ),
    ):
        load(model, device=CPU, dtype=dtype)


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.bias", "model.layers.2.mlp.up_proj.weight"])
def test_weights_of_a_part_of_the_model_that_its_configuration_leaves_out_are_refused(model: Path, name: str) -> None:
    """A bias that is not added, a layer that is not run: transformers passes them over."""
    with_weights(model, lambda weights: weights | {name: torch.ones(32)})
    with pytest.raises(InputError, match=sentence("weights undescribed", names=name)):
        load(model, device=CPU, dtype=torch.float32)


def test_weights_of_parts_that_write_no_text_are_named_and_left(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = {"vision_tower.patch.weight": torch.ones(3), "vision_tower.patch.bias": torch.ones(3)}
    with_weights(model, lambda weights: weights | extra)
    load(model, device=CPU, dtype=torch.float32)
    assert (
        "2 weights belong to no part of this model and are not read: vision_tower.patch.bias and 1 more"
        in capsys.readouterr().err
    )


def test_pickles_beside_safetensors_are_never_read_and_an_adapter_beside_them_is_no_weight(model: Path) -> None:
    from peft import LoraConfig, get_peft_model

    wanted = load(model, device=CPU, dtype=torch.float32, attention="sdpa").model(torch.tensor([[1, 5, 9]])).logits
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04 never read")
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(init_lora_weights=False))
    tuned.save_pretrained(model)
    for dtype in (torch.float32, torch.bfloat16):
        found = load(model, device=CPU, dtype=dtype, attention="sdpa").model(torch.tensor([[1, 5, 9]])).logits
        torch.testing.assert_close(found.float(), wanted, atol=1e-6 if dtype == torch.float32 else 0.1, rtol=0)


def test_weights_of_another_shape_are_refused(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(InputError) as caught:
        load(model, device=CPU, dtype=torch.float32)
    assert "\n" not in str(caught.value)


def test_unknown_kinds_of_model_are_refused(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "wumpus"}))
    with pytest.raises(InputError, match=sentence("cannot read configuration", reason="…wumpus…")) as caught:
        load(model, device=CPU, dtype=torch.float32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "{", '{"version": "1.0"}'])
def test_a_tokenizer_that_cannot_be_read_is_one_line(model: Path, text: str | None) -> None:
    (model / "tokenizer.json").unlink()
    if text is not None:
        (model / "tokenizer.json").write_text(text)
    with pytest.raises(
        InputError, match=sentence("tokenizer unreadable" if text == "{" else "cannot read tokenizer")
    ) as caught:
        load_tokenizer(model)
    assert "\n" not in str(caught.value)


def test_absent_devices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(InputError, match=sentence("no device", name="cuda", present="cpu")):
        pick_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("flags\t\t: fpu avx2 fma", False), ("flags : avx512f avx512_bf16", True), ("flags : amx_tile amx_bf16", True),
     ("Features : fp asimd bf16", True), ("flags : avx512_bf16x", False), ("", False)],
)  # fmt: skip
def test_bfloat16_of_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\n{flags}\npower management:\n")
    assert cpu_has_bfloat16(path) is expected
    assert not cpu_has_bfloat16(tmp_path / "absent")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not cpu_has_bfloat16(path)


def test_auto_takes_bfloat16_only_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda native=native: native)
        assert pick_dtype("auto", CPU) == expected
    assert pick_dtype("auto", torch.device("mps")) == torch.float32
    assert pick_dtype("float16", CPU) == torch.float16


@pytest.mark.medium
def test_the_embedded_model_answers(smollm2_folder: Path) -> None:
    loaded = load(smollm2_folder, device=CPU, dtype=torch.float32, attention="sdpa")
    assert loaded.eos_ids == (2,)
    question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    ids = loaded.tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = loaded.model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in loaded.tokenizer.decode(out)
