"""METHODS: every method on one screen. A method is a row, not a class to inherit from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from luthier.core.errors import unknown
from luthier.core.types import LOGP, Chat, Example, Labelled, Loss, Needs, Preference, Ranking, Text, TokenTree
from luthier.methods import preference, reward
from luthier.methods.likelihood import likelihood
from luthier.train import annotate

Arrange = Callable[[Sequence[TokenTree]], list[TokenTree]]


@dataclass(frozen=True)
class Method:
    """How a model learns from one kind of example.

    example    the examples it takes
    loss       pure function of a batch, the model's output and the settings of `section`, a weighted sum
    summary    one line for `--help`
    section    the settings its loss reads; none when ""
    needs      what it wants of the forward pass
    reference  whether every answer carries its log-probability under the starting model
    arrange    what it does to all trees at once before training
    """

    example: tuple[type[Example], ...]
    loss: Callable[..., Loss]
    summary: str
    section: str = ""
    needs: Needs = LOGP
    reference: bool = False
    arrange: Arrange | None = None


_ANSWERS = (Preference, Ranking)

METHODS: dict[str, Method] = {
    "sft": Method((Chat,), likelihood, "supervised and instruction tuning: learn the answers of conversations"),
    "cpt": Method((Text,), likelihood, "self-supervised (continued pretraining): learn every token of raw text"),
    "reward": Method(
        _ANSWERS, reward.reward, "a reward model: a number for an answer, from pairs or rankings",
        "ranking", Needs(logp=False, score=True),
    ),
    "dpo": Method(
        _ANSWERS, preference.dpo, "prefer the better of two answers, close to the starting model",
        "preference", reference=True,
    ),
    "simpo": Method(_ANSWERS, preference.simpo, "prefer the better answer by likelihood per token", "preference"),
    "orpo": Method(
        (*_ANSWERS, Chat, Text), preference.orpo, "learn the better answer and its odds over the worse, in one go",
        "preference",
    ),
    "kto": Method(
        (Labelled,), preference.kto, "learn from single answers, each wanted or unwanted",
        "preference", reference=True, arrange=annotate.with_others,
    ),
    "response": Method(
        (Preference,), preference.response, "accepted and rejected texts without a prompt",
        "preference", reference=True,
    ),
}  # fmt: skip


def method(name: str) -> Method:
    """The row of that name. Raises InputError with the nearest name."""
    if name not in METHODS:
        raise unknown("method", name, METHODS, where="--method")
    return METHODS[name]
