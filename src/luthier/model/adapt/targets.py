"""What of a model takes adapters, its linear layers and experts, and which of them names, globs and patterns mean."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from torch import nn

from luthier.core.errors import InputError, nearest
from luthier.core.foreign.patterns import compiled
from luthier.model.adapt.linear_layers import is_linear
from luthier.model.adapt.quantize import QuantLinear
from luthier.model.adapt.read_past import read_past
from luthier.model.adapt.stacks import held, stacks
from luthier.model.layers.decoder import text_config, text_modules
from luthier.model.layers.experts import is_experts

PATTERN_SECONDS = 1.0  # that a pattern may take on the name of a layer


PASSING = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")  # of which PEFT takes no `out_proj`
ROUTERS = ("gate", "router")  # of experts, where they are linear layers


def linears(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer of the decoder, quantized or not: name -> module."""
    return {
        name: module for name, module in text_modules(model) if isinstance(module, QuantLinear) or is_linear(module)
    }


def everything(model: nn.Module) -> list[str]:
    """The names of all layers that can take an adapter, in the order of the model: linear layers and stacks of experts."""
    flat, out = linears(model), []
    for name, module in text_modules(model):
        out += [name] if name in flat else [f"{name}.{stack}" for stack in held(module)]
    return out


def routers(model: nn.Module) -> list[str]:
    """The linear layers that choose among experts. They stay as they are unless they are named."""
    blocks = {name.rsplit(".", 2)[0] for name in stacks(model)}
    return [name for name in linears(model) if name.rpartition(".")[0] in blocks and name.rpartition(".")[2] in ROUTERS]


def experts_of_their_own(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of experts that transformers has in a form of their own, as of Llama 4 and JetMoE, by name: no adapter stands on
    them, and they are not quantized."""
    return {
        f"{name}.{part}": weight
        for name, module in model.named_modules()
        if "Expert" in type(module).__name__ and not is_experts(module)
        for part, weight in module.named_parameters(recurse=False)
    }


def refused_by_peft(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Of the layers `names` those for which PEFT takes no adapter: the last one of Mamba layers, whose weight fused kernels read past
    it. They stay as they are unless they are named, so that what is written loads."""
    found = [name for name in names if name.rpartition(".")[2] == "out_proj"]
    return found if found and text_config(model).model_type in PASSING else []


def chosen(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """The layers that `targets` name: 'all-linear' for all but the routers of experts, what PEFT refuses and what the model reads
    past, a name such as q_proj or self_attn.q_proj, a glob over full names, or what is none of these as a regular expression over
    full names, as PEFT takes it.

    Raises InputError when a target matches nothing, or names the head while it shares its weight with the embedding.
    """
    candidates = everything(model)
    if not candidates:
        raise InputError(
            "this model has no linear layer that takes an adapter", where="--tune lora",
            fix="use --tune full, head, last:K or layers:GLOB",
        )  # fmt: skip
    passed, out = read_past(model, linears(model)), set[str]()
    for target in targets:
        if target == "all-linear":
            out |= set(candidates) - {*routers(model), *refused_by_peft(model, candidates), *passed}
            continue
        found = [n for n in candidates if _named(target, n)]
        found = found or [n for n in candidates if _fits(target, n)]
        found = [name for name in found if name not in passed] or found
        if set(found) & passed:
            what = f"the model reads the weight of '{target}' past whatever takes its place, so it takes no adapter"
            raise InputError(
                what, where="--lora.targets", fix="leave it out, or learn it whole with --tune layers:GLOB"
            )
        if not found:
            raise _no_target(target, candidates, experts_of_their_own(model))
        out |= set(found)
    return [name for name in candidates if name in out]


def _named(target: str, name: str) -> bool:
    return f".{name}".endswith(f".{target}") or fnmatch.fnmatch(name, target)


def _fits(pattern: str, name: str) -> bool:
    try:
        return compiled(pattern, "--lora.targets").fullmatch(name, timeout=PATTERN_SECONDS) is not None
    except TimeoutError:
        what = f"the pattern '{pattern}' takes longer than {PATTERN_SECONDS:g} s on '{name}'"
        raise InputError(what, where="--lora.targets", fix="write it without nested repetitions") from None
    except InputError:
        return False


def _no_target(target: str, candidates: Sequence[str], beyond: Iterable[str]) -> InputError:
    if any(_named(target, name) for name in beyond):
        return InputError(
            f"'{target}' are experts that transformers has in a form of their own, which takes no adapter", where="--lora.targets",
            fix="name other layers, or learn their weights with --tune 'layers:*.experts.*'",
        )  # fmt: skip
    if target in ("lm_head", "embed_tokens"):
        return InputError(
            f"'{target}' cannot take an adapter", where="--lora.targets",
            fix="adapters go on linear layers of the blocks; to learn the head use --tune head",
        )  # fmt: skip
    known = sorted({name.rsplit(".", 1)[-1] for name in candidates})
    if set(parts := target.replace(",", " ").split()) <= set(known) and len(parts) > 1:
        return InputError(
            f"no linear layer matches '{target}'", where="--lora.targets",
            fix="give each name separately: " + " ".join(f"--lora.targets {part}" for part in parts),
        )  # fmt: skip
    guess = nearest(target, known)
    return InputError(
        f"no linear layer matches '{target}'", where="--lora.targets",
        fix=f"did you mean '{guess}'?" if guess else f"known: {', '.join(known)}",
    )  # fmt: skip
