"""How PEFT writes adapters on the stacked weights of experts, what older adapters say of single experts, and every layer's scale.

    target_parameters   ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    tensors             experts.base_layer.lora_A.weight [E r, in]    of the stack that is declared first: the wrappers nest
                        experts.lora_A.weight            [E r, in]    of the last one
                        experts....lora_B.weight         [out, r E]   experts inside, where A has them outside
    rank_pattern        {"experts.gate_up_proj": 4}   as alpha_pattern: for names that end so, in place of r and lora_alpha

Adapters of transformers 4 have one of each expert's own layers (experts.3.gate_proj, experts.3.w1). These become the stack's:
gate and up lie one above the other there, so A is both of theirs, and B has each in its own half.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from luthier.core.errors import InputError
from luthier.core.foreign.patterns import compiled
from luthier.model.adapt.adapter_config import CONFIG
from luthier.model.adapt.stacks import stacks
from luthier.model.layers.experts import STACKS

# Of a model with experts PEFT 0.21 takes every target that ends so for the experts', though it is a shared or dense MLP's (peft#3711,
# peft#3715). As `target_parameters` it takes them for what they are.
REWRITTEN = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3", "gate")
Parts = dict[str, torch.Tensor]
A, B = "lora_A.weight", "lora_B.weight"
WRAPPED = ".base_layer"
AGAIN = "copy it again"
SECONDS = 1.0  # that a pattern may take on the name of a layer
_SINGLE = re.compile(r"(.+\.experts)\.(\d{1,5})\.(gate_proj|up_proj|down_proj|w1|w2|w3)")
_PLACES = {"gate_proj": (STACKS[0], 0), "w1": (STACKS[0], 0), "up_proj": (STACKS[0], 1), "w3": (STACKS[0], 1),
           "down_proj": (STACKS[2], 0), "w2": (STACKS[2], 0)}  # fmt: skip


def only_by_parameter(model: Any, names: Iterable[str]) -> list[str]:
    """Of the linear layers `names` those that PEFT adapts as they are only where `target_parameters` names their weights."""
    return [name for name in names if name.rpartition(".")[2] in REWRITTEN] if stacks(model) else []


def resolved(
    layers: Mapping[str, Parts], settings: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Parts], dict[str, float]]:
    """The layers of an adapter by the names of what they adapt, those of experts as A [E, r, in] and B [E, out, r], and their scales.

    Raises InputError for a target that is no stack of experts, and for tensors that do not fit the ranks that are said.
    """
    out, scales = dict[str, Parts](), dict[str, float]()
    for raw, parts in layers.items():
        name = _target(raw, settings.get("target_parameters") or (), folder)
        rank = _said(settings, "rank_pattern", "r", name, folder)
        if name != raw:
            parts = _stacked(parts, rank, name, folder)
        alpha = _said(settings, "alpha_pattern", "lora_alpha", name, folder)
        used = parts[A].shape[-2]
        scale = alpha / (math.sqrt(used) if settings.get("use_rslora") else used)
        out[name], scales[name] = parts, scale
    return _fused(out, scales, folder)


def _target(raw: str, parameters: Iterable[str], folder: Path) -> str:
    """What the tensors called `raw` adapt: a layer of that name, or the stack of a module of experts."""
    module = raw.replace(WRAPPED, "")
    leaves = {
        leaf for path, _, leaf in (name.rpartition(".") for name in parameters) if f".{module}".endswith(f".{path}")
    }
    if not leaves or leaves == {"weight"}:
        return module if leaves else raw
    if strange := sorted(leaves - set(STACKS)):
        raise InputError(
            f"the adapter changes '{module}.{strange[0]}', which Luthier does not adapt", where=folder / CONFIG,
            fix="merge it with PEFT",
        )  # fmt: skip
    nested = [leaf for leaf in reversed(STACKS) if leaf in leaves]  # from the outermost wrapper in
    depth = raw.count(WRAPPED)
    if depth >= len(nested):
        raise InputError(f"'{raw}' belongs to no parameter that target_parameters names", where=folder, fix=AGAIN)
    return f"{module}.{nested[depth]}"


def _said(settings: Mapping[str, Any], patterns: str, usual: str, name: str, folder: Path) -> float:
    """The rank or alpha of a layer: the first pattern that its name ends with, else the usual one."""
    for pattern, value in (settings.get(patterns) or {}).items():
        try:
            if compiled(rf"(.*\.)?({pattern})$", folder / CONFIG).match(name, timeout=SECONDS):
                return float(value)
        except TimeoutError:
            what = f"the pattern '{pattern}' of {patterns} takes longer than {SECONDS:g} s on '{name}'"
            raise InputError(what, where=folder / CONFIG, fix="write it without nested repetitions") from None
    return float(settings.get(usual) or 0)


def _stacked(parts: Parts, rank: float, name: str, folder: Path) -> Parts:
    """A [E r, in] and B [out, r E] -> A [E, r, in] and B [E, out, r]."""
    a, b = parts[A], parts[B]
    if len(parts) > 2 or rank < 1 or rank != int(rank) or len(a) % int(rank):
        what = "magnitudes" if len(parts) > 2 else f"{len(a)} rows, and the rank is said to be {rank:g}"
        raise InputError(f"the adapter of the experts '{name}' has {what}", where=folder, fix=AGAIN)
    count = len(a) // int(rank)
    return {A: a.view(count, int(rank), -1), B: b.view(len(b), int(rank), count).permute(2, 0, 1).contiguous()}


def _fused(
    layers: dict[str, Parts], scales: dict[str, float], folder: Path
) -> tuple[dict[str, Parts], dict[str, float]]:
    """Adapters of single experts as one of their stack each; the others as they are."""
    out, at = dict[str, Parts](), dict[str, float]()
    groups: dict[str, dict[tuple[int, int], tuple[Parts, float]]] = {}
    for name, parts in layers.items():
        if found := _SINGLE.fullmatch(name):
            stack, half = _PLACES[found[3]]
            module = found[1].replace(".block_sparse_moe.", ".mlp.")
            groups.setdefault(f"{module}.{stack}", {})[int(found[2]), half] = parts, scales[name]
        else:
            out[name], at[name] = parts, scales[name]
    for name, members in groups.items():
        if len({(part[A].shape, part[B].shape, len(part), scale) for part, scale in members.values()}) > 1:
            what = f"the adapters of the experts '{name}' have several ranks, shapes or scales"
            raise InputError(what, where=folder, fix="merge it with PEFT")
        out[name], at[name] = (
            _one_stack(name, {place: part for place, (part, _) in members.items()}),
            next(iter(members.values()))[1],
        )
    return out, at


def _one_stack(name: str, members: Mapping[tuple[int, int], Parts]) -> Parts:
    """Adapters by expert and half of the stack -> A [E, n r, in] and B [E, n out, n r], zero where there is none."""
    some = next(iter(members.values()))
    halves = 2 if name.endswith(STACKS[0]) else 1
    count = 1 + max(expert for expert, _ in members)
    (rank, inside), outside = some[A].shape, len(some[B])
    a, b = some[A].new_zeros(count, halves * rank, inside), some[B].new_zeros(count, halves * outside, halves * rank)
    for (expert, half), parts in members.items():
        ranks = slice(half * rank, (half + 1) * rank)
        a[expert, ranks] = parts[A]
        b[expert, half * outside : (half + 1) * outside, ranks] = parts[B]
    return {A: a, B: b}


def key(name: str, adapted: Iterable[str]) -> str:
    """What PEFT calls the stack `name` in the file, among all that are `adapted`."""
    module, _, leaf = name.rpartition(".")
    beside = {other.rpartition(".")[2] for other in adapted if other.rpartition(".")[0] == module}
    outside = [stack for stack in STACKS[STACKS.index(leaf) + 1 :] if stack in beside]
    return module + WRAPPED * len(outside)
