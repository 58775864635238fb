"""Adapters of many families as PEFT loads them: dotted names of layers, the same log-probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from survey import reference, separate, trees
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.errors import InputError
from luthier.model.adapt import adapters, lora, tune
from luthier.model.forward import forward
from luthier.model.load import load
from luthier.text.pack import pack
from sentences import sentence
from tiny_architectures import make

IDS = torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(1))
FAMILIES = ["llama", "qwen2", "qwen3", "gemma3_text", "phi3", "mistral", "olmo2", "smollm3", "granite"]


def model(family: str):
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_gives_the_same(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    ours = model(family).requires_grad_(False)
    for adapter in lora.attach(ours, LoraConfig(rank=4)).values():
        torch.nn.init.normal_(adapter.B, std=0.2)
    adapters.save(tmp_path, ours, "tiny", LoraConfig())
    with torch.no_grad():
        found, plain, theirs = (
            m(IDS).logits.log_softmax(-1)
            for m in (ours, model(family), PeftModel.from_pretrained(model(family), tmp_path))
        )
    torch.testing.assert_close(theirs, found, atol=1e-5, rtol=0)
    assert float((found - plain).abs().max()) > 1e-3


# Layers with a state, experts beside them, caps and windows, models of text and pictures used for text alone.
WHOLE = [
    "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_next", "lfm2", "lfm2_moe", "granitemoehybrid", "falcon_h1", "nemotron_h",
    "gemma2", "gemma3", "gemma4", "gemma4_text", "llama4", "llama4_text", "mistral3", "qwen2_5_vl", "gpt_oss",
]  # fmt: skip
FEW = ("qwen3_5", "lfm2", "granitemoehybrid", "gemma2", "gemma4", "llama4")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing|.*rank_pattern|.*alpha_pattern")
@pytest.mark.parametrize(
    "kind", [kind if kind in FEW else pytest.param(kind, marks=pytest.mark.slow) for kind in WHOLE]
)
def test_an_adapter_of_a_loaded_model_is_the_same_in_peft(kind: str, tmp_path: Path, tiny_tokenizer) -> None:
    """All layers that take one, on the model as Luthier loads it and packs for it, against PEFT on transformers' own, text by text."""
    from peft import PeftModel

    folder = make(kind, tmp_path / "model", tiny_tokenizer)
    ours = load(folder, device=torch.device("cpu"), dtype=torch.float32).model.requires_grad_(False)
    rows = trees(300)
    batch = pack(rows, [[1.0] * tree.trained for tree in rows])
    with torch.no_grad():
        plain = forward(ours, batch).logp
        found = lora.attach(ours, LoraConfig(rank=4, alpha=8))
        for adapter in found.values():
            torch.nn.init.normal_(adapter.B, std=0.1)
        wanted = forward(ours, batch).logp
        adapters.save(tmp_path, ours, str(folder), LoraConfig())
        theirs = PeftModel.from_pretrained(reference(folder, type(ours), torch.float32), tmp_path)
        alone = torch.cat([separate(theirs, tree) for tree in rows])
    assert not any("vision" in name or "projector" in name for name in found)
    torch.testing.assert_close(alone, wanted, atol=1e-4, rtol=0)
    assert float((wanted - plain).abs().max()) > 1e-2
    again = load(folder, device=torch.device("cpu"), dtype=torch.float32).model
    assert adapters.apply(again, tmp_path) == len(found)
    with torch.no_grad():
        assert torch.equal(forward(again, batch).logp, wanted)


@pytest.mark.medium
def test_where_peft_takes_no_adapter_none_is_put_and_a_named_one_is_told(
    tmp_path: Path, tiny_tokenizer, capsys
) -> None:
    """The last projection of Mamba layers, which PEFT refuses for some models: it would not load the file."""
    folder = make("falcon_h1", tmp_path / "model", tiny_tokenizer)
    model = load(folder, device=torch.device("cpu"), dtype=torch.float32).model
    found = lora.attach(model, LoraConfig(rank=4))
    assert not any(name.endswith("out_proj") for name in found) and any("mamba.in_proj" in name for name in found)
    (words,) = tune.without_adapter(model, "lora")
    assert words.startswith("'out_proj' of its Mamba layers stays as it is")
    lora.detach(model)
    config = LoraConfig(rank=4, targets=("out_proj",))
    assert len(lora.attach(model, config)) == 4
    assert tune.without_adapter(model, "lora") == []
    adapters.save(tmp_path, model, str(folder), config)
    assert "PEFT loads no adapter on 'out_proj'" in capsys.readouterr().err
    from peft import PeftModel

    with pytest.raises(ValueError, match="out_proj"):
        PeftModel.from_pretrained(reference(folder, type(model), torch.float32), tmp_path)
    again = load(folder, device=torch.device("cpu"), dtype=torch.float32).model
    assert adapters.apply(again, tmp_path) == 4


@pytest.mark.parametrize("target", ["gate_up_proj", "*.experts.down_proj", "experts.down_proj"])
def test_experts_of_a_form_of_their_own_take_no_adapter_and_learn_whole(target, tmp_path: Path, tiny_tokenizer) -> None:
    """Llama 4 sorts its tokens before its experts see them. `layers:` names their weights, and no others."""
    folder = make("llama4_text", tmp_path / "model", tiny_tokenizer)
    model = load(folder, device=torch.device("cpu"), dtype=torch.float32).model
    with pytest.raises(InputError, match=sentence("experts of their own form", target=target)):
        lora.attach(model, LoraConfig(rank=4, targets=(target,)))
    tuned = tune.prepare(model, "layers:*.experts.*", LoraConfig(), QuantConfig())
    assert tuned.parameters and all(".experts." in name for name in tuned.parameters)
    tuned = tune.prepare(model, "qlora", LoraConfig(rank=4), QuantConfig())
    (words,) = tune.without_adapter(model, "qlora")
    assert words.partition(" weights ")[2] == (
        "of experts get no adapter and are not quantized: transformers has them in a form of their own"
    )
