"""Adapters on disk in PEFT's format: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from luthier.core.config import LoraConfig
from luthier.core.errors import InputError
from luthier.core.files import refuse_pointer, write_json
from luthier.model import heads, lora

PREFIX = "base_model.model."
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
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(
        out / "adapter_config.json",
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
    bare = {name for name in lora.linears(model) if not name.endswith(".base")}
    same = {name for name in bare if name.rsplit(".", 1)[-1] in last}
    return sorted(last) if not same else names


def apply(model: Any, folder: Path) -> int:
    """Put the adapter in `folder` on `model`, frozen, with its heads, in place of any; return how many layers got one.

    Raises InputError for a folder that is not such an adapter, a kind that is not LoRA, and when a tensor
    belongs to no layer of the model: nothing is ever applied in part.
    """
    settings, by_layer, whole = _parts(folder)
    lora.detach(model)
    layers = lora.linears(model)
    if strange := sorted(set(by_layer) - set(layers)):
        raise InputError(
            f"the adapter has weights for '{strange[0]}', which this model has not", where=folder, mend=SAME_MODEL
        )
    for name, parts in by_layer.items():
        found: Any = layers[name]
        if (parts["lora_B.weight"].shape[0], parts["lora_A.weight"].shape[1]) != (
            found.out_features,
            found.in_features,
        ):
            raise InputError(f"'{name}' has another shape in this model", where=folder, mend=SAME_MODEL)
    for name, parts in by_layer.items():
        config = _config(settings, parts)
        a, b, magnitude = parts["lora_A.weight"], parts["lora_B.weight"], parts.get("lora_magnitude_vector")
        lora.put(model, name, layers[name], config, a, b, magnitude)
    for name, weight in whole.items():
        heads.put(model, name, weight)
    return len(by_layer)


def settings_of(folder: Path, settings: LoraConfig) -> LoraConfig:
    """The settings to go on learning the adapter in `folder` with: its own shape, and the dropout and learning
    rates of `settings`. Raises InputError when its layers have several ranks."""
    made, by_layer, _ = _parts(folder)
    shapes = {_config(made, parts) for parts in by_layer.values()}
    if len(shapes) > 1:
        raise InputError("its layers have several ranks", where=folder, mend="merge it into its model first")
    update = {"dropout": settings.dropout, "lr_ratio": settings.lr_ratio, "targets": tuple(by_layer)}
    return shapes.pop().model_copy(update=update)


@torch.no_grad()
def role(model: Any, folder: Path) -> lora.Role:
    """The adapter in `folder`, with its heads, as another part for `model` to play: nothing of the model changes.

    Raises InputError as `apply` does.
    """
    settings, by_layer, whole = _parts(folder)
    layers = {}
    for name, parts in by_layer.items():
        try:
            base: Any = lora.base_of(model, name)
        except AttributeError:
            base = None
        a, b = parts["lora_A.weight"], parts["lora_B.weight"]
        if base is None or (b.shape[0], a.shape[1]) != (base.out_features, base.in_features):
            raise InputError(f"the adapter does not fit this model at '{name}'", where=folder, mend=SAME_MODEL)
        layer = lora.LoraLinear(base, _config(settings, parts))
        layer.A.copy_(a)
        layer.B.copy_(b)
        if layer.magnitude is not None:
            layer.magnitude.copy_(parts["lora_magnitude_vector"].flatten())
        layers[name] = layer.requires_grad_(False)
    linear = {}
    for name, weight in whole.items():
        linear[name] = torch.nn.Linear(weight.shape[1], 1, bias=False, device=model.device)
        linear[name].weight.copy_(weight)
        linear[name].requires_grad_(False)
    return lora.Role(layers, linear)


@torch.no_grad()
def go_on(model: Any, folder: Path) -> None:
    """Set the learning adapters of `model`, made with `settings_of`, and its heads to what is in `folder`."""
    _, by_layer, whole = _parts(folder)
    for name, adapter in lora.adapters(model):
        parts = by_layer[name]
        adapter.A.copy_(parts["lora_A.weight"])
        adapter.B.copy_(parts["lora_B.weight"])
        if adapter.magnitude is not None:
            adapter.magnitude.copy_(parts["lora_magnitude_vector"].flatten())
    for name, head in heads.on(model).items():
        if name in whole:
            head.weight.copy_(whole[name])


def _config(settings: dict[str, Any], parts: dict[str, torch.Tensor]) -> LoraConfig:
    """Rank and scale of one layer's adapter."""
    rank = parts["lora_A.weight"].shape[0]
    scale = settings["lora_alpha"] / (rank**0.5 if settings.get("use_rslora") else rank)
    return LoraConfig(rank=rank, alpha=scale * rank, dora=bool(settings.get("use_dora")))


def _parts(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """The settings of an adapter, its tensors by layer and kind, and its heads by name."""
    settings, tensors = _read(folder)
    by_layer: dict[str, dict[str, torch.Tensor]] = {}
    whole: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        layer, mark, kind = key.removeprefix(PREFIX).partition(".lora_")
        if mark:
            by_layer.setdefault(layer, {})[f"lora_{kind}"] = tensor
        else:
            whole[layer.removesuffix(".weight")] = tensor
    return settings, by_layer, whole


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise InputError(f"no {name} here", where=folder, mend="give a folder with an adapter in PEFT's format")
        refuse_pointer(folder / name)
    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "adapter_model.safetensors")
    except (ValueError, SafetensorError) as error:
        raise InputError(f"the adapter cannot be read: {error}", where=folder, mend="copy it again") from None
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise InputError("only LoRA adapters can be loaded", where=folder / "adapter_config.json")
    if strange := sorted(set(settings.get("modules_to_save") or ()) - set(heads.NAMES)):
        raise InputError(
            f"the adapter brings its own '{strange[0]}', which Luthier does not read",
            where=folder / "adapter_config.json",
        )
    for feature in ("alpha_pattern", "layer_replication"):
        if settings.get(feature):
            raise InputError(
                f"the adapter uses {feature}, which Luthier does not read", where=folder / "adapter_config.json"
            )
    return settings, tensors
