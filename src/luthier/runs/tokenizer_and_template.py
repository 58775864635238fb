"""A model's tokenizer and template, without the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from luthier.config.run import RunConfig
from luthier.model.folder import limits
from luthier.model.folder.configuration import load_config
from luthier.model.folder.tokenizer import load_tokenizer
from luthier.runs.locate import ResolvedModel, resolve_model, run_of
from luthier.text.template import Template, load_template
from luthier.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TextFormat:
    """A model's tokenizer and template, without the model."""

    resolved: ResolvedModel
    tokenizer: Tokenizer
    template: Template


def open_text_format(config: RunConfig) -> TextFormat:
    """The tokenizer and template of the model, read without its weights. Raises InputError for a model whose configuration
    says that it cannot be tuned here."""
    resolved = resolve_model(config.model, config.base)
    tokenizer = Tokenizer(load_tokenizer(resolved.texts))
    shape = load_config(resolved.source.folder)
    limits.check_layers(shape, resolved.source.folder / "config.json")
    limits.check_vocabulary(tokenizer.fast, shape, resolved.texts)
    chosen, values = config.text.template, config.text.template_kwargs
    if chosen == "auto" and run_of(Path(config.model)):
        chosen = resolved.config.text.template  # a run goes on in the template it learned
        values = resolved.config.text.template_kwargs | values
    return TextFormat(resolved, tokenizer, load_template(chosen, tokenizer, values))
