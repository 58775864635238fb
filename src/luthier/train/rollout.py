"""Online step source: prompts -> samples of the current policy -> rewards -> advantages -> optimizer steps.

    rollout r     batch x minibatches prompts, `samples` answers each, drawn at the weights before its first step
    step i        minibatch of a pass over its rollout: (rollout, pass, minibatch) = i in mixed radix

What a rollout needs of models it gets as plain functions of trees, so nothing here knows how many models there are
or what they share. A rollout is saved with a checkpoint: in the middle of its passes it cannot be drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any, Protocol

import numpy as np

from luthier.core import seeds
from luthier.core.config import PolicyConfig
from luthier.core.types import Node, Step, TokenTree
from luthier.methods.advantages import (
    explained_variance,
    gae,
    group_relative,
    leave_one_out,
    returns,
    whitened,
)
from luthier.text.weigh import RULES, Rule, fixed_length
from luthier.train.steps import Packing, chosen_places, make_step

Columns = list[list[list[float]]]  # tree -> leaf -> one number per token
PerToken = Callable[[Sequence[TokenTree]], Columns]


class Drawn(Protocol):
    """A sampled answer: its ids, the stop token included, log p of each under the model itself, its text, and how it
    ended."""

    ids: tuple[int, ...]
    logp: tuple[float, ...]
    text: str
    ended: str


@dataclass(frozen=True)
class Asked:
    """A prompt with its token ids and the row it came from."""

    ids: tuple[int, ...]
    row: int


@dataclass(frozen=True)
class Players:
    """What a rollout asks of the models.

    answers    (prompts, seed) -> samples of each prompt
    rewards    (rows, samples of each) -> totals of each, and their parts by name
    policy     log p of each answer token under the policy now; None where those that sampling gave are exact enough
    reference  the same under the starting model
    values     the critic's value before each answer token; None without a critic
    """

    answers: Callable[[Sequence[Asked], int], list[list[Drawn]]]
    rewards: Callable[[Sequence[Asked], list[list[Drawn]]], tuple[list[list[float]], dict[str, list[list[float]]]]]
    policy: PerToken | None
    reference: PerToken
    values: PerToken | None = None


def rule_of(settings: PolicyConfig, longest: int) -> Rule:
    """How the tokens of a step become one mean: over answers (grpo, rloo, gspo), over tokens (dapo, reinforce++), or
    over answers of the longest length (dr_grpo)."""
    if settings.variant in ("dapo", "reinforce++"):
        return RULES["token"]
    return partial(fixed_length, length=longest) if settings.variant == "dr_grpo" else RULES["answer"]


@dataclass
class Rollouts:
    """Steps drawn from the policy as it learns. `tell` gets a record of samples of every rollout."""

    prompts: Sequence[Asked]
    players: Players
    settings: PolicyConfig
    batch: int
    total: int
    longest: int
    packing: Packing
    seed: int
    critic: bool = False
    pretrain: Callable[[int], Sequence[TokenTree]] | None = None
    tell: Callable[[dict[str, Any]], None] = lambda record: None

    def __post_init__(self) -> None:
        self.kl = self.settings.kl or 0.0
        self._number = -1
        self._trees: list[TokenTree] = []
        self._metrics: dict[str, float] = {}

    def __len__(self) -> int:
        return self.total

    def step(self, index: int) -> Step:
        """Optimizer step `index`, drawing a rollout first when it is the first of one."""
        number, inner = divmod(index, self.settings.epochs * self.settings.minibatches)
        if number != self._number:
            self._roll(number)
        epoch, part = divmod(inner, self.settings.minibatches)
        order = seeds.generator(self.seed, "minibatch", number, epoch).permutation(len(self._trees))
        weight = {"kl_weight": self._metrics["kl_weight"]}
        chosen = sorted(np.array_split(order, self.settings.minibatches)[part])
        trees = [replace(self._trees[i], columns=weight) for i in chosen or [0]]  # of none, one that weighs nothing
        share = float(bool(chosen)) if self.settings.variant == "dapo" else len(chosen) / self.batch
        step = make_step(trees, _scaled(rule_of(self.settings, self.longest), share), self.packing)
        if self.pretrain:
            more = make_step(self.pretrain(index), RULES["token"], self.packing)
            step = replace(step, micro=step.micro + more.micro)
        return replace(step, metrics=self._metrics)

    def state(self) -> dict[str, Any]:
        """The rollout under way, as JSON."""
        trees = [
            {"row": t.row, "prompt": t.nodes[0].ids, "answers": [n.ids for n in t.nodes[1:]], **_lists(t)}
            for t in self._trees
        ]
        return {"number": self._number, "kl": self.kl, "trees": trees, "metrics": self._metrics}

    def load(self, saved: dict[str, Any]) -> None:
        """Take up a rollout that `state` gave."""
        self._number, self.kl, self._metrics = saved["number"], saved["kl"], saved["metrics"]
        self._trees = [
            replace(_tree(tuple(t["prompt"]), t["answers"], t["row"]), target_columns=t["targets"])
            for t in saved["trees"]
        ]

    def _roll(self, number: int) -> None:
        asked, drawn, totals, parts, rounds = self._draw(number)
        trees = [_tree(a.ids, [d.ids for d in group], a.row) for a, group in zip(asked, drawn, strict=True)]
        lengths = [[len(d.ids) for d in group] for group in drawn]
        own, reference = self.players.policy, self.players.reference(trees)
        policy = own(trees) if own else [[list(d.logp) for d in group] for group in drawn]
        apart = [
            [np.array(p) - np.array(r) for p, r in zip(*both, strict=True)]
            for both in zip(policy, reference, strict=True)
        ]
        columns: list[dict[str, list[list[float]]]] = [
            {"old_logp": p, "reference": r} for p, r in zip(policy, reference, strict=True)
        ]
        told = self._advantages(trees, totals, apart, columns)
        learnt = self.settings.kl_in == "loss" and self.kl > 0  # then the divergence teaches, whatever the rewards
        flat = [all(x == 0 for leaf in column["advantage"] for x in leaf) and not learnt for column in columns]
        keep = [i for i, nothing in enumerate(flat) if not nothing] or [0]
        self._trees = [replace(trees[i], target_columns=_joined(columns[i])) for i in keep]
        every = [x for group in totals for x in group]
        drift = [float(leaf.sum()) for tree in apart for leaf in tree]
        self._number = number
        self._metrics = {
            "reward": fmean(every),
            **{f"reward/{name}": fmean(x for group in values for x in group) for name, values in parts.items()},
            "kl_per_answer": fmean(drift), "kl_weight": self.kl,
            "length": fmean(x for group in lengths for x in group),
            "ended": fmean(d.ended == "stop" for group in drawn for d in group),
            "groups_skipped": sum(flat) / len(flat), "equal_rewards": _equal(totals), "rounds": rounds, **told,
        }  # fmt: skip
        self._steer(fmean(drift), len(every))
        best = max(range(len(drawn[0])), key=lambda i: totals[0][i])
        self.tell({"rollout": number, "row": asked[0].row, "answer": drawn[0][best].text, "reward": totals[0][best]})

    def _draw(
        self, number: int
    ) -> tuple[list[Asked], list[list[Drawn]], list[list[float]], dict[str, list[list[float]]], int]:
        """The rollout's prompts with their answers and rewards. dapo draws more prompts, up to four times as many, in
        the place of groups whose answers all got the same (Yu et al. 2025)."""
        count = self.batch * self.settings.minibatches
        asked: list[Asked] = []
        drawn: list[list[Drawn]] = []
        totals: list[list[float]] = []
        parts: dict[str, list[list[float]]] = {}
        for round_ in range(4):
            places = range((4 * number + round_) * count, (4 * number + round_ + 1) * count)
            if self.settings.variant != "dapo":
                places = range(number * count, (number + 1) * count)
            new = [
                self.prompts[i]
                for i in chosen_places(self.seed, "prompts", len(self.prompts), places.start, places.stop)
            ]
            answers = self.players.answers(new, seeds.derive(self.seed, "rollout", number, round_))
            got, by_part = self.players.rewards(new, answers)
            use = list(range(len(new)))
            if self.settings.variant == "dapo":
                use = [i for i in use if max(got[i]) > min(got[i])][: count - len(asked)] or (
                    [0] if round_ == 3 and not asked else []
                )
            asked += [new[i] for i in use]
            drawn += [answers[i] for i in use]
            totals += [got[i] for i in use]
            for name, values in by_part.items():
                parts.setdefault(name, []).extend(values[i] for i in use)
            if self.settings.variant != "dapo" or len(asked) == count:
                break
        return asked, drawn, totals, parts, round_ + 1

    def _advantages(
        self,
        trees: Sequence[TokenTree],
        totals: list[list[float]],
        apart: list[list[Any]],
        columns: list[dict[str, Any]],
    ) -> dict[str, float]:
        """Put the column `advantage`, and for a critic `return` and `old_value`, on every tree."""
        if self.critic:
            return self._with_critic(trees, totals, apart, columns)
        s = self.settings
        told: dict[str, float] = {}
        in_reward = s.kl_in == "reward" and self.kl > 0
        rewards = [
            [
                r - self.kl * float(_estimate(d, s.kl_estimator or "k1").sum()) * in_reward
                for r, d in zip(*both, strict=True)
            ]
            for both in zip(totals, apart, strict=True)
        ]
        if s.variant == "reinforce++":
            tokens = [
                [
                    _at_end(len(d), r) - self.kl * in_reward * _estimate(d, s.kl_estimator or "k1")
                    for r, d in zip(*both, strict=True)
                ]
                for both in zip(totals, apart, strict=True)
            ]
            flat = whitened([returns(leaf, 1.0) for tree in tokens for leaf in tree])
            at = iter(flat)
            for tree, column in zip(tokens, columns, strict=True):
                column["advantage"] = [next(at).tolist() for _ in tree]
            return told
        for group, leaves, column in zip(rewards, apart, columns, strict=True):
            alone = s.variant == "rloo"
            values = leave_one_out(group) if alone else group_relative(group, scale=s.variant != "dr_grpo")
            column["advantage"] = [[value] * len(leaf) for value, leaf in zip(values, leaves, strict=True)]
        return told

    def _with_critic(
        self,
        trees: Sequence[TokenTree],
        totals: list[list[float]],
        apart: list[list[Any]],
        columns: list[dict[str, Any]],
    ) -> dict[str, float]:
        s = self.settings
        assert self.players.values
        values = [[np.array(leaf) for leaf in tree] for tree in self.players.values(trees)]
        found, targets = [], []
        for group, leaves, states in zip(totals, apart, values, strict=True):
            for total, d, v in zip(group, leaves, states, strict=True):
                reward = _at_end(len(d), total)
                if s.kl_in == "reward":
                    reward = reward - self.kl * _estimate(d, s.kl_estimator or "k1")
                found.append(gae(reward, v, s.gamma, s.lam))
                targets.append(found[-1] + v)
        told = {
            "explained_variance": explained_variance(
                np.concatenate([v for t in values for v in t]), np.concatenate(targets)
            )
        }
        at = iter(zip(whitened(found) if s.whiten else found, targets, strict=True))
        for states, column in zip(values, columns, strict=True):
            pairs = [next(at) for _ in states]
            column["advantage"] = [advantage.tolist() for advantage, _ in pairs]
            column["return"] = [target.tolist() for _, target in pairs]
            column["old_value"] = [v.tolist() for v in states]
        return told

    def _steer(self, drift: float, answers: int) -> None:
        """Raise the weight of the divergence when it is above the target, lower it below (Ziegler et al. 2019)."""
        if self.settings.kl_target:
            error = min(0.2, max(-0.2, drift / self.settings.kl_target - 1))
            self.kl *= 1 + 0.1 * error * min(1.0, answers / 64)


def _equal(totals: Sequence[Sequence[float]]) -> float:
    """The share of the prompts whose answers all got one reward; with one answer a prompt, whether all prompts' did."""
    groups = totals if len(totals[0]) > 1 else [[x for group in totals for x in group]]
    return fmean(max(group) == min(group) for group in groups)


def _tree(prompt: Sequence[int], answers: Sequence[Sequence[int]], row: int) -> TokenTree:
    root = Node(tuple(prompt), (False,) * len(prompt))
    leaves = tuple(Node(tuple(ids), (True,) * len(ids), 0) for ids in answers)
    return TokenTree((root, *leaves), row=row)


def _joined(columns: dict[str, list[list[float]]]) -> dict[str, list[float]]:
    """Values by leaf -> values by trained token."""
    return {name: [value for leaf in leaves for value in leaf] for name, leaves in columns.items()}


def _scaled(rule: Rule, share: float) -> Rule:
    """The rule with its weights times `share`: what answers that were left out would have weighed is not given to
    the others."""
    return lambda trees: [[share * weight for weight in row] for row in rule(trees)]


def with_defaults(settings: PolicyConfig, critic: bool) -> PolicyConfig:
    """The settings with what is left open filled in by method and variant."""
    variant = "ppo" if critic else settings.variant
    inside = "reward" if variant in ("ppo", "rloo", "reinforce++") else "loss"
    usual = {"kl": 0.05 if critic else 0.0, "kl_in": inside, "clip_high": 0.28 if variant == "dapo" else None}
    return settings.model_copy(update={k: v for k, v in usual.items() if getattr(settings, k) is None})


def _lists(tree: TokenTree) -> dict[str, Any]:
    return {"targets": {name: list(values) for name, values in tree.target_columns.items()}}


def _at_end(count: int, reward: float) -> Any:
    out = np.zeros(count)
    out[-1] = reward
    return out


def _estimate(apart: Any, estimator: str) -> Any:
    """KL estimates from d' = log pi - log pi_ref: see `policy.divergence`."""
    if estimator == "k1":
        return apart
    return 0.5 * apart**2 if estimator == "k2" else np.exp(-apart) + apart - 1
