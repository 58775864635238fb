"""The result of a run in formats that others load: PEFT's for adapters, transformers' for models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier.app.folder import RunFolder
from luthier.core.config import RunConfig
from luthier.core.files import write_folder
from luthier.model import adapters, heads, tune
from luthier.model.load import LoadedModel
from luthier.model.tokenizer import quiet
from luthier.text.template import Template


def write(folder: RunFolder, tuned: tune.Tuned, loaded: LoadedModel, template: Template, config: RunConfig) -> Path:
    """Write adapter/ or model/ of a run, whole or not at all, with tokenizer and template."""
    if tune.is_adapter(config.tune):
        return write_folder(folder.path / "adapter", lambda out: _adapter(out, tuned.model, loaded, template, config))
    return write_folder(folder.path / "model", lambda out: write_model(out, tuned.model, loaded.tokenizer, template))


def _adapter(out: Path, model: Any, loaded: LoadedModel, template: Template, config: RunConfig) -> None:
    adapters.save(out, model, loaded.address, config.lora)
    _tokenizer(out, loaded.tokenizer, template)


def write_model(out: Path, model: Any, tokenizer: Any, template: Template) -> None:
    """A transformers folder: config, safetensors, tokenizer and template.

    A reward model is read by AutoModelForSequenceClassification too: its score is that of the last token that is no
    padding, which must be the stop token. So padding must be told from it: where the config has one token for
    both, it is written without padding, and readers are asked for theirs.
    """
    if "score" in heads.on(model):
        model.config.num_labels = 1
        if model.config.pad_token_id in template.stop_ids:
            model.config.pad_token_id = None
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
