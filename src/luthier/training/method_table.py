"""METHODS: every method on one screen. A method is a row, not a class to inherit from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from luthier.core.errors import unknown
from luthier.core.types.batch import LOGP, Loss, Needs
from luthier.core.types.examples import Chat, Example, Labelled, Preference, Prompt, Ranking, Text
from luthier.core.types.trees import TokenTree
from luthier.methods import policy, preference, reward
from luthier.methods.likelihood import likelihood
from luthier.training import annotate

Arrange = Callable[[Sequence[TokenTree], Sequence[TokenTree]], list[TokenTree]]


@dataclass(frozen=True)
class Method:
    """How a model learns from one kind of example.

    example    the examples it takes
    loss       pure function of a batch, the model's output and the settings of `section`, a weighted sum
    summary    one line for `--help`
    section    the settings its loss reads; none when ""
    reads      of the settings that not every method reads, those that this one does: names, or globs of them
    needs      what it wants of the forward pass
    reference  whether every answer carries its log-probability under the starting model
    online     whether it learns from its own samples: then examples are only asked for their prompts
    rate       share of the learning rate that suits sft, where none is given
    schedule   of the learning rate, where none is given
    arrange    what it does to all trees at once before training; others, for what few trees lack, come second
    """

    example: tuple[type[Example], ...]
    loss: Callable[..., Loss]
    summary: str
    section: str = ""
    reads: tuple[str, ...] = ("train.weigh",)
    needs: Needs = LOGP
    reference: bool = False
    online: bool = False
    rate: float = 1.0
    schedule: Literal["constant", "cosine"] = "cosine"
    arrange: Arrange | None = None


_ANSWERS = (Preference, Ranking)
_PROMPTS = (Prompt, Chat, Preference, Ranking, Labelled)
_OF_DPO = (
    "train.weigh",
    "preference.beta",
    "preference.loss",
    "preference.smoothing",
    "preference.likelihood",
    "ranking.gather",
)
_OF_POLICIES = (
    "rollout.*", "reward.*", "policy.epochs", "policy.minibatches", "policy.clip", "policy.clip_high", "policy.kl", "policy.kl_*",
    "ranking.gather",
)  # fmt: skip

METHODS: dict[str, Method] = {
    "sft": Method((Chat,), likelihood, "supervised and instruction tuning: learn the answers of conversations"),
    "cpt": Method((Text,), likelihood, "self-supervised (continued pretraining): learn every token of raw text"),
    "reward": Method(
        _ANSWERS, reward.reward, "a reward model: a number for an answer, from pairs or rankings",
        "ranking", ("train.weigh", "ranking.*"), Needs(logp=False, score=1), rate=0.3,
    ),
    "dpo": Method(
        _ANSWERS, preference.dpo, "prefer the better of two answers, close to the starting model",
        "preference", _OF_DPO, reference=True, rate=0.1,
    ),
    "simpo": Method(
        _ANSWERS, preference.simpo, "prefer the better answer by likelihood per token", "preference",
        ("train.weigh", "preference.beta", "preference.smoothing", "preference.likelihood", "preference.target_margin", "ranking.gather"),
        rate=0.1,
    ),
    "orpo": Method(
        (*_ANSWERS, Chat, Text), preference.orpo, "learn the better answer and its odds over the worse, in one go",
        "preference", ("train.weigh", "preference.beta", "preference.likelihood", "preference.span", "ranking.gather"), rate=0.5,
    ),
    "kto": Method(
        (Labelled, Preference), preference.kto, "learn from single answers, each wanted or unwanted",
        "preference", ("train.weigh", "preference.beta", "preference.desirable", "preference.undesirable"),
        reference=True, rate=0.1, arrange=annotate.with_others,
    ),
    "response": Method(
        (Preference,), preference.response, "accepted and rejected texts without a prompt",
        "preference", _OF_DPO, reference=True, rate=0.1,
    ),
    "ppo": Method(
        _PROMPTS, policy.ppo, "learn from rewards, with a critic and close to the starting model",
        "policy",
        (*_OF_POLICIES, "policy.gamma", "policy.lam", "policy.normalize", "policy.whiten", "policy.value_*", "policy.critic_lr",
         "policy.pretrain*"),
        Needs(entropy=True, value=True), online=True, rate=0.25, schedule="constant",
    ),
    "grpo": Method(
        _PROMPTS, policy.grpo, "learn from rewards, each answer beside others to its prompt",
        "policy", (*_OF_POLICIES, "policy.variant"), Needs(entropy=True), online=True, rate=0.25, schedule="constant",
    ),
}  # fmt: skip


def method(name: str) -> Method:
    """The row of that name. Raises InputError with the nearest name."""
    if name not in METHODS:
        raise unknown("method", name, METHODS, where="--method")
    return METHODS[name]
