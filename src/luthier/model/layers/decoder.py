"""The part of a model that reads and writes text: the whole model, or of one that takes pictures and sound too a part of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn


def auto_class(config: Any) -> Any:
    """The class of transformers that makes the model of `config`: a language model, or one that writes about pictures."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kind = type(config)
    pictures = AutoModelForImageTextToText._model_mapping
    return (
        AutoModelForImageTextToText
        if kind in pictures and kind not in AutoModelForCausalLM._model_mapping
        else AutoModelForCausalLM
    )


def decoder(model: Any) -> Any:
    """The module that turns tokens into hidden states: of an encoder the model itself. Some models give themselves for it, or their
    head, which they call so."""
    found = model.get_decoder()
    return getattr(model, "model", model) if found is model or isinstance(found, nn.Linear) else found


def before_head(model: Any) -> nn.Module | None:
    """What stands between hidden states and the vocabulary head: of ModernBERT's decoder a layer of its own, which it calls the head."""
    found: nn.Module | None = model.lm_head if type(model).__name__ == "ModernBertDecoderForCausalLM" else None
    return found


def text_config(model: Any) -> Any:
    """The configuration of the part that reads and writes text."""
    return model.config.get_text_config()


def text_modules(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """The modules of the decoder by their names in the model: none of a part that reads pictures or sound, nor the head."""
    root = decoder(model) if hasattr(model, "get_decoder") else model
    name = next(name for name, module in model.named_modules() if module is root)
    for inner, module in root.named_modules():
        yield ".".join(part for part in (name, inner) if part), module


def text_parameters(model: Any) -> Iterator[nn.Parameter]:
    """The weights of the decoder, of the head, and of the embedding."""
    for part in (decoder(model), before_head(model), model.get_output_embeddings(), model.get_input_embeddings()):
        yield from () if part is None else part.parameters()


def blocks(model: Any) -> nn.ModuleList:
    """The blocks of the decoder, in order: the first list of as many modules as it has layers."""
    depth = text_config(model).num_hidden_layers
    return next(part for part in decoder(model).modules() if isinstance(part, nn.ModuleList) and len(part) == depth)
