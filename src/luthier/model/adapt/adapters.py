"""Adapters on disk in PEFT's format: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from luthier.config.model import LoraConfig
from luthier.core.errors import InputError
from luthier.core.storage.files import write_json
from luthier.model.adapt import heads, lora, peft, roles, targets
from luthier.model.adapt.adapter_config import CONFIG, WEIGHTS
from luthier.model.adapt.peft import PREFIX, PeftAdapter
from luthier.model.adapt.quantize import QuantLinear

SAME_MODEL = "load it on the model it was tuned from"


def save(out: Path, model: Any, base: str, config: LoraConfig) -> None:
    """Write the adapters of `model`, whose base is at `base` (a folder or a hub name), so that PEFT reads them and finds it.

    The scale is written as alpha / rank whatever the variant, so no reader needs to know of rsLoRA, and a
    PiSSA adapter is written as the difference to its start, on the unchanged base. A score or value head is
    written whole, as PEFT writes `modules_to_save`.
    """
    tensors: dict[str, torch.Tensor] = {}
    names, scale, rank, dora = [], 1.0, config.rank, False
    for name, adapter in lora.adapters(model):
        for key, tensor in adapter.export().items():
            tensors[f"{PREFIX}{name}.{key}"] = tensor.cpu().contiguous()
        names.append(name)
        dora = adapter.magnitude is not None  # not as `config` says: training may go on with an adapter made elsewhere
        scale, rank = adapter.scale, tensors[f"{PREFIX}{name}.lora_A.weight"].shape[0]
    whole = heads.on(model)
    tensors |= {f"{PREFIX}{name}.weight": head.weight.detach().cpu().contiguous() for name, head in whole.items()}
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    write_json(
        out / CONFIG,
        {
            "peft_type": "LORA", "task_type": "SEQ_CLS" if "score" in whole else "CAUSAL_LM", "base_model_name_or_path": base,
            "r": rank, "lora_alpha": scale * rank, "lora_dropout": config.dropout, "bias": "none",
            "target_modules": _short(names, model), "use_dora": dora, "use_rslora": False,
            "modules_to_save": list(whole) or None, "fan_in_fan_out": False, "init_lora_weights": True, "inference_mode": True,
        },
    )  # fmt: skip


def _short(names: list[str], model: Any) -> list[str]:
    """Last parts of the layer names when these say the same as the whole names, else the whole names."""
    last = {name.rsplit(".", 1)[-1] for name in names}
    bare = {name for name in targets.linears(model) if not name.endswith(".base")}
    same = {name for name in bare if name.rsplit(".", 1)[-1] in last}
    return sorted(last) if not same else names


def apply(model: Any, folder: Path) -> int:
    """Put the adapter in `folder` on `model`, frozen, with its heads, in place of any; return how many layers got one.

    Raises InputError as `peft.read` does, and when a tensor belongs to no layer of the model: nothing is ever applied in part.
    """
    adapter = peft.read(folder)
    lora.detach(model)
    layers = targets.linears(model)
    _check_fit(model, adapter, layers)
    for name, parts in adapter.layers.items():
        a, b, magnitude = (parts.get(kind) for kind in peft.KINDS)
        assert a is not None and b is not None, "read() asks for both"
        lora.put(model, name, layers[name], adapter.config(name), a, b, magnitude)
    for name, weight in adapter.heads.items():
        heads.put(model, name, weight)
    return len(adapter.layers)


def settings_of(folder: Path, settings: LoraConfig) -> LoraConfig:
    """The settings to go on learning the adapter in `folder` with: its own shape, and the dropout and learning
    rates of `settings`. Raises InputError when its layers have several ranks."""
    adapter = peft.read(folder)
    shapes = {adapter.config(name) for name in adapter.layers}
    if len(shapes) != 1:
        what = "its layers have several ranks" if shapes else "it has no layers, only heads"
        raise InputError(what, where=folder, fix="merge it into its model first")
    update = {"dropout": settings.dropout, "lr_ratio": settings.lr_ratio, "targets": tuple(adapter.layers)}
    return shapes.pop().model_copy(update=update)


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
        layer = lora.LoraLinear(bases[name], adapter.config(name))
        _copy(layer, parts)
        layers[name] = layer.requires_grad_(False)
    linear = {}
    for name, weight in adapter.heads.items():
        linear[name] = torch.nn.Linear(weight.shape[1], 1, bias=False, device=model.device)
        linear[name].weight.copy_(weight)
        linear[name].requires_grad_(False)
    return roles.Role(layers, linear)


@torch.no_grad()
def go_on(model: Any, folder: Path) -> None:
    """Set the learning adapters of `model`, made with `settings_of`, and its heads to what is in `folder`."""
    read = peft.read(folder)
    for name, layer in lora.adapters(model):
        _copy(layer, read.layers[name])
    for name, head in heads.on(model).items():
        if name not in read.heads:
            continue
        if read.heads[name].shape != head.weight.shape:
            raise InputError(
                f"its head '{name}' gives {len(read.heads[name])} numbers, and this method needs {head.out_features}", where=folder,
                fix="start from another model",
            )  # fmt: skip
        head.weight.copy_(read.heads[name])


def _copy(layer: lora.LoraLinear, parts: dict[str, torch.Tensor]) -> None:
    layer.A.copy_(parts["lora_A.weight"])
    layer.B.copy_(parts["lora_B.weight"])
    if layer.magnitude is not None:
        layer.magnitude.copy_(parts["lora_magnitude_vector"].flatten())


def _has(model: Any, name: str) -> bool:
    try:
        return isinstance(lora.base_of(model, name), (torch.nn.Linear, QuantLinear))
    except AttributeError:
        return False


def _check_fit(model: Any, adapter: PeftAdapter, layers: Mapping[str, Any]) -> None:
    """Raise InputError unless every tensor of the adapter belongs to one of `layers`, in its shape."""
    hidden = model.get_input_embeddings().weight.shape[1]
    if strange := sorted(set(adapter.layers) - set(layers)):
        head = strange[0].rpartition(".")[2] in ("lm_head", "embed_tokens")
        raise InputError(
            f"the adapter has weights for '{strange[0]}', which " + ("Luthier does not adapt" if head else "this model does not have"),
            where=adapter.folder, fix=SAME_MODEL,
        )  # fmt: skip
    for name, parts in adapter.layers.items():
        found, dora = layers[name], adapter.config(name).dora
        shape = (parts["lora_B.weight"].shape[0], parts["lora_A.weight"].shape[1])
        if shape != (found.out_features, found.in_features):
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
