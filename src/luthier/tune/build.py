"""What trains: the loaded model, what of it learns, who takes part, the optimizer and the steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from luthier.config.run import RunConfig
from luthier.core import log, seeds
from luthier.core.errors import InputError
from luthier.core.stop import Stop
from luthier.core.types.examples import Prompt
from luthier.core.types.trees import TokenTree
from luthier.methods.balance import balanced
from luthier.model import load as model_load
from luthier.model.adapt import adapters, heads, lora, tune
from luthier.model.forward import forward
from luthier.model.layers.recompute import recompute_blocks
from luthier.model.memory import pass_tokens
from luthier.rewards.selection import require_references
from luthier.rewards.specs import Rewards
from luthier.runs.folder import RunFolder
from luthier.runs.method import chosen_method
from luthier.runs.rows import Examples
from luthier.runs.tokenizer_and_template import TextFormat
from luthier.runs.tracking import Tracker
from luthier.text.loss_weights import RULES
from luthier.training import annotate, checkpoint
from luthier.training.loop import Report, State, Steps, train
from luthier.training.optim import Optimizer
from luthier.training.steps import OfflineSteps, Packing, StreamSteps
from luthier.tune.evaluator import loss_of
from luthier.tune.policy_models import PolicyModels, count_steps, open_policy_models, open_rewards, rollouts
from luthier.tune.prepare import (
    EncodedData,
    RowCounts,
    continues_adapter,
    learning_rate,
    load_model,
    lora_settings,
    schedule,
)
from luthier.tune.streaming import stream_trees


@dataclass
class TrainingJob:
    """A run under way: its folder, settings and parts."""

    config: RunConfig
    folder: RunFolder
    examples: Examples
    texts: TextFormat
    encoded: EncodedData
    stop: Stop
    rewards: Rewards | None = None
    judge: Rewards | None = None
    tracker: Tracker | None = None
    recompute: bool = False  # whether blocks are recomputed in the backward pass
    latest_checkpoint: Path | None = None  # the checkpoint that the run goes on from
    stream_counts: RowCounts = field(default_factory=RowCounts)  # of a stream: of the pass over it that came furthest

    def count(self, counts: RowCounts) -> None:
        """Take note of how far a stream was read."""
        if counts.rows >= self.stream_counts.rows:
            self.stream_counts = counts

    def close_rewards(self) -> None:
        """End the processes of rewards, and let go of the models they hold."""
        for rewards in (self.rewards, self.judge):
            if rewards:
                rewards.close()
        self.rewards = self.judge = None


@dataclass
class TrainingSetup:
    """What trains: the loaded model, what of it learns, the optimizer, the steps."""

    loaded: model_load.LoadedModel
    tuned: tune.Tuned
    state: State
    steps: Steps
    rate: float
    device: torch.device
    policy_models: PolicyModels | None = None


def assemble(job: TrainingJob, loaded: model_load.LoadedModel | None = None) -> TrainingSetup:
    """Make a model ready to train as this run trains it, at step 0."""
    config = job.config
    loaded = loaded or load_model(job.texts, config)
    device = next(loaded.model.parameters()).device
    seeds.seed_torch(config.seed, "adapter")
    shape = lora_settings(job.texts, config)
    if continues_adapter(job.texts, config):
        lora.detach(loaded.model)
    method = chosen_method(config)
    head_widths = heads.widths(replace(method.needs, value=False))  # the critic has a value head of its own
    if job.texts.new_tokens and config.tune != "full" and not tune.is_adapter(config.tune):
        log.warn(
            f"--tune {config.tune} may leave the rows of the new tokens untrained: full, lora and qlora train them"
        )
    tuned = tune.prepare(loaded.model, config.tune, shape, config.quant, head_widths)
    if continues_adapter(job.texts, config) and job.texts.resolved.adapter:
        adapters.go_on(loaded.model, job.texts.resolved.adapter)
    if job.recompute:
        recompute_blocks(tuned.model)
    policy_models = open_policy_models(tuned, method.needs.value) if method.online else None
    if policy_models:
        tuned = replace(tuned, parameters=tuned.parameters | policy_models.critic_parameters)
    rates = {name: config.lora.lr_ratio for name in tuned.parameters if name.endswith(".B")}
    rates |= {n: rates.get(n, 1.0) * config.policy.critic_lr for n in tuned.parameters if n.startswith("critic.")}
    home = torch.device("cpu") if config.train.offload == "optimizer" else None
    state = State(tuned.model, Optimizer(tuned.parameters, config.train, rates, home))
    rate = learning_rate(config, loaded.config.get_text_config().hidden_size)
    packing = packing_of(config, loaded.model)
    if policy_models:
        rewards = job.rewards or _open_rewards(job, loaded.model, shape.init)
        steps: Steps = rollouts(job, policy_models, rewards, packing, device)
    else:
        steps = _steps(job, packing)
    return TrainingSetup(loaded, tuned, state, steps, rate, device, policy_models)


def _open_rewards(job: TrainingJob, model: Any, init: str) -> Rewards:
    """Open the rewards to learn from and those that only measure; return the former."""
    opening = partial(open_rewards, job.config, model=model, resolved=job.texts.resolved, init=init)
    job.rewards = opening(job.config.reward.use)
    job.judge = opening(job.config.reward.judge) if job.config.reward.judge else None
    prompts = [e for e in (*job.examples.train, *job.examples.test) if isinstance(e, Prompt)]
    for rewards in filter(None, (job.rewards, job.judge)):
        require_references(rewards, [(prompt.answer, prompt.origin) for prompt in prompts])
    return job.rewards


def add_reference_logps(
    job: TrainingJob, setup: TrainingSetup, packing: Packing, held_out: Sequence[TokenTree]
) -> list[TokenTree]:
    """Put the log-probabilities of the starting model on the trees that the steps take; return `held_out` with them.

    Kept in the run's folder under a hash of the tokens, so that a run that goes on does not make them again.
    """

    def score(part: Sequence[TokenTree], title: str) -> list[list[float]]:
        file = f"evals/reference-{annotate.fingerprint(part)[:16]}.jsonl"
        if (records := job.folder.records(file)) is None:
            model, device = setup.state.model, setup.device
            values = annotate.answer_logps(forward, model, part, packing, device, title, job.stop)
            job.folder.write_records(file, records := [{"logp": value} for value in values])
        return [record["logp"] for record in records]

    steps = _offline_steps(job, packing)  # such a method looks at all rows first: they are no stream
    used = steps.used()
    found = annotate.reference([steps.trees[i] for i in used], partial(score, title="reference: rows to learn from"))
    learn = list(steps.trees)
    for i, tree in zip(used, found, strict=True):
        learn[i] = tree
    setup.steps = replace(steps, trees=learn)
    return annotate.reference(held_out, partial(score, title="reference: held-out rows"))


def packing_of(config: RunConfig, model: Any) -> Packing:
    """Tokens of a micro-batch of this model."""
    parameter = next(model.parameters())
    tokens = config.train.tokens or pass_tokens(model.config, config.tune, parameter.dtype, parameter.device)
    return packing(tokens, parameter.dtype, parameter.device)


def packing(tokens: int, dtype: torch.dtype, device: torch.device) -> Packing:
    """Micro-batches of so many tokens; row lengths are padded where a new length costs a compilation: bfloat16 on a CPU."""
    slow = device.type == "cpu" and dtype == torch.bfloat16
    return Packing(tokens, 128 if slow else 1)


def _steps(job: TrainingJob, packing: Packing) -> Steps:
    return _stream_steps(job, packing) if job.examples.stream else _offline_steps(job, packing)


def _stream_steps(job: TrainingJob, packing: Packing) -> StreamSteps:
    config, live = job.config.train, job.examples.live
    read = partial(stream_trees, job.texts, job.config, live, job.examples.test, job.count)
    total = _examples_in_all(job)
    return StreamSteps(read, config.batch, total, RULES[config.weigh], packing, once=live is not None)


def _offline_steps(job: TrainingJob, packing: Packing) -> OfflineSteps:
    config, trees, replay = job.config.train, job.encoded.train, job.encoded.replay
    return OfflineSteps(
        [*trees, *replay], config.batch, _examples_in_all(job), RULES[config.weigh], packing, job.config.seed, len(replay),
        _replay_share(job),
    )  # fmt: skip


def _examples_in_all(job: TrainingJob) -> int:
    config, rows = job.config.train, len(job.encoded.train)
    return (
        config.steps * config.batch if config.steps else max(1, round(config.epochs * rows / (1 - _replay_share(job))))
    )


def _replay_share(job: TrainingJob) -> float:
    """Of general rows among all examples: the epochs are those of the data."""
    return job.config.data.replay_share if job.encoded.replay else 0.0


def planned_steps(job: TrainingJob) -> int:
    """The optimizer steps that the run is to take."""
    if chosen_method(job.config).online:
        return count_steps(job.config, len(job.encoded.train))
    return len(_steps(job, Packing(1)))


def require_same_stream(job: TrainingJob) -> None:
    """Raise InputError unless the stream's rows are those that this finished run learned from: it holds no hash of a file that
    may grow, so they are read again."""
    if saved := checkpoint.latest(job.folder.checkpoints):
        _steps(job, Packing(1)).confirm(saved.state)


def remaining_steps(job: TrainingJob, setup: TrainingSetup) -> Iterator[Report]:
    """The remaining steps, taken as they are asked for."""
    method = chosen_method(job.config)
    needs = replace(method.needs, temperature=job.config.rollout.temperature) if method.online else method.needs
    needs = replace(needs, load=True, balance=job.config.train.router_loss > 0)
    loss = loss_of(method, job.config)
    settings = job.config.train.model_copy(update={"schedule": schedule(job.config)})
    return train(
        setup.state, setup.steps, balanced(loss, job.config.train.router_loss) if needs.balance else loss,
        partial(setup.policy_models.forward if setup.policy_models else forward, needs=needs),
        settings, lr=setup.rate, seed=job.config.seed, device=setup.device, cancelled=job.stop,
        annotate=lambda model, step: annotate.baseline(forward, model, step, setup.device) if step.auxiliary else step,
        scope=method.scope,
    )  # fmt: skip


def trained_weights(setup: TrainingSetup) -> dict[str, torch.Tensor]:
    """What learns, by name."""
    return {name: parameter.detach() for name, parameter in setup.tuned.parameters.items()}


def load_checkpoint(setup: TrainingSetup, saved: checkpoint.Checkpoint) -> None:
    """Set weights, optimizer and step to those of a checkpoint."""
    load_weights(setup, saved.weights)
    setup.state.optimizer.load(saved.optimizer, saved.state["t"])
    setup.state.step = saved.state["step"]
    setup.steps.load(saved.state)


@torch.no_grad()
def load_weights(setup: TrainingSetup, saved: dict[str, torch.Tensor]) -> None:
    """Set what learns to saved weights. Raises InputError for those of another model."""
    for name, parameter in setup.tuned.parameters.items():
        if name not in saved or saved[name].shape != parameter.shape:
            raise InputError(
                f"the checkpoint's weights are not those of this model: {name} is missing or of another size",
                fix="give another --out to start over",
            )
        parameter.copy_(saved[name])
