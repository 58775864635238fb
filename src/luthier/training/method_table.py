"""METHODS: every method on one screen. A method is a row, not a class to inherit from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from luthier.config.run import RunConfig
from luthier.core.errors import InputError, unknown
from luthier.core.types.batch import LOGP, Loss, Needs
from luthier.core.types.examples import Chat, Example, Labelled, Preference, Prompt, Ranking, Text
from luthier.core.types.trees import TokenTree
from luthier.data.group_preferences import group_preferences, split_preferences
from luthier.methods import policy, preference, reward
from luthier.methods.likelihood import likelihood
from luthier.rewards.selection import as_prompts
from luthier.training import annotate
from luthier.training.passes import Scope

Prepare = Callable[[Sequence[Example], RunConfig], Sequence[Example]]
Arrange = Callable[[Sequence[TokenTree], Sequence[TokenTree]], list[TokenTree]]


@dataclass(frozen=True)
class Method:
    """How a model learns from one kind of example.

    example    the examples it takes
    loss       pure function of a batch, the model's output and the settings of `section`, a weighted sum
    summary    one line for `--help`
    section    the settings its loss reads; none when ""
    reads      of the settings that not every method reads, those that this one does: names, or globs of them
    steps      where its steps come from: the rows, or samples of the model as it learns, which are only asked the rows' prompts
    prepare    what it makes of the rows before they are split; nothing when None
    tree       what it makes of each tree, with the settings of `section`
    arrange    what it makes of all trees at once; others, for what few trees lack, come second
    needs      what it wants of the forward pass
    scope      what its loss is given: each micro-batch, or the whole step as one batch, read twice (see `passes`)
    reference  whether every answer carries its log-probability under the starting model
    rate       share of the learning rate that suits sft, where none is given
    schedule   of the learning rate, where none is given
    """

    example: tuple[type[Example], ...]
    loss: Callable[..., Loss]
    summary: str
    section: str = ""
    reads: tuple[str, ...] = ("train.weigh",)
    steps: Literal["rows", "samples"] = "rows"
    prepare: Prepare | None = None
    tree: Callable[[TokenTree, Any], TokenTree] | None = None
    arrange: Arrange | None = None
    needs: Needs = LOGP
    scope: Scope = "batch"
    reference: bool = False
    rate: float = 1.0
    schedule: Literal["constant", "cosine"] = "cosine"

    @property
    def online(self) -> bool:
        """Whether it learns from its own samples."""
        return self.steps == "samples"

    @property
    def all_rows_first(self) -> bool:
        """Whether something looks at all rows before the first step, so that they cannot be a stream."""
        return self.reference or self.arrange is not None or self.online

    @property
    def is_likelihood(self) -> bool:
        """Whether its loss is how unlikely the answers of the rows are, in nats per token."""
        return self.loss is likelihood

    def does_read(self, setting: str) -> bool:
        """Whether it reads a setting of those that not every method reads."""
        return any(fnmatchcase(setting, pattern) for pattern in self.reads)


def _gathered(examples: Sequence[Example], config: RunConfig) -> Sequence[Example]:
    """Pairs of one prompt as one example, where it is asked for."""
    return group_preferences(examples) if config.ranking.gather else examples


def _gathered_unless(examples: Sequence[Example], config: RunConfig) -> Sequence[Example]:
    """The same, where it is not refused."""
    return examples if config.ranking.gather is False else group_preferences(examples)


def _prompts(examples: Sequence[Example], config: RunConfig) -> Sequence[Example]:
    """Rows as they are asked."""
    return as_prompts(examples)


def _single(examples: Sequence[Example], config: RunConfig) -> Sequence[Example]:
    """Answers one by one, each wanted or not."""
    return split_preferences(examples)


_ANSWERS = (Preference, Ranking)
_PROMPTS = (Prompt, Chat, Preference, Ranking, Labelled)
_OF_DPO = ("train.weigh", "preference.beta", "preference.loss", "preference.smoothing", "preference.likelihood")
_OF_POLICIES = (
    "rollout.*", "reward.*", "policy.epochs", "policy.minibatches", "policy.clip", "policy.clip_high", "policy.kl", "policy.kl_*",
)  # fmt: skip

METHODS: dict[str, Method] = {
    "sft": Method((Chat,), likelihood, "supervised and instruction tuning: learn the answers of conversations"),
    "cpt": Method((Text,), likelihood, "self-supervised (continued pretraining): learn every token of raw text"),
    "reward": Method(
        _ANSWERS, reward.reward, "a reward model: a number for an answer, from pairs or rankings",
        "ranking", ("train.weigh", "ranking.*"), prepare=_gathered_unless, needs=Needs(logp=False, score=1), rate=0.3,
    ),
    "dpo": Method(
        _ANSWERS, preference.dpo, "prefer the better of two answers, close to the starting model",
        "preference", (*_OF_DPO, "ranking.gather"), prepare=_gathered, reference=True, rate=0.1,
    ),
    "simpo": Method(
        _ANSWERS, preference.simpo, "prefer the better answer by likelihood per token", "preference",
        ("train.weigh", "preference.beta", "preference.smoothing", "preference.likelihood", "preference.target_margin", "ranking.gather"),
        prepare=_gathered, rate=0.1,
    ),
    "orpo": Method(
        (*_ANSWERS, Chat, Text), preference.orpo, "learn the better answer and its odds over the worse, in one go",
        "preference", ("train.weigh", "preference.beta", "preference.likelihood", "preference.span", "ranking.gather"),
        prepare=_gathered, tree=annotate.with_prompt, rate=0.5,
    ),
    "kto": Method(
        (Labelled, Preference), preference.kto, "learn from single answers, each wanted or unwanted",
        "preference", ("train.weigh", "preference.beta", "preference.desirable", "preference.undesirable"),
        prepare=_single, arrange=annotate.with_others, reference=True, rate=0.1,
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
        "samples", _prompts, needs=Needs(entropy=True, value=True), rate=0.25, schedule="constant",
    ),
    "grpo": Method(
        _PROMPTS, policy.grpo, "learn from rewards, each answer beside others to its prompt",
        "policy", (*_OF_POLICIES, "policy.variant"), "samples", _prompts, needs=Needs(entropy=True), rate=0.25,
        schedule="constant",
    ),
}  # fmt: skip


OWN = "python:"  # of a method of the user's own, which `own_method.load` declares
OWN_METHODS: dict[str, Method] = {}


def method(name: str) -> Method:
    """The row of that name. Raises InputError with the nearest name. A method of the user's that is not loaded, as when somebody
    looks at a run of it, can be read about and not learned by."""
    if name.startswith(OWN):
        return OWN_METHODS.get(name, _UNLOADED)
    if name not in METHODS:
        raise unknown("method", name, METHODS, where="--method")
    return METHODS[name]


def likelihood_method(example: Example) -> str:
    """The name of the method that learns such rows by their likelihood alone."""
    return next(name for name, row in METHODS.items() if row.is_likelihood and isinstance(example, row.example))


def declare(name: str, row: Method) -> None:
    """Make a method of the user's own known by its name."""
    assert name.startswith(OWN)
    OWN_METHODS[name] = row


def _not_loaded(*batch: object, **settings: object) -> Loss:
    raise InputError("the file of this method is not loaded", fix="name it with --method")


# Who reads a run of a method whose code is not run must find its rows under the numbers that they had.
_UNLOADED = Method((Example,), _not_loaded, "a method of the user's own", prepare=_gathered)


def keeps_row_numbers(row: Method) -> bool:
    """Whether `_UNLOADED` numbers the rows as this method does: as they are, or gathered where that is asked for."""
    return row.prepare is _gathered or (row.prepare in (None, _prompts) and not row.does_read("ranking.gather"))
