"""The embedding and the vocabulary head: rows for new tokens, and adapters that bring a whole one of their own.

PEFT has them under `modules_to_save`. Where the head is tied to the embedding, both are one weight that learns as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

NAMES = ("embed_tokens", "lm_head")  # what settings call them, whatever the architecture does
_BASE = "_luthier_base_vocabulary"


@dataclass(frozen=True)
class Vocabulary:
    """The weights [V, H] of an embedding and of a head, one and the same where they are tied, and the head's bias."""

    embed: nn.Parameter
    head: nn.Parameter
    bias: nn.Parameter | None = None

    @property
    def tied(self) -> bool:
        return self.embed is self.head

    def parts(self) -> list[nn.Parameter]:
        """Each weight once."""
        return [self.embed] if self.tied else [self.embed, self.head]


def of(model: Any) -> Vocabulary:
    """What `model` reads and writes with now."""
    head = model.get_output_embeddings()
    return Vocabulary(model.get_input_embeddings().weight, head.weight, getattr(head, "bias", None))


def names(model: Any) -> tuple[str, str]:
    """The full names of the modules: model.embed_tokens and lm_head, or what the architecture calls them."""
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    found = {id(module): name for name, module in model.named_modules()}
    return found[id(embed)], found[id(head)]


def put(model: Any, vocabulary: Vocabulary) -> None:
    """Have `model` read and write with these weights; what states their size follows."""
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    embed.weight, head.weight = vocabulary.embed, vocabulary.head
    if vocabulary.bias is not None:
        head.bias = vocabulary.bias
    embed.num_embeddings = head.out_features = len(vocabulary.embed)
    config = model.config.get_text_config()
    config.vocab_size = len(vocabulary.embed)
    model.config.tie_word_embeddings = config.tie_word_embeddings = vocabulary.tied
    if hasattr(model, "vocab_size"):
        model.vocab_size = len(vocabulary.embed)


@torch.no_grad()
def add_rows(model: Any, rows: int, new: Sequence[int]) -> None:
    """Give embedding and head at least `rows` rows, and those of the tokens `new` the mean of all the others: what transformers
    draws its new rows around, without the noise."""
    if not new:
        return
    before = of(model)

    def longer(weight: nn.Parameter) -> nn.Parameter:
        out = weight.new_zeros(max(rows, len(weight)), *weight.shape[1:])
        out[: len(weight)] = weight
        out[list(new)] = weight[: min(new)].float().mean(0).to(weight.dtype)
        return nn.Parameter(out, requires_grad=weight.requires_grad)

    embed = longer(before.embed)
    bias = None if before.bias is None else longer(before.bias)
    put(model, Vocabulary(embed, embed if before.tied else longer(before.head), bias))


def base(model: Any) -> Vocabulary:
    """What `model` reads and writes with below any adapter."""
    return getattr(model, _BASE, None) or of(model)


def own(model: Any) -> Vocabulary | None:
    """What an adapter on `model` brought in place of the base's; None where it brought none."""
    return of(model) if getattr(model, _BASE, None) is not None else None


def brought(model: Any) -> dict[str, nn.Parameter]:
    """Of an adapter's own weights those that are not the base's, by the names of their modules."""
    base: Vocabulary | None = getattr(model, _BASE, None)
    if base is None:
        return {}
    now, (embed, head) = of(model), names(model)
    return {name: w for name, w, b in ((embed, now.embed, base.embed), (head, now.head, base.head)) if w is not b}


def bring(model: Any, vocabulary: Vocabulary) -> None:
    """Put an adapter's own weights in the place of the base's, which are kept."""
    if getattr(model, _BASE, None) is None:
        setattr(model, _BASE, of(model))
    put(model, vocabulary)


def restore(model: Any) -> None:
    """Take what an adapter brought off again."""
    if (base := getattr(model, _BASE, None)) is not None:
        put(model, base)
        setattr(model, _BASE, None)


def settle(model: Any) -> None:
    """Let what an adapter brought be the model's own."""
    setattr(model, _BASE, None)


def learn(model: Any, wanted: Sequence[str]) -> None:
    """Have copies of the wanted weights (`NAMES`) learn beside an adapter. Of tied ones both do."""
    if not wanted:
        return
    now = of(model)
    embed = _copy(now.embed, NAMES[0] in wanted or now.tied)
    bring(model, Vocabulary(embed, embed if now.tied else _copy(now.head, NAMES[1] in wanted), now.bias))


def copy_of(vocabulary: Vocabulary, learns: bool) -> Vocabulary:
    """The same weights, of which the original may learn on, in memory of their own."""

    def _copy(weight: nn.Parameter, learns: bool) -> nn.Parameter:
        return nn.Parameter(weight.detach().clone(), requires_grad=learns and weight.requires_grad)

    embed = _copy(vocabulary.embed, learns)
    return Vocabulary(embed, embed if vocabulary.tied else _copy(vocabulary.head, learns), vocabulary.bias)


def _copy(weight: nn.Parameter, learns: bool) -> nn.Parameter:
    return nn.Parameter(weight.detach().clone(), requires_grad=learns) if learns else weight


@contextmanager
def with_vocabulary(model: Any, vocabulary: Vocabulary | None) -> Iterator[None]:
    """`model` for the block with these weights, or for None with those of the base."""
    wanted: Vocabulary | None = vocabulary or getattr(model, _BASE, None)
    if wanted is None:
        yield
        return
    now = of(model)
    try:
        put(model, wanted)
        yield
    finally:
        put(model, now)
