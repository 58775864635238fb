"""Embeddings and heads that learn whole, tied or not, and rows for new tokens, against PEFT and transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import tiny_model
from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.errors import InputError
from luthier.model.adapt import adapter_config, adapters, lora, roles, tune, vocabulary_weights
from luthier.model.adapt.mixed import mixed
from luthier.model.adapt.vocabulary_weights import NAMES
from sentences import sentence

IDS = torch.arange(1, 25).reshape(2, 12)
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*tie_word_embeddings|.*ensure_weight_tying|.*is_gradient_checkpointing|.*no longer tied"
)


def logp(model, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits.log_softmax(-1)


def learned(names: tuple[str, ...], tied: bool, new: int = 0):
    """A model whose adapters, embedding and head have learned something. `new` rows are for new tokens."""
    model = tiny_model("sdpa", tie_word_embeddings=tied)
    vocabulary_weights.add_rows(model, 512 + new, range(512, 512 + new))
    tuned = tune.prepare(model, "lora", LoraConfig(rank=2, modules_to_save=names), QuantConfig())
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuned.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return model


@pytest.mark.parametrize("names", [NAMES, NAMES[:1], NAMES[1:]], ids=str)
@pytest.mark.parametrize("tied", [True, False])
def test_peft_reads_what_learned_and_so_do_we(names, tied, tmp_path: Path) -> None:
    """Of a tied model one weight learns as both, and PEFT ties them again."""
    from peft import PeftModel

    model = learned(names, tied)
    assert vocabulary_weights.of(model).tied == tied
    adapters.save(tmp_path, model, "tiny", LoraConfig())
    wanted = logp(model)
    theirs = PeftModel.from_pretrained(tiny_model("sdpa", tie_word_embeddings=tied), tmp_path)
    torch.testing.assert_close(logp(theirs), wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(logp(theirs.merge_and_unload()), wanted, atol=1e-4, rtol=0)
    ours = tiny_model("sdpa", tie_word_embeddings=tied)
    before = logp(ours)
    adapters.apply(ours, tmp_path)
    assert torch.equal(logp(ours), wanted)
    assert vocabulary_weights.of(ours).tied == tied
    adapters.take_off(ours)
    assert torch.equal(logp(ours), before)
    saved = {name for name in load_file(tmp_path / "adapter_model.safetensors") if "lora" not in name}
    parts = NAMES if tied else names
    keys = {"embed_tokens": "base_model.model.model.embed_tokens.weight", "lm_head": "base_model.model.lm_head.weight"}
    assert saved == {keys[name] for name in parts}


@pytest.mark.parametrize("names", [["embed_tokens", "lm_head"], ["embed_tokens"], ["lm_head"]], ids=str)
@pytest.mark.parametrize("tied", [True, False])
def test_what_peft_wrote_is_computed_as_peft_computes_it(names, tied, tmp_path: Path) -> None:
    """Also where it takes tied weights apart, which is what it does when it is not told to tie them."""
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    config = PeftConfig(r=2, target_modules=["q_proj"], modules_to_save=names, task_type="CAUSAL_LM")
    theirs = get_peft_model(tiny_model("sdpa", tie_word_embeddings=tied), config)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    theirs.save_pretrained(tmp_path, save_embedding_layers=False)
    ours = tiny_model("sdpa", tie_word_embeddings=tied)
    adapters.apply(ours, tmp_path)
    torch.testing.assert_close(logp(ours), logp(theirs), atol=1e-5, rtol=0)
    assert vocabulary_weights.of(ours).tied is False


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_begin_as_the_mean_of_all_rows(tied) -> None:
    """As transformers' mean_resizing, without its noise; what was there stays."""
    model, plain = (tiny_model("sdpa", tie_word_embeddings=tied) for _ in range(2))
    vocabulary_weights.add_rows(model, 515, (512, 513, 514))
    embed, head = model.get_input_embeddings().weight, model.lm_head.weight
    assert (embed is head) == tied
    assert model.config.vocab_size == 515 == model.lm_head.out_features
    for now, before in ((embed, plain.get_input_embeddings().weight), (head, plain.lm_head.weight)):
        assert torch.equal(now[:512], before)
        torch.testing.assert_close(now[512:], before.mean(0).expand(3, -1), atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits[..., :512], plain(IDS).logits, atol=1e-5, rtol=0)


def test_tokens_within_the_padding_of_an_embedding_take_its_rows() -> None:
    """512 rows, 500 tokens: two new ones need no more rows."""
    model, plain = tiny_model("sdpa"), tiny_model("sdpa").get_input_embeddings().weight
    vocabulary_weights.add_rows(model, 502, (500, 501))
    embed = model.get_input_embeddings().weight
    assert len(embed) == 512
    torch.testing.assert_close(embed[500:502], plain[:500].mean(0).expand(2, -1), atol=1e-6, rtol=1e-5)
    assert torch.equal(embed[502:], plain[502:])


@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_with_new_tokens_is_the_same_in_peft(tied, tmp_path: Path) -> None:
    """PEFT wants the base to have as many rows first, as its AutoPeftModel sees to by the tokenizer."""
    from peft import PeftModel

    model = learned(NAMES, tied, new=3)
    ids = torch.tensor([[5, 512, 7, 514, 513, 9]])
    adapters.save(tmp_path, model, "tiny", LoraConfig())
    assert adapter_config.embedding_rows(tmp_path) == 515
    base = tiny_model("sdpa", tie_word_embeddings=tied)
    base.resize_token_embeddings(515)
    theirs = PeftModel.from_pretrained(base, tmp_path)
    torch.testing.assert_close(logp(theirs, ids), logp(model, ids), atol=1e-5, rtol=0)
    ours = tiny_model("sdpa", tie_word_embeddings=tied)
    adapters.apply(ours, tmp_path)
    assert torch.equal(logp(ours, ids), logp(model, ids))
    assert ours.config.vocab_size == 515
    lora.merge(ours)
    ours.save_pretrained(tmp_path / "merged")
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logp(whole, ids), logp(model, ids), atol=2e-5, rtol=0)


def test_training_goes_on_with_what_learned(tmp_path: Path) -> None:
    model = learned(NAMES, True, new=3)
    adapters.save(tmp_path, model, "tiny", LoraConfig())
    settings = adapters.settings_of(tmp_path, LoraConfig())
    assert set(settings.modules_to_save) == set(NAMES)
    again = tiny_model("sdpa")
    adapters.apply(again, tmp_path)
    lora.detach(again)
    tuned = tune.prepare(again, "lora", settings, QuantConfig())
    adapters.go_on(again, tmp_path)
    assert torch.equal(logp(again), logp(model))
    assert "model.embed_tokens.weight" in tuned.parameters


def test_a_role_has_an_embedding_of_its_own(tmp_path: Path) -> None:
    """The reference of a run whose embedding learns is the start; an adapter's role brings its own to a bare base."""
    model = learned(NAMES, False)
    start = roles.role(model)
    before = logp(model)
    with torch.no_grad():
        for parameter in vocabulary_weights.of(model).parts():
            parameter.mul_(1.3)
    after = logp(model)
    assert not torch.allclose(after, before, atol=1e-3)
    with roles.playing(model, start):
        assert torch.equal(logp(model), before)
    assert torch.equal(logp(model), after)
    adapters.save(tmp_path, model, "tiny", LoraConfig())
    bare = tiny_model("sdpa", tie_word_embeddings=False)
    with roles.playing(bare, adapters.role(bare, tmp_path)):
        assert torch.equal(logp(bare), after)
    assert torch.equal(logp(bare), logp(tiny_model("sdpa", tie_word_embeddings=False)))


def test_weights_that_fit_no_model_are_refused(tmp_path: Path) -> None:
    adapters.save(tmp_path, learned(NAMES, False), "tiny", LoraConfig(rank=2))
    other = tiny_model("sdpa", tie_word_embeddings=False)
    adapters.apply(other, tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"modules_to_save": ["embed_tokens"]}))
    from safetensors.torch import save_file

    weights = tmp_path / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors["base_model.model.lm_head.weight"] = torch.zeros(400, 32)
    save_file(tensors, weights)
    with pytest.raises(InputError, match=sentence("embedding and head do not fit")):
        adapters.apply(other, tmp_path)


def test_what_a_second_adapter_does_not_bring_is_the_base_s(tmp_path: Path) -> None:
    """Not the first one's, which is on while the second is read; and no adapter shares a pass with a vocabulary that is on."""
    for name, part in (("first", ("lm_head",)), ("second", ("embed_tokens",))):
        (tmp_path / name).mkdir()
        adapters.save(tmp_path / name, learned(part, False), "tiny", LoraConfig(rank=2))
    bare, model = (tiny_model("sdpa", tie_word_embeddings=False) for _ in range(2))
    adapters.apply(bare, tmp_path / "second")
    adapters.apply(model, tmp_path / "first")
    first = logp(model)
    with roles.playing(model, adapters.role(model, tmp_path / "second")):
        assert torch.equal(logp(model), logp(bare))
    assert torch.equal(logp(model), first)
    with (
        pytest.raises(InputError, match=sentence("adapter with a vocabulary beside others", where="adapters")),
        mixed(model, [roles.Role({}, {})]),
    ):
        pass
    with mixed(model, []) as tokens:
        tokens.assign([0] * IDS.numel(), IDS.device)
        assert (logp(model) - first).abs().max() < 1e-5
