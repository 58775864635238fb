"""A model's tokenizer and template, without the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from luthier.app.start import Start, find
from luthier.core.config import RunConfig
from luthier.model.tokenizer import load_tokenizer
from luthier.text.template import Template, load_template
from luthier.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Texts:
    """A model's tokenizer and template, without the model."""

    start: Start
    tokenizer: Tokenizer
    template: Template


def open_texts(config: RunConfig) -> Texts:
    """The tokenizer and template of the model, read without its weights."""
    start = find(config.model)
    tokenizer = Tokenizer(load_tokenizer(start.source.folder))
    chosen = config.text.template
    if chosen == "auto" and Path(config.model, "run.yaml").is_file():
        chosen = start.config.text.template  # a run goes on in the template it learned
    return Texts(start, tokenizer, load_template(chosen, tokenizer))
