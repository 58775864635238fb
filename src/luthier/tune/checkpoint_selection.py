"""What is done when a model is measured in the middle of training: keep the best weights, decide to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.types.run_result import SelectedStep
from luthier.evals.forgetting import drift
from luthier.training import checkpoint
from luthier.tune import before_after
from luthier.tune.build import TrainingJob, TrainingSetup, trained_weights
from luthier.tune.evaluator import Evaluator
from luthier.tune.held_out import HeldOut, Measured, answer_trees


@dataclass
class Progress:
    """What a run carries from step to step beside its weights; saved with every checkpoint.

    best, best_step   the lowest held-out loss (or minus the highest reward), and the step whose weights are kept
    within            the last measured step that had not lost more than `stop.forgetting`
    over              whether one had
    misled            for how many rollouts in a row the critic was worse than the mean of its targets
    rollout, rewards  the rollout that the last step learned from, and the mean rewards of the last ones
    read              of a stream, how many rows were read and what was lost of them
    """

    passed: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first: float | None = None
    last: float | None = None
    best: float | None = None
    best_step: int = 0
    worse: int = 0
    evaluated: int = 0
    stopped: bool = False
    drift: float = 0.0
    within: int = 0
    over: bool = False
    misled: int = 0
    rollout: float | None = None
    rewards: list[float] = field(default_factory=list)
    read: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckpointSelector:
    """Measures a run as it goes: `baseline` is what the untouched model gave, `metrics` the names of the metrics."""

    job: TrainingJob
    setup: TrainingSetup
    evaluator: Evaluator
    held_out: HeldOut
    baseline: Measured
    metrics: Sequence[str]

    def due(self) -> bool:
        """Whether the model is measured after the step that it is at."""
        every, step = self.job.config.eval.every, self.setup.state.step
        return bool(every and step) and (step == len(self.setup.steps) or step % every == 0)

    def save_baseline(self) -> None:
        """Keep the weights as they are before the first step, for the case that none stays within the limit."""
        if _has_limit(self.job.config) and not self.setup.state.step:
            self._save_best(0, None)

    def evaluate(self, progress: Progress) -> bool:
        """Measure (once a step), keep the best weights; True when it is time to stop."""
        step, limit = self.setup.state.step, self.job.config.stop.forgetting
        if progress.evaluated == step:
            return False
        measured = self.evaluator.measure(
            self.held_out, self.job.stop, self.baseline.retention.answers, title=f"step {step}"
        )
        forgotten = drift(self.baseline.retention.logps, logps) if (logps := measured.retention.logps) else None
        kl = self._kl_of_answers(measured)
        self._log(step, measured, forgotten, kl)
        progress.evaluated = step
        if limit is not None and forgotten is not None and forgotten > limit:
            progress.over = True
            log.note(
                f"step {step}: {forgotten:z.3f} nats/token of its own answers are lost, over {limit:g}: training stops"
            )
            return True
        progress.within = step
        return self._update_best(step, measured, forgotten, kl, progress)

    def _kl_of_answers(self, measured: Measured) -> float | None:
        """How far the answers just given lie from the starting model, for methods that learn from rewards."""
        policy_models = self.setup.policy_models
        if policy_models is None or not measured.ids:
            return None
        trees = answer_trees(list(zip(self.held_out.prompt_ids, measured.ids, strict=True)))
        return policy_models.drift(trees, self.setup.device, self.job.stop)

    def _update_best(
        self, step: int, measured: Measured, forgotten: float | None, kl: float | None, progress: Progress
    ) -> bool:
        """Keep these weights when they are the best within the limits; True when patience is over."""
        config, reward, budget = self.job.config, measured.reward, self.job.config.policy.kl_budget
        name, value = ("loss", measured.loss) if reward is None else ("reward", -reward)
        if budget and kl is not None and kl > budget:
            log.note(f"step {step}: {kl:z.3f} nats per answer from the starting model, over {budget:g}: not kept")
            return False
        if value is None:
            if config.stop.forgetting is not None:  # nothing else tells weights apart: the last within the limit
                progress.best_step = step
                self._save_best(step, None)
            return False
        if progress.best is None or value < progress.best:
            progress.best, progress.best_step, progress.worse = value, step, 0
            self._save_best(step, value)
        else:
            progress.worse += 1
        log.note(
            f"step {step}: held-out {name} {abs(value):.4f}"
            + (f", best {abs(progress.best):.4f} at step {progress.best_step}" if progress.worse else "")
            + (f", lost {forgotten:z.3f} nats/token of its own answers" if forgotten is not None else "")
        )
        return bool(config.eval.patience) and progress.worse >= config.eval.patience

    def _save_best(self, step: int, loss: float | None) -> None:
        folder = self.job.folder.checkpoints / "best"
        checkpoint.write(folder, trained_weights(self.setup), {}, {"step": step, "eval_loss": loss})

    def _log(self, step: int, measured: Measured, forgotten: float | None, kl: float | None) -> None:
        """The line of metrics.jsonl, and a few answers."""
        reward, folder = measured.reward, self.job.folder
        record: dict[str, Any] = {"step": step}
        record |= {"eval_loss": measured.loss} if reward is None else {"eval_reward": reward}
        if reward is not None:
            record["eval_kl_per_answer"] = kl
            if "judge" in measured.scored[0]:
                record["eval_judge"] = sum(row["judge"] for row in measured.scored) / len(measured.scored)
        if forgotten is not None:
            record["forgetting"] = forgotten
        if measured.answers:
            for name, values in before_after.scores(self.held_out, measured, self.metrics, self.job.config).items():
                record[name] = sum(values) / len(values)
            for prompt, answer in list(zip(self.held_out.prompts, measured.answers, strict=True))[:5]:
                folder.append("samples.jsonl", {"step": step, "prompt": prompt, "answer": answer})
        folder.append("metrics.jsonl", record)


def keeps_best(config: RunConfig, best_step: int) -> bool:
    """Whether the weights of a best step are kept in a checkpoint of their own."""
    return bool(best_step) or _has_limit(config)


def _has_limit(config: RunConfig) -> bool:
    return config.stop.forgetting is not None or bool(config.policy.kl_budget)


def selected_step(config: RunConfig, progress: Progress, steps: int, *, online: bool) -> SelectedStep:
    """Which step's weights a run keeps, and why."""
    limit, budget = config.stop.forgetting, config.policy.kl_budget
    best = f"best held-out {'reward' if online else 'loss'}" if progress.best is not None else "last"
    if limit is None and (progress.best_step or not budget):
        return {"step": progress.best_step or steps, "why": best}
    if not progress.best_step:
        why = f"forgetting was over {limit:g} at step {progress.evaluated}" if progress.over else ""
        return {"step": 0, "why": f"the start: {why or 'no step stayed within --policy.kl_budget'}"}
    within = f" until step {progress.within}" if progress.over else ""
    return {"step": progress.best_step, "why": f"{best}; forgetting stayed under {limit:g}{within}"}
