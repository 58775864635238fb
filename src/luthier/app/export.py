"""The result of a run in formats that others load: PEFT's for adapters, transformers' for models."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from luthier.app.folder import RunFolder
from luthier.core.config import RunConfig
from luthier.core.files import fsync_folder, write_json
from luthier.model import lora, tune
from luthier.model.load import LoadedModel, quiet
from luthier.text.template import Template


def write(folder: RunFolder, tuned: tune.Tuned, loaded: LoadedModel, template: Template, config: RunConfig) -> Path:
    """Write adapter/ or model/ of a run, whole or not at all, with tokenizer and template."""
    if tune.is_adapter(config.tune):
        return _whole(folder.path / "adapter", lambda out: _adapter(out, tuned.model, loaded, template, config))
    return _whole(folder.path / "model", lambda out: write_model(out, tuned.model, loaded.tokenizer, template))


def _whole(final: Path, fill: Callable[[Path], None]) -> Path:
    temporary = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        fill(temporary)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        fsync_folder(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def _adapter(out: Path, model: Any, loaded: LoadedModel, template: Template, config: RunConfig) -> None:
    """adapter_model.safetensors and adapter_config.json, as `peft.PeftModel.from_pretrained` reads them.

    The scale is written as alpha / rank whatever the variant, so no reader needs to know of rsLoRA, and a
    PiSSA adapter is the difference to its start, on the unchanged base.
    """
    tensors: dict[str, torch.Tensor] = {}
    names, scale, rank = [], 1.0, config.lora.rank
    for name, adapter in lora.adapters(model):
        for key, tensor in adapter.export().items():
            tensors[f"base_model.model.{name}.{key}"] = tensor.cpu().contiguous()
        names.append(name)
        scale, rank = adapter.scale, tensors[f"base_model.model.{name}.lora_A.weight"].shape[0]
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(
        out / "adapter_config.json",
        {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": loaded.name,
            "r": rank, "lora_alpha": scale * rank, "lora_dropout": config.lora.dropout, "bias": "none",
            "target_modules": _short(names, model), "use_dora": config.lora.dora, "use_rslora": False,
            "fan_in_fan_out": False, "init_lora_weights": True, "inference_mode": True,
        },
    )  # fmt: skip
    _tokenizer(out, loaded.tokenizer, template)


def _short(names: list[str], model: Any) -> list[str]:
    """Last parts of the layer names when these say the same as the whole names, else the whole names."""
    last = {name.rsplit(".", 1)[-1] for name in names}
    every = [name for name, module in model.named_modules() if hasattr(module, "in_features") or isinstance(module, lora.LoraLinear)]
    matched = {name for name in every if name.rsplit(".", 1)[-1] in last and not name.endswith(".base")}
    return sorted(last) if matched == set(names) else names


def write_model(out: Path, model: Any, tokenizer: Any, template: Template) -> None:
    """A transformers folder: config, safetensors, tokenizer and template."""
    with quiet():
        model.save_pretrained(out)
    _tokenizer(out, tokenizer, template)


def _tokenizer(out: Path, tokenizer: Any, template: Template) -> None:
    """The tokenizer with the template that was trained with, so that nobody asks the model in another one."""
    before = tokenizer.chat_template
    with quiet():
        try:
            tokenizer.chat_template = template.as_jinja()
            tokenizer.save_pretrained(out)
        finally:
            tokenizer.chat_template = before
