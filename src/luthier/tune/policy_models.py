"""The models that learning from rewards takes, and what each does in a rollout.

    actor       the model under training                 critic     its own adapter and value head (ppo)
    reference   the actor as it was before the first step  reward     rules, functions, or a reward model

With adapters they share one frozen base and differ in what the model plays, the reward model where its adapter was made
for that very base; with full tuning each is a model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn

from luthier.config.run import RunConfig
from luthier.core.errors import InputError, Stopped
from luthier.core.storage.files import sha256
from luthier.core.types.batch import Batch, Needs, Output
from luthier.core.types.examples import Chat, Message, Prompt, Text
from luthier.core.types.trees import TokenTree
from luthier.data import load as data_load
from luthier.data.paths import files_of
from luthier.evals.forgetting import divergence
from luthier.generate.generate import generate
from luthier.generate.request import Sample
from luthier.generate.sampling import Sampling
from luthier.methods.variants import VARIANTS
from luthier.model.adapt import heads, roles, tune
from luthier.model.forward import DISTRIBUTION_TOKENS, distributions, forward
from luthier.rewards.answer import Answer
from luthier.rewards.specs import Rewards, RewardScores, check_rules, files, models, parse
from luthier.runs.locate import ResolvedModel, resolve_model
from luthier.runs.reward_model import Scorer, fits_base, open_scorer
from luthier.text.drafts import with_system
from luthier.text.encode import encode
from luthier.training import annotate
from luthier.training.best_and_worst import excerpt
from luthier.training.method_table import method
from luthier.training.rollout import Columns, RolloutModels, RolloutPrompt, Rollouts, rule_of, with_defaults
from luthier.training.steps import Packing, chosen_places, make_step, scoring_batches

VALUE = Needs(logp=False, value=True)
Pack = Callable[[Sequence[TokenTree]], Iterable[Batch]]
NO_ROW = -1  # of trees that are none of the data's


@dataclass
class PolicyModels:
    """Who takes part. `reference` and `critic` are parts that `model` plays, or models of their own."""

    model: nn.Module
    reference: roles.Role | nn.Module
    critic: roles.Role | nn.Module | None

    def forward(self, model: nn.Module, batch: Batch, needs: Needs) -> Output:
        """What the loss needs: of the actor, and the values of the critic where the batch was sampled. Text that was not
        sampled has the likelihood of the model itself, whatever the temperature."""
        sampled = "advantage" in batch.columns
        out = forward(model, batch, replace(needs, value=False, temperature=needs.temperature if sampled else 1.0))
        if self.critic is None or not sampled:
            return out
        with self.playing(self.critic) as critic:
            return replace(out, value=forward(critic, batch, VALUE).value)

    @torch.no_grad()
    def drift(self, trees: Sequence[TokenTree], device: torch.device, stop: Callable[[], bool]) -> float:
        """Nats that an answer of the model as it is lies from the starting model: the mean over `trees`, a prompt with an answer
        each, of KL(pi | pi_ref) over the whole vocabulary, summed over the answer's tokens."""
        found = []
        for cpu_batch in scoring_batches(trees, Packing(DISTRIBUTION_TOKENS)):
            if stop():
                raise Stopped("stopped while measuring")
            batch = cpu_batch.to(device)
            policy_distributions = distributions(self.model.eval(), batch)
            with self.playing(self.reference) as reference:
                reference_distributions = distributions(reference.eval(), batch)
            answers = [batch.tree == tree for tree in range(len(batch.rows))]
            found += [divergence(policy_distributions[answer], reference_distributions[answer]) for answer in answers]
        return fmean(found)

    def playing(self, role: roles.Role | nn.Module) -> AbstractContextManager[nn.Module]:
        """The model that plays `role`."""
        return _PlayingRole(self.model, role) if isinstance(role, roles.Role) else nullcontext(role)

    def read(
        self, role: roles.Role | nn.Module, needs: Needs, trees: Sequence[TokenTree], batches: Pack, device: torch.device,
        stop: Callable[[], bool],
    ) -> Columns:  # fmt: skip
        """log p or values of the answers' tokens under `role`, without gradient, as `batches` packs the trees."""
        with self.playing(role) as model:
            training = model.training
            model.eval()

            def numbers(batch: Batch) -> torch.Tensor:
                out = forward(model, batch, needs)
                return out.logp if out.value is None else out.value

            try:
                return annotate.per_token(numbers, trees, batches, device, stop)
            finally:
                model.train(training)

    @property
    def critic_parameters(self) -> dict[str, nn.Parameter]:
        """What of the critic learns, by name."""
        if isinstance(self.critic, roles.Role):
            found = self.critic.parameters_by_name
        else:
            found = dict(self.critic.named_parameters()) if self.critic else {}
        return {f"critic.{name}": p for name, p in found.items() if p.requires_grad}


class _PlayingRole(AbstractContextManager[nn.Module]):
    def __init__(self, model: nn.Module, role: roles.Role) -> None:
        self.model, self.playing = model, roles.playing(model, role)

    def __enter__(self) -> nn.Module:
        self.playing.__enter__()
        return self.model

    def __exit__(self, *error: Any) -> None:
        self.playing.__exit__(*error)


def open_policy_models(tuned: tune.Tuned, critic: bool) -> PolicyModels:
    """Reference and critic, both as the actor is now; the critic's value head starts at zero."""
    if tune.is_adapter(tuned.kind):
        role = roles.role(tuned.model, learn=True) if critic else None
        if role:
            heads.attach(tuned.model, {"value": 1})
            role.whole["value"] = heads.on(tuned.model)["value"]
            heads.detach(tuned.model, ("value",))
        return PolicyModels(tuned.model, roles.role(tuned.model), role)
    other = copy.deepcopy(tuned.model) if critic else None
    if other:
        heads.attach(other, {"value": 1})
    return PolicyModels(tuned.model, copy.deepcopy(tuned.model).requires_grad_(False), other)


def check_rewards(config: RunConfig) -> None:
    """Raise InputError for settings of `reward`, `policy` and `rollout` that teach nothing."""
    row, s, reward = method(config.method), config.policy, config.reward
    if not row.online:
        return
    if not reward.use:
        raise InputError(
            f"{config.method} learns from rewards, and none is given", where="--reward",
            fix="give one, such as --reward exact, json, python:FILE:FUNCTION or model:runs/REWARD",
        )  # fmt: skip
    for specs in (reward.use, reward.judge):
        check_rules(specs, reward)
    if s.kl_target and not with_defaults(s, row.needs.value).kl:
        raise InputError(
            "the weight of the divergence is 0, and cannot be adjusted to a target",
            where="--policy.kl_target",
            fix="give --policy.kl 0.05",
        )
    # With a critic an answer needs no other to be compared with.
    if not row.needs.value and config.rollout.samples == 1 and not VARIANTS[s.variant].single:
        raise InputError(
            "one answer has no other to be compared with, so nothing is learned", where="--rollout.samples",
            fix="give 2 or more, or use --method ppo",
        )  # fmt: skip


def reward_digests(config: RunConfig) -> dict[str, Any]:
    """What of lineage.json's inputs rewards and general text are: hashes of their files, by name."""
    specs = (*config.reward.use, *config.reward.judge)
    rewards = {str(path): sha256(path) for path in files(specs)} | {
        run: resolve_model(run).digests() for run in models(specs)
    }
    general = {path: sha256(Path(path)) for path in files_of(config.policy.pretrain)} if config.policy.pretrain else {}
    return ({"rewards": rewards} if rewards else {}) | ({"pretrain": general} if general else {})


def open_rewards(config: RunConfig, specs: Sequence[str], model: Any, resolved: ResolvedModel, init: str) -> Rewards:
    """The rewards that `specs` name. `model` plays the reward models that it can: it starts from `resolved`, and `init`
    says how its adapter does."""
    return parse(
        specs, config.reward,
        lambda run: open_scorer(
            run, device=config.device, dtype=config.dtype,
            policy=lambda reward: model if fits_base(reward, resolved, config.tune, init) else None,
        ),
    )  # fmt: skip


def shares_policy_base(rewards: Rewards | None) -> bool:
    """Whether the model that learns plays one of these: then its base must stay as it is."""
    return rewards is not None and any(isinstance(p.component, Scorer) and p.component.role for p in rewards.parts)


def score_answers(
    rewards: Rewards, prompts: Sequence[Prompt], samples: Sequence[Sample], system: str | None
) -> RewardScores:
    """The rewards of one sample for each prompt."""
    answers = []
    for prompt, sample in zip(prompts, samples, strict=True):
        messages = with_system(prompt.messages, system)
        ended = sample.ended == "stop"
        answers.append(
            Answer(
                _question(messages),
                sample.text,
                prompt.answer,
                len(sample.ids) - ended,
                ended,
                messages,
                tools=prompt.tools,
                template_kwargs=prompt.template_kwargs,
            )  # fmt: skip
        )
    return rewards.score(answers)


def _question(messages: Sequence[Message]) -> str:
    """What was asked last."""
    return next((m for m in reversed(messages) if m.role == "user"), messages[-1]).said


def with_rewards_of_cut(rewards: Sequence[float], samples: Sequence[Sample], rule: str) -> list[float]:
    """Rewards as `reward.truncated` wants them of answers that did not come to an end."""
    if rule in ("keep", "mask"):
        return list(rewards)
    cut = 0.0 if rule == "zero" else float(rule)
    return [reward if sample.ended == "stop" else cut for reward, sample in zip(rewards, samples, strict=True)]


def count_steps(config: RunConfig, prompts: int) -> int:
    """The optimizer steps of a run: `train.epochs` passes over the prompts, each rollout learned `policy.epochs` times."""
    s, train = config.policy, config.train
    drawn = max(1, round(train.epochs * prompts / (s.minibatches * train.batch)))
    return train.steps or drawn * s.minibatches * s.epochs


def rollouts(job: Any, policy: PolicyModels, rewards: Rewards, packing: Packing, device: torch.device) -> Rollouts:
    """The step source of an online run."""
    config: RunConfig = job.config
    settings = with_defaults(config.policy, policy.critic is not None)
    r = config.rollout
    template, decode = job.texts.template, job.texts.tokenizer.decode
    score_batches = partial(scoring_batches, packing=packing)
    prompts = [RolloutPrompt(tree.nodes[0].ids, tree.row) for tree in job.encoded.train]
    total = count_steps(config, len(prompts))

    def answers(rollout_prompts: Sequence[RolloutPrompt], seed: int) -> list[list[Sample]]:
        sampling = Sampling(
            temperature=r.temperature, top_p=r.top_p, max_new_tokens=r.max_new_tokens, n=r.samples, seed=seed % 2**31,
            stop_ids=tuple(sorted(template.stop_ids)), stop=template.stops,
        )  # fmt: skip
        out = generate(
            policy.model, [a.ids for a in rollout_prompts], sampling, decode, batch=r.batch, cancelled=job.stop
        )
        if job.stop():
            raise Stopped("stopped while sampling")
        return [out[i * r.samples : (i + 1) * r.samples] for i in range(len(rollout_prompts))]

    def rewarded(
        rollout_prompts: Sequence[RolloutPrompt], groups: list[list[Sample]]
    ) -> tuple[list[list[float]], dict[str, list[list[float]]]]:
        flat = [sample for group in groups for sample in group]
        rows = [job.examples.train[a.row] for a, group in zip(rollout_prompts, groups, strict=True) for _ in group]
        found = score_answers(rewards, rows, flat, config.text.system)
        total = with_rewards_of_cut(found.total, flat, config.reward.truncated)
        return _in_groups(total, r.samples), {k: _in_groups(v, r.samples) for k, v in found.parts.items()}

    def read(
        role: roles.Role | nn.Module, needs: Needs, trees: Sequence[TokenTree], batches: Pack = score_batches
    ) -> Columns:
        return policy.read(role, needs, trees, batches, device, job.stop)

    def log_sample(record: dict[str, Any]) -> None:
        prompt = excerpt(_question(job.examples.train[record["row"]].messages))
        job.folder.append("samples.jsonl", {**record, "prompt": prompt})

    critic, logp = policy.critic, Needs(temperature=r.temperature)
    # A token at a time, 16 bits round otherwise than all at once: there the policy reads its samples again. Sampling tells
    # log p of the model itself: another temperature's is read.
    reread = r.temperature != 1 or next(policy.model.parameters()).dtype not in (torch.float32, torch.float64)
    rule = rule_of(settings, r.max_new_tokens, critic is not None)
    rollout_models = RolloutModels(
        answers=answers,  # type: ignore[arg-type]
        rewards=rewarded,  # type: ignore[arg-type]
        policy=(lambda trees: read(policy.model, logp, trees)) if reread else None,
        learning=(lambda trees: read(policy.model, logp, trees, lambda t: make_step(t, rule, packing).micro))
        if reread
        else None,
        reference=lambda trees: read(policy.reference, logp, trees),
        values=None if critic is None else lambda trees: read(critic, VALUE, trees),
    )
    return Rollouts(
        prompts, rollout_models, settings, config.train.batch, total, r.max_new_tokens, packing, config.seed,
        critic=critic is not None, mask=config.reward.truncated == "mask", pretrain=_pretrain(job), log_sample=log_sample,
    )  # fmt: skip


def _pretrain(job: Any) -> Any:
    """Step -> trees of general text, as many as the step has prompts; None where no file is given."""
    config: RunConfig = job.config
    if not config.policy.pretrain:
        return None
    loaded = data_load.load(config.policy.pretrain, config.data.of_other_rows())
    if not isinstance(loaded.examples[0], (Chat, Text)):
        raise InputError(
            f"{loaded.layout.name} rows are neither text nor conversations", where=loaded.examples[0].origin,
            fix="give --policy.pretrain files of text, or of chats",
        )  # fmt: skip
    found = encode(loaded.examples, job.texts.template, job.texts.tokenizer, config.text).trees
    trees = [replace(tree, row=NO_ROW) for tree in found]
    batch = config.train.batch
    return lambda step: [
        trees[place] for place in chosen_places(config.seed, "pretrain", len(trees), step * batch, (step + 1) * batch)
    ]


def _in_groups(values: Sequence[float], size: int) -> list[list[float]]:
    return [list(values[i : i + size]) for i in range(0, len(values), size)]
