"""Adapters on disk in PEFT's format: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from luthier.config.model import LoraConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.storage.files import write_json
from luthier.model.adapt import heads, lora, peft, peft_experts, roles, targets, vocabulary_weights
from luthier.model.adapt.adapter_config import CONFIG, PREFIX, WEIGHTS
from luthier.model.adapt.linear_layers import is_linear, weight_of
from luthier.model.adapt.lora_layer import Adapter
from luthier.model.adapt.lora_stack import LoraStack
from luthier.model.adapt.peft import PeftAdapter
from luthier.model.adapt.quantize import QuantLinear
from luthier.model.adapt.read_past import read_past
from luthier.model.adapt.stacks import StackModule
from luthier.model.adapt.vocabulary_weights import Vocabulary

SAME_MODEL = "load it on the model it was tuned from"


def save(out: Path, model: Any, base: str, config: LoraConfig) -> None:
    """Write the adapters of `model`, whose base is at `base` (a folder or a hub name), so that PEFT reads them and finds it.

    The scale is written as alpha / rank whatever the variant, so no reader needs to know of rsLoRA, and a
    PiSSA adapter is written as the difference to its start, on the unchanged base. A score or value head is
    written whole, as PEFT writes `modules_to_save`.
    """
    found = dict(lora.adapters(model))
    stacked = [name for name, adapter in found.items() if isinstance(adapter, LoraStack)]
    tensors: dict[str, torch.Tensor] = {}
    for name, adapter in found.items():
        file_name = peft_experts.key(name, stacked) if name in stacked else name
        for key, tensor in adapter.export().items():
            tensors[f"{PREFIX}{file_name}.{key}"] = tensor.cpu().contiguous()
    whole = {name: head.weight for name, head in heads.on(model).items()} | vocabulary_weights.brought(model)
    tied = len(whole) > 1 and (own := vocabulary_weights.own(model)) is not None and own.tied
    saved = [name.rpartition(".")[2] for name in whole if not tied or name != vocabulary_weights.names(model)[1]]
    tensors |= {f"{PREFIX}{name}.weight": weight.detach().cpu().clone() for name, weight in whole.items()}
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    write_json(
        out / CONFIG,
        {
            "peft_type": "LORA", "task_type": "SEQ_CLS" if "score" in whole else "CAUSAL_LM", "base_model_name_or_path": base,
            "bias": "none", "lora_dropout": config.dropout, "use_rslora": False,
            "use_dora": any(adapter.magnitude is not None for adapter in found.values()),
            "fan_in_fan_out": any(getattr(adapter, "transposed", False) for adapter in found.values()),
            "modules_to_save": saved or None, "ensure_weight_tying": tied, "init_lora_weights": True, "inference_mode": True,
        }
        | _places(model, found, stacked, config),
    )  # fmt: skip


def _places(model: Any, found: Mapping[str, Adapter], stacked: Sequence[str], config: LoraConfig) -> dict[str, Any]:
    """Of which layers PEFT makes adapters, of what rank and alpha. Not as `config` says: training may go on with an adapter that
    was made elsewhere."""
    everything = targets.everything(model)
    flat = [name for name in found if name not in stacked]
    moved = peft_experts.only_by_parameter(model, flat)
    dora = [name for name in moved if found[name].magnitude is not None]  # of parameters PEFT learns no magnitudes
    if beyond := [*dora, *targets.refused_by_peft(model, flat)]:
        log.warn_once(
            f"PEFT loads no {'DoRA' if dora else 'adapter'} on '{beyond[0].rpartition('.')[2]}' of a model of this type. Luthier does, "
            "and `luthier merge` writes a plain model for other programs"
        )
    moved = [name for name in moved if name not in dora]
    usual = found[(flat or stacked)[-1]] if found else None
    rank, scale = (usual.rank, usual.scale) if usual else (config.rank, config.alpha / config.rank)
    out: dict[str, Any] = {"r": rank, "lora_alpha": scale * rank}
    out["target_modules"] = _short([name for name in flat if name not in moved], everything)
    if parameters := [*_short(stacked, everything), *(f"{name}.weight" for name in _short(moved, everything))]:
        out |= {
            "target_parameters": parameters,
            "lora_dropout": 0.0,
        }  # PEFT knows no dropout there; it is of training alone
    if stacked and found[stacked[-1]].rank != rank:
        other, names = found[stacked[-1]].rank, [re.escape(name) for name in _short(stacked, everything)]
        out |= {"rank_pattern": dict.fromkeys(names, other), "alpha_pattern": dict.fromkeys(names, scale * other)}
    return out


def _short(names: Sequence[str], everything: Sequence[str]) -> list[str]:
    """The last two parts of the names, or as many more as are needed to mean these layers alone."""
    others = [name for name in everything if name not in set(names)]
    deepest = max((name.count(".") + 1 for name in names), default=0)
    for count in range(2, deepest):
        ends = sorted({".".join(name.split(".")[-count:]) for name in names})
        if not any(f".{name}".endswith(f".{end}") for name in others for end in ends):
            return ends
    return list(names)


def apply(model: Any, folder: Path) -> int:
    """Put the adapter in `folder` on `model`, frozen, with its heads, in place of any; return how many layers got one.

    Raises InputError as `peft.read` does, and when a tensor belongs to no layer of the model: nothing is ever applied in part.
    """
    adapter = peft.read(folder)
    take_off(model)
    layers = {name: lora.base_of(model, name) for name in targets.everything(model)}
    _check_fit(model, adapter, layers)
    for name, parts in adapter.layers.items():
        a, b, magnitude = (parts.get(kind) for kind in peft.KINDS)
        assert a is not None and b is not None, "read() asks for both"
        lora.put(model, name, layers[name], adapter.config(name), a, b, magnitude)
    for name, weight in adapter.heads.items():
        heads.put(model, name, weight)
    if brought := _vocabulary(model, adapter, vocabulary_weights.of(model)):
        vocabulary_weights.bring(model, brought)
    return len(adapter.layers)


def take_off(model: Any) -> None:
    """Take adapters off again, and an embedding or head that came with them."""
    lora.detach(model)
    vocabulary_weights.restore(model)


def _vocabulary(model: Any, adapter: PeftAdapter, now: Vocabulary) -> Vocabulary | None:
    """The embedding and head that an adapter brings for `model`, frozen; what it does not bring is the model's. Tied weights of the
    model stay tied where the adapter says so, or brings the same for both.

    Raises InputError for a module that is neither, and for weights of another width or of different numbers of rows.
    """
    if not adapter.whole:
        return None
    places = vocabulary_weights.names(model)
    if strange := sorted(set(adapter.whole) - set(places)):
        raise InputError(
            f"the adapter brings its own '{strange[0]}', which Luthier does not read", where=adapter.folder
        )
    embed, head = (adapter.whole.get(name) for name in places)
    alike = embed is not None and (head is None or torch.equal(embed, head))
    tied = now.tied and alike and (head is not None or bool(adapter.settings.get("ensure_weight_tying")))

    def frozen(weight: torch.Tensor | None, own: torch.nn.Parameter) -> torch.nn.Parameter:
        return own if weight is None else torch.nn.Parameter(weight.to(own.device, own.dtype), requires_grad=False)

    first = frozen(embed, now.embed)
    second = first if tied else frozen(head, now.head)
    if first.shape != second.shape or first.shape[1] != now.embed.shape[1]:
        raise InputError(
            "the adapter's embedding and head do not fit each other or this model", where=adapter.folder, fix=SAME_MODEL
        )
    return Vocabulary(first, second, now.bias)


def settings_of(folder: Path, settings: LoraConfig) -> LoraConfig:
    """The settings to go on learning the adapter in `folder` with: its own shape, and the dropout and learning
    rates of `settings`. Raises InputError when its layers have several ranks."""
    adapter = peft.read(folder)
    flat = {adapter.config(name) for name in adapter.layers if not adapter.is_stack(name)}
    stacked = {adapter.config(name) for name in adapter.layers if adapter.is_stack(name)}
    if (
        not adapter.layers
        or len(flat) > 1
        or len(stacked) > 1
        or len({f"{scale:.9g}" for scale in adapter.scales.values()}) > 1
    ):
        what = "its layers have several ranks or scales" if adapter.layers else "it has no layers, only heads"
        raise InputError(what, where=folder, fix="merge it into its model first")
    usual = next(iter(flat | stacked)) if not flat else flat.pop()
    update = {"dropout": settings.dropout, "lr_ratio": settings.lr_ratio, "targets": tuple(adapter.layers)}
    update["modules_to_save"] = tuple(dict.fromkeys([*adapter.vocabulary, *settings.modules_to_save]))
    return usual.model_copy(update=update | {"expert_rank": stacked.pop().rank if stacked else None})


@torch.no_grad()
def role(model: Any, folder: Path) -> roles.Role:
    """The adapter in `folder`, with its heads, as another part for `model` to play: nothing of the model changes.

    Raises InputError as `apply` does.
    """
    adapter = peft.read(folder)
    bases = {name: lora.base_of(model, name) for name in adapter.layers if _has(model, name)}
    _check_fit(model, adapter, bases)
    layers = {}
    for name, parts in adapter.layers.items():
        layer = lora.made(bases[name], adapter.config(name))
        _copy(layer, parts)
        layers[name] = layer.requires_grad_(False)
    linear = {}
    for name, weight in adapter.heads.items():
        linear[name] = torch.nn.Linear(weight.shape[1], 1, bias=False, device=model.device)
        linear[name].weight.copy_(weight)
        linear[name].requires_grad_(False)
    return roles.Role(layers, linear, _vocabulary(model, adapter, vocabulary_weights.base(model)))


@torch.no_grad()
def go_on(model: Any, folder: Path) -> None:
    """Set the learning adapters of `model`, made with `settings_of`, and its heads to what is in `folder`. Where that brings an
    embedding or a head, `model` had them on when it was made ready, as `load_model` leaves it."""
    read = peft.read(folder)
    for name, layer in lora.adapters(model):
        _copy(layer, read.layers[name])
    if found := _vocabulary(model, read, vocabulary_weights.of(model)):
        for own, weight in zip(vocabulary_weights.of(model).parts(), found.parts(), strict=True):
            own[: len(weight)] = weight
    for name, head in heads.on(model).items():
        if name not in read.heads:
            continue
        if read.heads[name].shape != head.weight.shape:
            raise InputError(
                f"its head '{name}' gives {len(read.heads[name])} numbers, and this method needs {head.out_features}", where=folder,
                fix="start from another model",
            )  # fmt: skip
        head.weight.copy_(read.heads[name])


def _copy(layer: Adapter, parts: dict[str, torch.Tensor]) -> None:
    layer.A.copy_(parts["lora_A.weight"])
    layer.B.copy_(parts["lora_B.weight"])
    if layer.magnitude is not None:
        layer.magnitude.copy_(parts["lora_magnitude_vector"].flatten())


def _has(model: Any, name: str) -> bool:
    try:
        return isinstance(base := lora.base_of(model, name), (QuantLinear, StackModule)) or is_linear(base)
    except AttributeError:
        return False


def _shape(layer: Any) -> tuple[int, ...]:
    """(out, in) of a linear layer, (experts, out, in) of a stack."""
    if not isinstance(layer, StackModule):
        return (
            (layer.out_features, layer.in_features) if isinstance(layer, QuantLinear) else tuple(weight_of(layer).shape)
        )
    count, rows, columns = layer.shape
    return (count, columns, rows) if layer.transposed else (count, rows, columns)


def _check_fit(model: Any, adapter: PeftAdapter, layers: Mapping[str, Any]) -> None:
    """Raise InputError unless every tensor of the adapter belongs to one of `layers`, in its shape."""
    hidden = model.get_input_embeddings().weight.shape[1]
    if strange := sorted(set(adapter.layers) - set(layers)):
        head = strange[0].rpartition(".")[2] in ("lm_head", "embed_tokens")
        raise InputError(
            f"the adapter has weights for '{strange[0]}', which " + ("Luthier does not adapt" if head else "this model does not have"),
            where=adapter.folder, fix=SAME_MODEL,
        )  # fmt: skip
    if passed := sorted(read_past(model, adapter.layers)):
        what = f"the model reads the weight of '{passed[0]}' past its adapter"
        raise InputError(what, where=adapter.folder, fix="merge it into its base with PEFT, and give the merged folder")
    for name, parts in adapter.layers.items():
        found, dora = layers[name], adapter.config(name).dora
        a, b = parts["lora_A.weight"], parts["lora_B.weight"]
        if (*b.shape[:-1], a.shape[-1]) != _shape(found):
            raise InputError(f"'{name}' has another shape in this model", where=adapter.folder, fix=SAME_MODEL)
        if dora != ("lora_magnitude_vector" in parts):
            what = "has no magnitudes, and use_dora is true" if dora else "has magnitudes, and use_dora is not true"
            raise InputError(f"'{name}' {what}", where=adapter.folder, fix="copy the adapter again")
    for name, weight in adapter.heads.items():
        if weight.shape != (1, hidden):
            raise InputError(
                f"the adapter's '{name}' gives {len(weight)} numbers of {weight.shape[-1]}, Luthier reads one of {hidden}",
                where=adapter.folder,
            )  # fmt: skip
