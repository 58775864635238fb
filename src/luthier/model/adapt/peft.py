"""A PEFT adapter as it lies in a folder: what it says and its tensors. What Luthier does not compute is refused by name.

Adapters come from many trainers, and PEFT has a setting for each of its variants. So settings are not searched for those
known to be trouble: everything that is set and not known to be harmless is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from luthier.config.model import LoraConfig
from luthier.core.errors import InputError
from luthier.core.foreign.forms import shown
from luthier.model.adapt import adapter_config, heads, peft_experts
from luthier.model.adapt.adapter_config import CONFIG, EMBEDDINGS, HEADS, PREFIX, WEIGHTS, of_vocabulary
from luthier.model.adapt.vocabulary_weights import NAMES
from luthier.model.folder.safetensors_header import Tensor, tensors

COPY_AGAIN = "copy it again"
MAX_ALPHA = 1e9  # of lora_alpha
FLOATS = ("F64", "F32", "F16", "BF16")
KINDS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")

# Settings that decide nothing which the tensors do not say, and those that are read here.
_KNOWN = frozenset((
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "r",
    "lora_alpha", "use_rslora", "use_dora", "lora_dropout", "target_modules", "exclude_modules", "modules_to_save", "bias",
    "fan_in_fan_out", "init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "loftq_config",
    "eva_config", "megatron_core", "runtime_config", "qalora_group_size", "ensure_weight_tying",
    "alpha_pattern", "target_parameters",
))  # fmt: skip
# Starts of A and B that leave the base as it is; after others the adapter belongs to a base that was changed with it.
_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter that was read: its settings, tensors by layer and kind, their scales, and whole heads by name. The tensors of a
    stack of experts have a first dimension more, the experts'."""

    folder: Path
    settings: Mapping[str, Any]
    layers: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    heads: dict[str, torch.Tensor] = field(default_factory=dict)
    whole: dict[str, torch.Tensor] = field(
        default_factory=dict
    )  # embeddings and vocabulary heads, by the module's full name

    @property
    def vocabulary(self) -> list[str]:
        """Which of embedding and head it brings, as settings call them."""
        return [NAMES[name.rpartition(".")[2] in HEADS] for name in self.whole]

    def is_stack(self, layer: str) -> bool:
        """Whether it is on the stacked weights of experts."""
        return self.layers[layer]["lora_A.weight"].dim() == 3

    def config(self, layer: str) -> LoraConfig:
        """Rank and scale of one layer's adapter."""
        rank = self.layers[layer]["lora_A.weight"].shape[-2]
        return LoraConfig(rank=rank, alpha=self.scales[layer] * rank, dora=bool(self.settings.get("use_dora")))


def read(folder: Path) -> PeftAdapter:
    """The adapter in `folder`.

    Raises InputError for a folder that holds none, for pickled tensors (unread), for a kind that is not LoRA, and for every
    setting and every tensor that Luthier does not compute: nothing is ever applied in part.
    """
    settings = adapter_config.settings(folder)
    _refuse_settings(settings, folder / CONFIG)
    if not (folder / WEIGHTS).exists():
        pickled = (folder / "adapter_model.bin").is_file()
        raise InputError(
            "only a pickled adapter (adapter_model.bin), which can run code when read and is refused" if pickled
            else f"no {WEIGHTS} here", where=folder,
            fix="save it again with PEFT, as safetensors" if pickled else "give a folder with an adapter in PEFT's format",
        )  # fmt: skip
    header = tensors(folder / WEIGHTS)
    _refuse_shapes(header, folder / WEIGHTS)
    try:
        loaded = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"the adapter cannot be read: {error}", where=folder / WEIGHTS, fix=COPY_AGAIN) from None
    if broken := next((name for name, tensor in loaded.items() if not bool(tensor.isfinite().all())), None):
        raise InputError(f"'{broken}' holds NaN or infinity", where=folder / WEIGHTS, fix="fetch the adapter again")
    layers, own_heads, whole = _sorted(loaded, folder / WEIGHTS)
    layers, scales = peft_experts.resolved(layers, settings, folder)
    return PeftAdapter(folder, settings, layers, scales, own_heads, whole)


def _refuse_settings(settings: Mapping[str, Any], where: Path) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise InputError(f"only LoRA adapters can be loaded, and this is of type '{kind}'", where=where)
    alpha = settings.get("lora_alpha")
    if not _positive(alpha):
        raise InputError(f"lora_alpha is {shown(alpha)}, not a positive number", where=where, fix=COPY_AGAIN)
    for key in ("use_rslora", "use_dora", "fan_in_fan_out"):
        if not isinstance(settings.get(key), (bool, NoneType)):
            raise InputError(f"{key} is {shown(settings[key])}, not true or false", where=where, fix=COPY_AGAIN)
    for key in ("modules_to_save", "target_parameters"):
        names = settings.get(key) or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{key} is {shown(names)}, not a list of names", where=where, fix=COPY_AGAIN)
    for key in ("rank_pattern", "alpha_pattern"):
        pattern = settings.get(key) or {}
        if not isinstance(pattern, dict) or not all(_positive(value) for value in pattern.values()):
            raise InputError(f"{key} is {shown(pattern)}, not numbers by name", where=where, fix=COPY_AGAIN)
    saved = settings.get("modules_to_save") or []
    odd = [name for name, value in settings.items() if name not in _KNOWN and value]
    if settings.get("init_lora_weights") not in _STARTS:
        odd.append(f"init_lora_weights '{settings['init_lora_weights']}', which changes the base too")
    if settings.get("bias", "none") != "none":
        odd.append(f"bias '{settings['bias']}'")
    if brought := sorted({name.rpartition(".")[2] for name in saved} - {*heads.NAMES, *EMBEDDINGS, *HEADS}):
        raise InputError(f"the adapter brings its own '{brought[0]}', which Luthier does not read", where=where)
    if odd:
        raise InputError(
            f"the adapter uses {odd[0]}, which Luthier does not read", where=where, fix="merge it with PEFT"
        )


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < MAX_ALPHA


def _refuse_shapes(header: Mapping[str, Tensor], where: Path) -> None:
    """Raise InputError for tensors that no adapter has: of a type that is no number with a point, of other than two dimensions (of
    magnitudes one or two), or empty."""
    for name, tensor in header.items():
        plain = name.removeprefix(PREFIX)
        if not name.endswith(KINDS) and plain.removesuffix(".weight") not in heads.NAMES and not of_vocabulary(plain):
            continue  # refused by its name
        most = (1, 2) if name.endswith(KINDS[2]) else (2, 2)
        if tensor.dtype not in FLOATS or not most[0] <= len(tensor.shape) <= most[1] or not tensor.size:
            raise InputError(
                f"'{name[:200]}' is {tensor.dtype} of shape {list(tensor.shape)}", where=where, fix=COPY_AGAIN
            )


def _sorted(
    tensors: Mapping[str, torch.Tensor], where: Path
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tensors by layer and kind, the heads by name, and embeddings and vocabulary heads by their modules."""
    layers: dict[str, dict[str, torch.Tensor]] = {}
    whole: dict[str, torch.Tensor] = {}
    vocabulary: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(PREFIX)
        kind = next((kind for kind in KINDS if name.endswith(f".{kind}")), None)
        if kind:
            layers.setdefault(name.removesuffix(f".{kind}"), {})[kind] = tensor
        elif name.removesuffix(".weight") in heads.NAMES:
            whole[name.removesuffix(".weight")] = tensor
        elif of_vocabulary(name):
            vocabulary[name.removesuffix(".weight")] = tensor
        else:
            raise InputError(f"the adapter has a tensor '{key}', which Luthier does not read", where=where)
    for name, parts in layers.items():
        if missing := [kind for kind in KINDS[:2] if kind not in parts]:
            raise InputError(f"'{name}' has no {missing[0].removesuffix('.weight')}", where=where, fix=COPY_AGAIN)
        if parts[KINDS[0]].shape[0] != parts[KINDS[1]].shape[1]:
            raise InputError(f"A and B of '{name}' have different ranks", where=where, fix=COPY_AGAIN)
    if not layers and not whole and not vocabulary:
        raise InputError("the adapter holds no tensor", where=where, fix=COPY_AGAIN)
    return layers, whole, vocabulary
