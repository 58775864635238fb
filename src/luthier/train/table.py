"""METHODS: every method on one screen. A method is a row, not a class to inherit from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from luthier.core.errors import unknown
from luthier.core.types import Batch, Chat, Example, Loss, Output, Text
from luthier.methods.likelihood import likelihood


@dataclass(frozen=True)
class Method:
    """How a model learns from one kind of example.

    example  the examples it takes
    loss     pure function of a batch and the model's output, a weighted sum
    summary  one line for `--help`
    """

    example: tuple[type[Example], ...]
    loss: Callable[[Batch, Output], Loss]
    summary: str


METHODS: dict[str, Method] = {
    "sft": Method((Chat,), likelihood, "supervised and instruction tuning: learn the answers of conversations"),
    "cpt": Method((Text,), likelihood, "self-supervised (continued pretraining): learn every token of raw text"),
}


def method(name: str) -> Method:
    """The row of that name. Raises InputError with the nearest name."""
    if name not in METHODS:
        raise unknown("method", name, METHODS, where="--method")
    return METHODS[name]
