"""What of a model is trained: full, head, last:K, layers:GLOB, lora, qlora. Nothing else decides this."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from luthier.config.model import LoraConfig, QuantConfig
from luthier.core.errors import InputError, unknown
from luthier.model.adapt import heads, lora, vocabulary_weights
from luthier.model.adapt.base import quantize_base
from luthier.model.adapt.stacks import stacks
from luthier.model.adapt.targets import experts_of_their_own, linears, refused_by_peft
from luthier.model.layers.decoder import blocks, text_config, text_parameters

KINDS = {
    "full": "every weight",
    "head": "the vocabulary head only",
    "last:K": "the last K blocks",
    "layers:GLOB": "weights whose names match, such as layers:*.mlp.*",
    "lora": "low-rank adapters on a frozen base",
    "qlora": "low-rank adapters on a frozen 4-bit or 8-bit base",
}


@dataclass(frozen=True)
class Tuned:
    """A model made ready. `parameters` are those that learn, by name, in a fixed order."""

    model: nn.Module
    kind: str
    parameters: dict[str, nn.Parameter]

    @property
    def trainable(self) -> int:
        return sum(p.numel() for p in self.parameters.values())


def without_adapter(model: nn.Module, kind: str) -> list[str]:
    """What of a mixture of experts, or of Mamba layers, does not learn with an adapter, in words."""
    if not is_adapter(kind):
        return []
    beyond = sum(weight.numel() for weight in experts_of_their_own(model).values())
    out = ["the router that chooses among the experts stays as it is"] if stacks(model) else []
    if refused_by_peft(model, linears(model)):
        out.append(
            "'out_proj' of its Mamba layers stays as it is: PEFT takes no adapter there (--lora.targets names it all the same)"
        )
    if beyond:
        whole = " and are not quantized" if kind == "qlora" else ""
        out.append(f"{beyond:,} weights of experts get no adapter{whole}: transformers has them in a form of their own")
    return out


def is_adapter(kind: str) -> bool:
    """Whether this kind leaves the base alone and writes an adapter."""
    return kind in ("lora", "qlora")


def check_kind(kind: str) -> None:
    """Raise InputError unless `kind` is one of KINDS with a well-formed argument."""
    name, _, argument = kind.partition(":")
    if name == "last":
        if not argument.isdigit() or int(argument) < 1:
            raise InputError(f"'{kind}' needs a number of blocks", where="--tune", fix="such as last:4")
    elif name == "layers":
        if not argument:
            raise InputError(f"'{kind}' needs a pattern of names", where="--tune", fix="such as layers:*.mlp.*")
    elif kind not in KINDS:
        raise unknown("tune kind", kind, KINDS, where="--tune")


def prepare(
    model: nn.Module,
    kind: str,
    lora_config: LoraConfig,
    quant: QuantConfig,
    wanted_heads: Mapping[str, int] | None = None,
) -> Tuned:
    """Freeze `model` but for what `kind` names and the heads that are wanted (name -> width), in place. Raises InputError when
    nothing would learn."""
    wanted_heads = wanted_heads or {}
    check_kind(kind)
    model.requires_grad_(False)
    name, _, argument = kind.partition(":")
    if name == "full":
        for parameter in text_parameters(model):
            parameter.requires_grad_(True)
    elif name == "head":
        _untie_head(model).requires_grad_(True)
    elif name == "last":
        every = blocks(model)
        if int(argument) > len(every):
            raise InputError(f"the model has {len(every)} blocks, not {argument}", where="--tune")
        for block in every[-int(argument) :]:
            block.requires_grad_(True)
    elif name == "layers":
        _open_matching(model, argument)
    else:
        if name == "qlora":
            quantize_base(model, quant)
        lora.attach(model, lora_config)
        vocabulary_weights.learn(model, lora_config.modules_to_save)
    heads.detach(model, set(heads.NAMES) - set(wanted_heads))
    heads.attach(model, wanted_heads)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert parameters, "every kind opens something"
    return Tuned(model, kind, parameters)


def _untie_head(model: nn.Module) -> nn.Module:
    """Give the head a weight of its own, so that learning it leaves the embedding alone."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    if head.weight is model.get_input_embeddings().weight:  # type: ignore[operator]
        head.weight = nn.Parameter(head.weight.detach().clone())
        for config in (model.config, text_config(model)):
            config.tie_word_embeddings = False  # type: ignore[union-attr]
    return head


def _open_matching(model: nn.Module, pattern: str) -> None:
    found, text = False, set(map(id, text_parameters(model)))
    for name, parameter in model.named_parameters():
        if id(parameter) not in text:
            continue
        if fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, f"{pattern}.*"):
            parameter.requires_grad_(True)
            found = True
    if not found:
        first = next(blocks(model)[0].parameters())
        example = next(name for name, parameter in model.named_parameters() if parameter is first)
        raise InputError(f"no weight matches '{pattern}'", where="--tune", fix=f"names look like {example}")


def peak_rate(kind: str, hidden: int) -> float:
    """A learning rate to start from: 5e-5 (2000 / hidden)^0.78 for full weights, ten times that for adapters.

    The rule is of Thinking Machines' "LoRA Without Regret" (2025), fitted there on models far wider than
    those a laptop tunes; `--train.lr` overrides it.
    """
    full = 5e-5 * (2000 / hidden) ** 0.781
    return float(f"{full * (10 if is_adapter(kind) else 1):.1e}")
