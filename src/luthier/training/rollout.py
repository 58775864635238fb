"""Online step source: prompts -> samples of the current policy -> rewards -> advantages -> optimizer steps.

    rollout r     batch x minibatches prompts, `samples` answers each, drawn at the weights before its first step
    step i        minibatch of a pass over its rollout: (rollout, pass, minibatch) = i in mixed radix

What a rollout needs of models it gets as plain functions of trees, so nothing here knows how many models there are
or what they share. A rollout is saved with a checkpoint: in the middle of its passes it cannot be drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any, Protocol

import numpy as np

from luthier.config.rewards import PolicyConfig
from luthier.core import seeds
from luthier.core.errors import InputError
from luthier.core.types.batch import Step
from luthier.core.types.trees import Node, TokenTree
from luthier.methods.advantages import Moments, Numbers
from luthier.methods.variants import CLIP, PPO, VARIANTS, Variant
from luthier.text.loss_weights import RULES, Rule, fixed_length
from luthier.training import credit
from luthier.training.best_and_worst import best_and_worst
from luthier.training.rollout_metrics import draw_metrics
from luthier.training.steps import Packing, chosen_places, make_step

REFERENCE_EVERY = 4  # of so many prompts one is read by the reference where only the curve of the divergence needs it

Columns = list[list[list[float]]]  # tree -> leaf -> one number per token
PerToken = Callable[[Sequence[TokenTree]], Columns]


class RolloutSample(Protocol):
    """A sampled answer: its ids, the stop token included, log p of each under the model itself, its text, and how it
    ended."""

    ids: tuple[int, ...]
    logp: tuple[float, ...]
    text: str
    ended: str


SampleGroups = list[list[RolloutSample]]  # prompt -> its samples
RewardGroups = list[list[float]]  # prompt -> a number for each of its samples


@dataclass(frozen=True)
class RolloutPrompt:
    """A prompt with its token ids and the row it came from."""

    ids: tuple[int, ...]
    row: int


# prompts, samples, rewards, their parts by name, metrics of all that was sampled
Draw = tuple[list[RolloutPrompt], SampleGroups, RewardGroups, dict[str, float]]


@dataclass(frozen=True)
class RolloutModels:
    """What a rollout asks of the models.

    answers    (prompts, seed) -> samples of each prompt
    rewards    (rows, samples of each) -> totals of each, and their parts by name
    policy     log p of each answer token under the policy now; None where those that sampling gave are exact enough
    learning   the same, read in the micro-batches of the step that learns from exactly these trees
    reference  the same under the starting model
    values     the critic's value before each answer token; None without a critic

    In 16 bits two packings of the same tokens round differently, which over a whole answer is more than a clip allows:
    the ratio of a step is taken between readings of one packing, the divergence between readings of another.
    """

    answers: Callable[[Sequence[RolloutPrompt], int], SampleGroups]
    rewards: Callable[[Sequence[RolloutPrompt], SampleGroups], tuple[RewardGroups, dict[str, RewardGroups]]]
    policy: PerToken | None
    reference: PerToken
    values: PerToken | None = None
    learning: PerToken | None = None


def rule_of(settings: PolicyConfig, longest: int, critic: bool = False) -> Rule:
    """How the tokens of a step become one mean: over answers (grpo, rloo, gspo), over tokens (dapo, and ppo and
    reinforce++, whose advantages have mean 0 over tokens), or over answers of the longest length (dr_grpo)."""
    over = _variant(settings, critic).mean
    return partial(fixed_length, length=longest) if over == "longest" else RULES[over]


@dataclass
class Rollouts:
    """Steps drawn from the policy as it learns. `log_sample` gets records of the best and the worst answers of every rollout."""

    prompts: Sequence[RolloutPrompt]
    models: RolloutModels
    settings: PolicyConfig
    batch: int
    total: int
    longest: int
    packing: Packing
    seed: int
    critic: bool = False
    mask: bool = False  # whether nothing is learned from answers that were cut
    pretrain: Callable[[int], Sequence[TokenTree]] | None = None
    log_sample: Callable[[dict[str, Any]], None] = lambda record: None

    def __post_init__(self) -> None:
        self.kl = self.settings.kl or 0.0
        self.moments = Moments()  # of all rewards so far
        self._number = -1
        self._trees: list[TokenTree] = []
        self._metrics: dict[str, float] = {}

    def __len__(self) -> int:
        return self.total

    def step(self, index: int) -> Step:
        """Optimizer step `index`, drawing a rollout first when it is the first of one."""
        number, inner = divmod(index, self.steps_per_rollout)
        if number != self._number:
            self._sample_rollout(number)
        epoch, place = divmod(inner, self.settings.minibatches)
        turn = seeds.generator(self.seed, "minibatch", number, epoch).permutation(self.settings.minibatches)
        chosen = self._minibatches()[turn[place]]
        weight = {"kl_weight": self._metrics["kl_weight"]}
        trees = [replace(self._trees[i], columns=weight) for i in chosen or [0]]  # of none, one that weighs nothing
        alone = _variant(self.settings, self.critic).renormalizes
        share = float(bool(chosen)) if alone else len(chosen) / self.batch
        step = make_step(trees, _scaled(rule_of(self.settings, self.longest, self.critic), share), self.packing)
        if self.pretrain:
            more = make_step(self.pretrain(index), RULES["token"], self.packing)
            step = replace(step, micro=step.micro + more.micro)
        return replace(step, metrics=self._metrics)

    def state(self, step: int) -> dict[str, Any]:
        """`rollout`: the one under way, which in the middle of its passes cannot be drawn again."""
        trees = [
            {
                "row": t.row,
                "prompt": t.nodes[0].ids,
                "answers": [n.ids for n in t.nodes[1:]],
                "masked": [not any(n.trained) for n in t.nodes[1:]],
                "targets": {name: list(values) for name, values in t.target_columns.items()},
            }
            for t in self._trees
        ]
        under_way = {
            "number": self._number,
            "kl": self.kl,
            "moments": asdict(self.moments),
            "trees": trees,
            "metrics": self._metrics,
        }
        return {"rollout": under_way}

    def confirm(self, saved: Mapping[str, Any]) -> None:
        """Nothing to do: the lineage has the hashes of its files."""

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take up a rollout that `state` gave. Raises InputError for one of ppo of before rewards were normalised."""
        saved = saved["rollout"]
        if self.critic and "moments" not in saved:
            raise InputError(
                "this ppo run was begun by a version that did not normalize rewards, so it cannot resume exactly",
                fix="give another --out to start over",
            )
        self._number, self.kl, self._metrics = saved["number"], saved["kl"], saved["metrics"]
        self.moments = Moments(**saved.get("moments", {}))
        self._trees = [
            replace(_tree(tuple(t["prompt"]), t["answers"], t["row"], t.get("masked", ())), target_columns=t["targets"])
            for t in saved["trees"]
        ]

    @property
    def steps_per_rollout(self) -> int:
        """The optimizer steps that learn from one rollout."""
        return self.settings.epochs * self.settings.minibatches

    def _minibatches(self) -> list[list[int]]:
        """The trees of each minibatch, by index: the same in every pass, which takes them in an order of its own."""
        order = seeds.generator(self.seed, "minibatches", self._number).permutation(len(self._trees))
        return [sorted(part.tolist()) for part in np.array_split(order, self.settings.minibatches)]

    def _sample_rollout(self, number: int) -> None:
        prompts, samples, totals, drawn = self._draw(number)
        trees = [_tree(a.ids, [d.ids for d in group], a.row) for a, group in zip(prompts, samples, strict=True)]
        lengths = [[len(d.ids) for d in group] for group in samples]
        log_ratios, reference = self._log_ratios(trees, samples)
        in_reward = bool(reference) and self.settings.kl_in == "reward"  # the divergence, of the reward
        learned = [[not self.mask or d.ended == "stop" for d in group] for group in samples]
        columns, credit_metrics = self._credit(trees, totals, lengths, log_ratios if in_reward else None, learned)
        for column, read in zip(columns, reference, strict=False):
            column["reference"] = read
        in_loss = bool(reference) and not in_reward  # then the divergence teaches, whatever the rewards
        skipped = [
            not (in_loss or self.critic) and all(x == 0 for leaf in column["advantage"] for x in leaf)
            for column in columns
        ]
        used = [i for i, nothing in enumerate(skipped) if not nothing] or [0]
        self._number = number
        self._trees = [self._with_columns(prompts[i], samples[i], columns[i]) for i in used]
        if self.steps_per_rollout > 1:
            self._store_old_logp([samples[i] for i in used])
        per_answer = [float(leaf.sum()) for tree in log_ratios for leaf in tree]
        self._metrics = {
            "rollout": number, **drawn, "kl_per_answer": fmean(per_answer), "kl_weight": self.kl,
            "groups_skipped": sum(skipped) / len(skipped), **credit_metrics,
        }  # fmt: skip
        self._adapt_kl(fmean(per_answer), sum(map(len, samples)))
        for record in best_and_worst([a.row for a in prompts], samples, totals):
            self.log_sample({"rollout": number, **record})

    def _log_ratios(self, trees: Sequence[TokenTree], samples: SampleGroups) -> tuple[list[list[Numbers]], Columns]:
        """log pi - log pi_ref of the answers' tokens, and log pi_ref where something learns from it. Where nothing does, of
        some prompts only: for the curve."""
        needed = self.kl > 0
        if not needed:
            trees, samples = trees[::REFERENCE_EVERY], samples[::REFERENCE_EVERY]
        reference = self.models.reference(trees)
        own = self.models.policy
        policy = own(trees) if own else [[list(d.logp) for d in group] for group in samples]
        log_ratios = [
            [np.array(p) - np.array(r) for p, r in zip(*both, strict=True)]
            for both in zip(policy, reference, strict=True)
        ]
        return log_ratios, reference if needed else []

    def _store_old_logp(self, samples: SampleGroups) -> None:
        """Put log p at the time of sampling on the trees, as the steps that learn from them will read it: a rollout that
        gets one step has no need of it, there the policy is still the one that sampled."""
        for part in self._minibatches():
            trees = [self._trees[i] for i in part]
            read = self.models.learning
            old = read(trees) if read and trees else [[list(d.logp) for d in self._unmasked(samples[i])] for i in part]
            for i, leaves in zip(part, old, strict=True):
                columns = {**self._trees[i].target_columns, "old_logp": [x for leaf in leaves for x in leaf]}
                self._trees[i] = replace(self._trees[i], target_columns=columns)

    def _with_columns(
        self, prompt: RolloutPrompt, samples: Sequence[RolloutSample], column: credit.Column
    ) -> TokenTree:
        """A prompt and its answers with the columns of those that are learned from; the others weigh nothing."""
        masked = [self.mask and d.ended != "stop" for d in samples]
        values = {
            name: [x for leaf, hidden in zip(leaves, masked, strict=True) if not hidden for x in leaf]
            for name, leaves in column.items()
        }
        return replace(_tree(prompt.ids, [d.ids for d in samples], prompt.row, masked), target_columns=values)

    def _unmasked(self, samples: Sequence[RolloutSample]) -> list[RolloutSample]:
        return [d for d in samples if not (self.mask and d.ended != "stop")]

    def _credit(
        self, trees: Sequence[TokenTree], totals: RewardGroups, lengths: list[list[int]],
        log_ratios: list[list[Numbers]] | None, learned: Sequence[Sequence[bool]],
    ) -> tuple[list[credit.Column], dict[str, float]]:  # fmt: skip
        """The columns that rewards become, and what is told of them."""
        if not self.critic:
            return credit.of_groups(totals, lengths, log_ratios, self.kl, self.settings), {}
        metrics = {}
        if self.settings.normalize:
            self.moments = self.moments.joined([x for group in totals for x in group])
            totals = [[self.moments.scaled(x) for x in group] for group in totals]
            metrics = {"reward_running_mean": self.moments.mean, "reward_running_deviation": self.moments.deviation}
        assert self.models.values
        values = [[np.array(leaf) for leaf in tree] for tree in self.models.values(trees)]
        columns, explained = credit.of_critic(totals, lengths, log_ratios, self.kl, values, self.settings, learned)
        return columns, metrics | {"explained_variance": explained}

    def _draw(self, number: int) -> Draw:
        """The rollout's prompts with their answers and rewards, and what is told of all that was drawn.

        dapo draws more prompts, up to four times as many, in the place of groups whose answers all got the same (Yu et al. 2025).
        """
        count = self.batch * self.settings.minibatches
        draws_again = _variant(self.settings, self.critic).draws_again
        prompts: list[RolloutPrompt] = []
        samples: SampleGroups = []
        totals: RewardGroups = []
        all_samples: SampleGroups = []
        all_rewards: RewardGroups = []
        all_parts: dict[str, RewardGroups] = {}
        for round_ in range(4):
            places = range((4 * number + round_) * count, (4 * number + round_ + 1) * count)
            if not draws_again:
                places = range(number * count, (number + 1) * count)
            new = [
                self.prompts[i]
                for i in chosen_places(self.seed, "prompts", len(self.prompts), places.start, places.stop)
            ]
            answers = self.models.answers(new, seeds.derive(self.seed, "rollout", number, round_))
            rewards, by_part = self.models.rewards(new, answers)
            all_samples += answers
            all_rewards += rewards
            for name, values in by_part.items():
                all_parts.setdefault(name, []).extend(values)
            chosen = list(range(len(new)))
            if draws_again:
                chosen = [i for i in chosen if max(rewards[i]) > min(rewards[i])][: count - len(prompts)] or (
                    [0] if round_ == 3 and not prompts else []
                )
            prompts += [new[i] for i in chosen]
            samples += [answers[i] for i in chosen]
            totals += [rewards[i] for i in chosen]
            if not draws_again or len(prompts) == count:
                break
        drawn = draw_metrics(all_samples, all_rewards, all_parts)
        return prompts, samples, totals, drawn | {"rounds": round_ + 1}

    def _adapt_kl(self, drift: float, answers: int) -> None:
        """Raise the weight of the divergence when it is above the target, lower it below (Ziegler et al. 2019)."""
        if self.settings.kl_target:
            error = min(0.2, max(-0.2, drift / self.settings.kl_target - 1))
            self.kl *= 1 + 0.1 * error * min(1.0, answers / 64)


def _tree(prompt: Sequence[int], answers: Sequence[Sequence[int]], row: int, masked: Sequence[bool] = ()) -> TokenTree:
    root = Node(tuple(prompt), (False,) * len(prompt))
    learned = [not hidden for hidden in masked] or [True] * len(answers)
    leaves = tuple(Node(tuple(ids), (learn,) * len(ids), 0) for ids, learn in zip(answers, learned, strict=True))
    return TokenTree((root, *leaves), row=row)


def _scaled(rule: Rule, share: float) -> Rule:
    """The rule with its weights times `share`: what answers that were left out would have weighed is not given to
    the others."""
    return lambda trees: [[share * weight for weight in row] for row in rule(trees)]


def _variant(settings: PolicyConfig, critic: bool) -> Variant:
    return PPO if critic else VARIANTS[settings.variant]


def with_defaults(settings: PolicyConfig, critic: bool) -> PolicyConfig:
    """The settings with what is left open filled in by method and variant."""
    row = _variant(settings, critic)
    # A clip of other measure that was asked for is as wide above 1 as below.
    high = settings.clip_high if settings.clip is not None and row.clip != CLIP else row.clip_high
    usual = {"kl": row.kl, "kl_in": row.kl_in, "clip": row.clip, "clip_high": high}
    return settings.model_copy(update={k: v for k, v in usual.items() if getattr(settings, k) is None})
