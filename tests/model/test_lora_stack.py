"""Adapters on experts against PEFT's `target_parameters`: values, gradients, files, and files of transformers 4."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.errors import InputError
from luthier.model.adapt import adapters, base, lora, peft, roles, targets, tune
from luthier.model.adapt.lora_stack import LoraStack
from luthier.model.adapt.mixed import mixed
from mixtures import FAMILIES, mixture
from sentences import sentence

IDS = torch.randint(3, 64, (2, 15), generator=torch.Generator().manual_seed(1))
pytestmark = pytest.mark.filterwarnings("ignore:.*rank_pattern|.*alpha_pattern|.*is_gradient_checkpointing")


def adapted(family: str = "qwen3_moe", config: LoraConfig | None = None, **changes):
    """A mixture with adapters that have learned something."""
    model = mixture(family, **changes).requires_grad_(False)
    torch.manual_seed(1)
    for adapter in lora.attach(model, config or LoraConfig(rank=4, alpha=8)).values():
        torch.nn.init.normal_(adapter.B, std=0.1)
    return model


def logp(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits.log_softmax(-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_reads_what_is_written_and_gives_the_same(family, tmp_path: Path) -> None:
    """Attention, dense and shared MLPs and experts. PEFT 0.21 takes a target `gate_proj` of such a model, dotted or not, for the
    experts' (peft#3711), so the file names it otherwise."""
    from peft import PeftModel

    model = adapted(family)
    adapters.save(tmp_path, model, "tiny", LoraConfig(dropout=0.1))
    theirs = PeftModel.from_pretrained(mixture(family), tmp_path)
    torch.testing.assert_close(logp(theirs), logp(model), atol=1e-5, rtol=0)
    assert float((logp(model) - logp(mixture(family))).abs().max()) > 0.5
    again = mixture(family)
    assert adapters.apply(again, tmp_path) == len(list(lora.adapters(model)))
    assert torch.equal(logp(again), logp(model))


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
def test_gradients_equal_those_of_peft(family) -> None:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    names = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    config = PeftConfig(r=4, lora_alpha=8, target_modules=[], target_parameters=names)
    theirs = get_peft_model(mixture(family, torch.float64), config).double()
    ours = adapted(family, LoraConfig(rank=4, expert_rank=4, alpha=8, targets=tuple(names)), dtype=torch.float64)
    for model in (ours, theirs):
        wrappers = dict(theirs.named_modules())
        if model is theirs:
            for name, adapter in lora.adapters(ours):
                for kind, tensor in adapter.export().items():
                    _wrapped(wrappers, name, kind).copy_(tensor)
        model(IDS).logits.log_softmax(-1)[..., 7].sum().backward()
    for name, adapter in lora.adapters(ours):
        grads = LoraStack.export(_of_gradients(adapter))
        for kind, found in grads.items():
            torch.testing.assert_close(found, _wrapped(wrappers, name, kind, True), rtol=1e-6, atol=1e-9)


def _wrapped(modules, name: str, kind: str, grad: bool = False) -> torch.Tensor:
    """A tensor of PEFT's nested wrappers, of which that of down_proj is the outer one."""
    module, _, leaf = name.rpartition(".")
    inner = ".base_layer" if leaf == "gate_up_proj" else ""
    layer = modules[f"base_model.model.{module}{inner}.{kind.split('.')[0]}"]["default"]
    return layer.weight.grad if grad else layer.weight.data


def _of_gradients(adapter: LoraStack) -> LoraStack:
    """An adapter whose A and B are the gradients of another's."""
    out = LoraStack.__new__(LoraStack)
    torch.nn.Module.__init__(out)
    out.A, out.B = torch.nn.Parameter(adapter.A.grad), torch.nn.Parameter(adapter.B.grad)
    out.start = None
    return out


@pytest.mark.parametrize("quant", [None, "nf4"])
@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
def test_merging_keeps_the_model(family, quant) -> None:
    model = mixture(family).requires_grad_(False)
    if quant:
        base.quantize_base(model, QuantConfig(kind=quant, block=16))
    for adapter in lora.attach(model, LoraConfig(rank=4)).values():
        torch.nn.init.normal_(adapter.B, std=0.1)
    wanted = logp(model)
    lora.merge(model)
    assert not list(lora.adapters(model))
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in mixture(family).named_parameters()}
    torch.testing.assert_close(logp(model), wanted, atol=3e-5, rtol=0)


def test_adapters_come_off_and_the_model_is_as_it_was() -> None:
    model = adapted()
    lora.detach(model)
    assert torch.equal(logp(model), logp(mixture()))


def test_the_rank_is_shared_among_the_experts_of_a_token(tmp_path: Path) -> None:
    """Two of four experts: each has half the rank, at the scale of all; PEFT is told by patterns. The router stays as it is."""
    model = adapted(config=LoraConfig(rank=8, alpha=16))
    ranks = {name.rpartition(".")[2]: (adapter.rank, adapter.scale) for name, adapter in lora.adapters(model)}
    assert ranks["q_proj"] == (8, 2.0)
    assert ranks["gate_up_proj"] == ranks["down_proj"] == (4, 2.0)
    assert not any(
        "mlp.gate" in name and "gate_up" not in name for name, p in model.named_parameters() if p.requires_grad
    )
    adapters.save(tmp_path, model, "tiny", LoraConfig())
    said = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (said["r"], said["lora_alpha"]) == (8, 16)
    assert set(said["target_parameters"]) == {"experts.gate_up_proj", "experts.down_proj"}
    assert set(said["rank_pattern"].values()) == {4}
    assert set(said["alpha_pattern"].values()) == {8.0}
    settings = adapters.settings_of(tmp_path, LoraConfig(dropout=0.1))
    assert (settings.rank, settings.expert_rank, settings.alpha, settings.dropout) == (8, 4, 16, 0.1)
    again = mixture().requires_grad_(False)
    lora.attach(again, settings)
    adapters.go_on(again, tmp_path)
    assert torch.equal(logp(again.eval()), logp(model))


def test_pissa_starts_where_the_model_is_and_is_written_for_the_unchanged_base(tmp_path: Path) -> None:
    model = mixture().requires_grad_(False)
    lora.attach(model, LoraConfig(rank=4, init="pissa"))
    torch.testing.assert_close(logp(model), logp(mixture()), atol=1e-4, rtol=0)
    changed = model.model.layers[0].mlp.experts.down_proj.base.weight.detach()
    assert float((changed - mixture().model.layers[0].mlp.experts.down_proj.detach()).abs().max()) > 0.1
    for _, adapter in lora.adapters(model):
        adapter.B.data.mul_(1.2)
    adapters.save(tmp_path, model, "tiny", LoraConfig())
    again = mixture()
    adapters.apply(again, tmp_path)
    torch.testing.assert_close(logp(again), logp(model), atol=1e-4, rtol=0)


def test_a_role_plays_on_experts_too(tmp_path: Path) -> None:
    """On a base without an adapter of its own, and on one that has one."""
    model = adapted()
    adapters.save(tmp_path, model, "tiny", LoraConfig())
    bare = mixture()
    part = adapters.role(bare, tmp_path)
    with roles.playing(bare, part):
        assert torch.equal(logp(bare), logp(model))
    assert torch.equal(logp(bare), logp(mixture()))
    other = roles.role(model, learn=True)
    for parameter in other.parameters_by_name.values():
        parameter.data.mul_(2)
    before = logp(model)
    with roles.playing(model, other):
        assert not torch.allclose(logp(model), before, atol=1e-3)
    assert torch.equal(logp(model), before)


def test_dora_on_experts_is_refused_and_fits_other_layers() -> None:
    with pytest.raises(InputError, match=sentence("DoRA on experts")):
        lora.attach(mixture(), LoraConfig(dora=True))
    assert lora.attach(mixture(), LoraConfig(dora=True, targets=("q_proj",)))


def test_all_linear_leaves_routers_alone() -> None:
    """A router of its own kind (Qwen3-MoE, a parameter) cannot take an adapter; one that is a linear layer takes it by name."""
    model = mixture()
    assert not any(name.endswith(".mlp.gate") for name in targets.chosen(model, ("all-linear",)))
    for layer in model.model.layers:
        layer.mlp.gate = torch.nn.Linear(32, 4, bias=False)
    assert not any(name.endswith(".mlp.gate") for name in targets.chosen(model, ("all-linear",)))
    assert len(targets.chosen(model, ("mlp.gate",))) == 2


def single_experts(folder: Path, model, *, names: dict[str, str], drop: tuple[str, ...] = ()) -> None:
    """Write adapters of each expert's own layers, as of transformers 4, that mean what those of `model` mean: `model` has of gate and
    up one A each, in the halves of the rank."""
    tensors = {}
    for name, adapter in lora.adapters(model):
        module, _, leaf = name.rpartition(".")
        for expert in range(4):
            a, b = adapter.A[expert].detach(), adapter.B[expert].detach()
            if leaf == "down_proj":
                parts = {"down": (a, b)}
            else:
                half, out = len(a) // 2, len(b) // 2
                parts = {"gate": (a[:half], b[:out, :half]), "up": (a[half:], b[out:, half:])}
            for part, (one, other) in parts.items():
                key = f"base_model.model.{module.replace('mlp', names['mlp'])}.{expert}.{names[part]}"
                if not any(word in key for word in drop):
                    tensors[f"{key}.lora_A.weight"] = one.contiguous()
                    tensors[f"{key}.lora_B.weight"] = other.contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": [names[k] for k in ("gate", "up", "down")],
    }
    (folder / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM"}))


def halves(family: str):
    """A mixture whose adapters on gate and up are of separate halves of the rank, as those of single layers are."""
    stacked = LoraConfig(rank=4, expert_rank=4, alpha=8, targets=("gate_up_proj",))
    model = adapted(family, stacked)
    for _, adapter in list(lora.adapters(model)):
        out = adapter.B.shape[1] // 2
        adapter.B.data[:, :out, 2:] = 0
        adapter.B.data[:, out:, :2] = 0
    torch.manual_seed(2)
    for adapter in lora.attach(
        model, LoraConfig(rank=2, expert_rank=2, alpha=4, targets=("experts.down_proj",))
    ).values():
        torch.nn.init.normal_(adapter.B, std=0.1)
    return model


QWEN = {"mlp": "mlp", "gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
MIXTRAL = {"mlp": "block_sparse_moe", "gate": "w1", "up": "w3", "down": "w2"}


@pytest.mark.parametrize(("family", "names"), [("qwen3_moe", QWEN), ("mixtral", MIXTRAL)])
def test_adapters_of_single_experts_become_the_stacks(family, names, tmp_path: Path) -> None:
    """As transformers 4 and PEFT of its time wrote them; PEFT of today gives the same."""
    from peft import PeftModel

    model = halves(family)
    single_experts(tmp_path, model, names=names)
    ours, theirs = mixture(family), PeftModel.from_pretrained(mixture(family), tmp_path)
    assert adapters.apply(ours, tmp_path) == 4
    torch.testing.assert_close(logp(ours), logp(model), atol=1e-5, rtol=0)
    torch.testing.assert_close(logp(theirs), logp(ours), atol=1e-5, rtol=0)


def test_experts_without_an_adapter_of_their_own_stay_as_they_are(tmp_path: Path) -> None:
    model = halves("qwen3_moe")
    single_experts(tmp_path, model, names=QWEN, drop=("experts.1.", "up_proj"))
    read = peft.read(tmp_path).layers["model.layers.0.mlp.experts.gate_up_proj"]
    assert float(read["lora_B.weight"][1].abs().max()) == 0
    assert float(read["lora_B.weight"][0, :24].abs().max()) > 0
    assert float(read["lora_B.weight"][:, 24:].abs().max()) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank_pattern": {}}, "the rank is said to be"),
        ({"target_parameters": ["mlp.experts.down_proj"]}, "belongs to no parameter that target_parameters names"),
        (
            {"target_parameters": ["mlp.experts.router_bias"]},
            "'model.layers.0.mlp.experts.router_bias', which Luthier does not adapt",
        ),
        ({"target_parameters": "all"}, 'target_parameters is "all"'),
        ({"alpha_pattern": {"experts.down_proj": "much"}}, "alpha_pattern is"),
        ({"rank_pattern": {"(": 3}}, "not a regular expression"),
    ],
    ids=str,
)
def test_files_that_contradict_themselves_are_refused(changes, words, tmp_path: Path) -> None:
    adapters.save(tmp_path, adapted(config=LoraConfig(rank=5, expert_rank=3)), "tiny", LoraConfig())
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=re.escape(words)):
        peft.read(tmp_path)


def test_an_adapter_of_more_experts_is_refused(tmp_path: Path) -> None:
    adapters.save(tmp_path, adapted(), "tiny", LoraConfig())
    with pytest.raises(InputError, match=sentence("adapter of another shape")):
        adapters.apply(mixture(num_experts=8, num_local_experts=8), tmp_path)


def test_what_is_written_is_what_peft_writes(tmp_path: Path) -> None:
    """The same names and shapes of tensors as PEFT's own file."""
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    names = ["experts.gate_up_proj", "experts.down_proj"]
    theirs = get_peft_model(
        mixture(), PeftConfig(r=4, target_modules=["q_proj"], target_parameters=names, task_type="CAUSAL_LM")
    )
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    config = LoraConfig(rank=4, expert_rank=4, targets=("q_proj", *names))
    adapters.save(tmp_path / "ours", adapted(config=config), "tiny", config)
    found = [load_file(tmp_path / whose / "adapter_model.safetensors") for whose in ("ours", "theirs")]
    shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in found]
    assert shapes[0] == shapes[1]


def test_each_request_goes_through_the_adapter_of_its_own(tmp_path: Path) -> None:
    """Two adapters of other ranks, and none, in one pass: what each gives alone."""
    models = [mixture(), adapted(config=LoraConfig(rank=4)), adapted(config=LoraConfig(rank=6, expert_rank=1, alpha=9))]
    sets = []
    for number, model in enumerate(models[1:]):
        (tmp_path / str(number)).mkdir()
        adapters.save(tmp_path / str(number), model, "tiny", LoraConfig())
        sets.append(adapters.role(models[0], tmp_path / str(number)))
    wanted = [logp(model)[0] for model in models]
    with mixed(models[0], sets) as tokens:
        tokens.assign([0] * 15 + [1] * 15 + [2] * 15, torch.device("cpu"))
        with torch.no_grad():
            found = models[0](IDS[:1].expand(3, -1)).logits.log_softmax(-1)
    torch.testing.assert_close(found, torch.stack(wanted), atol=2e-5, rtol=0)
    assert torch.equal(logp(models[0])[0], wanted[0])


def test_what_does_not_learn_is_said() -> None:
    from transformers import JetMoeConfig, JetMoeForCausalLM

    assert tune.without_adapter(mixture(), "lora") == ["the router that chooses among the experts stays as it is"]
    assert tune.without_adapter(mixture(), "full") == []
    strange = JetMoeForCausalLM(JetMoeConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, intermediate_size=48, kv_channels=8,
                                             num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2))  # fmt: skip
    (words,) = tune.without_adapter(strange, "qlora")
    assert words.startswith(f"{4 * (32 * 96 + 48 * 32) + 4 * 2 * 32 * 16:,} weights of experts get no adapter")


@pytest.mark.parametrize("family", ["glm4_moe", "deepseek_v3"])
def test_dora_on_dense_and_shared_mlps_is_told_to_be_beyond_peft(family, tmp_path: Path, capsys) -> None:
    """PEFT takes these layers for what they are only as parameters, of which it learns no magnitudes. Luthier reads what it wrote, and
    merges it."""
    from peft import PeftModel

    config = LoraConfig(rank=4, dora=True, targets=("*.layers.0.mlp.*_proj", "*.shared_experts.*_proj"))
    model = adapted(family, config)
    for adapter in lora.adapters(model):
        torch.nn.init.uniform_(adapter[1].magnitude, 0.5, 2.0)
    adapters.save(tmp_path, model, "tiny", config)
    assert "PEFT loads no DoRA on 'gate_proj'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="use_dora"):
        PeftModel.from_pretrained(mixture(family), tmp_path)
    again = mixture(family)
    assert adapters.apply(again, tmp_path) == len(list(lora.adapters(model))) == 6
    assert torch.equal(logp(again), logp(model))
    assert float((logp(model) - logp(mixture(family))).abs().max()) > 0.1
    wanted = logp(model)
    lora.merge(model)
    torch.testing.assert_close(logp(model), wanted, atol=3e-5, rtol=0)
