"""A model's tokenizer and template, without the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.config.run import RunConfig
from luthier.model.adapt import adapter_config
from luthier.model.folder import limits
from luthier.model.folder.configuration import load_config
from luthier.model.folder.tokenizer import load_tokenizer
from luthier.runs.locate import ResolvedModel, resolve_model, run_of
from luthier.text import new_tokens
from luthier.text.template import Template, load_template
from luthier.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TextFormat:
    """A model's tokenizer and template, without the model. `new_tokens` are the ids of tokens that its embedding has no trained
    rows for."""

    resolved: ResolvedModel
    tokenizer: Tokenizer
    template: Template
    new_tokens: tuple[int, ...] = ()


def open_text_format(config: RunConfig) -> TextFormat:
    """The tokenizer and template of the model, read without its weights. Raises InputError for a model whose configuration
    says that it cannot be tuned here."""
    resolved = resolve_model(config.model, config.base)
    fast, new = open_tokenizer(resolved, config.text.add_tokens)  # first: it is what may leave torch out
    limits.check_layers(load_config(resolved.source.folder), resolved.source.folder / "config.json")
    tokenizer = Tokenizer(fast)
    chosen, values = config.text.template, config.text.template_kwargs
    if chosen == "auto" and run_of(Path(config.model)):
        chosen = resolved.config.text.template  # a run goes on in the template it learned
        values = resolved.config.text.template_kwargs | values
    return TextFormat(resolved, tokenizer, load_template(chosen, tokenizer, values), tuple(new))


def open_tokenizer(resolved: ResolvedModel, add_tokens: str | None = None) -> tuple[Any, list[int]]:
    """transformers' tokenizer of a model, with the tokens of the file `add_tokens`, and the ids of those that are new to the model.

    Raises InputError for a tokenizer with more tokens than the embedding has rows, that of an adapter which brings one counted.
    """
    fast = load_tokenizer(resolved.texts)
    rows = adapter_config.embedding_rows(resolved.adapter) if resolved.adapter else None
    rows = rows or load_config(resolved.source.folder).get_text_config().vocab_size
    new = new_tokens.add(fast, new_tokens.read(add_tokens), rows) if add_tokens else []
    limits.check_vocabulary(fast, rows, resolved.texts, new)
    return fast, new
