"""The steps of a run: taken one by one, noted in its journals, saved in checkpoints it can go on from."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from luthier.config.training import TrainConfig
from luthier.core import log
from luthier.core.errors import DiskFull, LuthierError
from luthier.model import memory
from luthier.model.adapt.tune import without_adapter
from luthier.runs.folder import RunFolder
from luthier.training import checkpoint
from luthier.training.loop import Report
from luthier.tune import run_summary, warnings
from luthier.tune.build import (
    TrainingJob,
    TrainingSetup,
    load_checkpoint,
    load_weights,
    remaining_steps,
    trained_weights,
)
from luthier.tune.checkpoint_selection import CheckpointSelector, Progress, keeps_best
from luthier.tune.prepare import schedule
from luthier.tune.resume import best_checkpoint

SAVING_SHARE = 20  # of the time between two checkpoints that are due by the clock, saving takes a part at most


@dataclass
class LastSave:
    """When the last checkpoint was saved, and how many seconds that took."""

    at: float
    seconds: float = 0.0

    def due(self, config: TrainConfig, step: int) -> bool:
        """Whether another is due after this step: every `checkpoint` steps, or when `checkpoint_minutes` are over. Which
        steps are saved changes nothing of the result."""
        interval = max(60 * config.checkpoint_minutes, SAVING_SHARE * self.seconds)
        return step % config.checkpoint == 0 or (
            config.checkpoint_minutes > 0 and time.monotonic() - self.at >= interval
        )


def take_steps(job: TrainingJob, setup: TrainingSetup, selector: CheckpointSelector) -> Progress:
    """All remaining steps. Saves when it is due, at the end, and when asked to stop."""
    config, folder, state = job.config, job.folder, setup.state
    progress = _resume(job, setup)
    count = len(setup.steps)
    log.note(
        f"training {setup.tuned.trainable:,} weights in {count} steps of {config.train.batch} examples, "
        f"learning rate {setup.rate:g}, {schedule(config)}"
        + (f", continuing from step {state.step}" if state.step else "")
    )
    for words in without_adapter(setup.tuned.model, config.tune):
        log.note(words)
    selector.save_baseline()
    saved = LastSave(time.monotonic())
    try:
        # Stopped in the middle of an evaluation, a run has the step but not its measurement.
        progress.stopped = progress.stopped or (selector.due() and selector.evaluate(progress))
        with log.progress("training", count) as bar:
            bar.start_at(state.step)
            for report in remaining_steps(job, setup) if not progress.stopped else ():
                log_step(folder, progress, report, bar, setup.device)
                progress.stopped = selector.due() and selector.evaluate(progress)
                if progress.stopped or report.step == count or saved.due(config.train, report.step):
                    began = time.monotonic()
                    _save(job, setup, progress)
                    saved = LastSave(now := time.monotonic(), now - began)
                if job.tracker:
                    job.tracker.follow()
                if progress.stopped:
                    break
        if job.examples.stream:
            job.stream_counts.warn("rows of the stream", config)
        if 0 < state.step < count and not progress.stopped:
            log.note(f"the stream ended after {state.step} steps")
            if config.eval.every:
                selector.evaluate(progress)
            _save(job, setup, progress)
    except DiskFull:
        raise
    except LuthierError:  # stopped, a bad row late in a stream, a loss that is not finite: the weights are whole
        _save(job, setup, progress)
        raise
    folder.close_journals()
    if keeps_best(config, progress.best_step):
        load_weights(setup, checkpoint.load(best_checkpoint(folder, progress)).weights)
    return progress


def log_step(folder: RunFolder, progress: Progress, report: Report, bar: log.Bar, device: torch.device) -> None:
    """Keep a step's figures and show them."""
    progress.passed += report.passed
    progress.tokens += report.tokens
    progress.seconds += report.seconds
    progress.first = report.loss if progress.first is None else progress.first
    progress.last = report.loss
    progress.drift = report.metrics.get("kl_per_answer", 0.0)
    warnings.warn_of_rollout(report.metrics, report.step == 1)
    if report.metrics.get("rollout") != progress.rollout:  # the steps of a rollout tell the same of it
        progress.misled = warnings.warn_of_critic(report.metrics.get("explained_variance"), progress.misled)
    folder.append(
        "metrics.jsonl",
        {
            "step": report.step, "loss": report.loss, "lr": report.lr, "gradient_norm": report.norm,
            "tokens": progress.passed, "tokens_per_second": round(report.passed / report.seconds, 1),
            "memory_bytes": memory.peak(device), **report.metrics, **report.load,
        },
    )  # fmt: skip
    folder.append(
        "losses.jsonl", {"step": report.step, "rows": [[row, round(nats, 4), n] for row, nats, n in report.rows]}
    )
    bar.advance(
        1, **step_figures(progress, report),
        **{"tokens/s": f"{progress.passed / progress.seconds:.0f}"}, memory=log.size(memory.peak(device)),
    )  # fmt: skip


def step_figures(progress: Progress, report: Report) -> dict[str, str]:
    """What people watch of a step: the loss, or what its rollout was given."""
    if "reward" not in report.metrics:
        return {"loss": f"{report.loss:z.3f}"}
    if (rollout := report.metrics.get("rollout")) != progress.rollout:  # several steps learn from one
        progress.rollout = rollout
        progress.rewards = [*progress.rewards, report.metrics["reward"]][-2 * run_summary.TREND_ROLLOUTS :]
    return run_summary.rollout_figures(report.metrics, progress.rewards)


def _save(job: TrainingJob, setup: TrainingSetup, progress: Progress) -> None:
    if job.stream_counts.rows >= progress.read.get("rows", 1):
        progress.read = {"rows": job.stream_counts.rows} | job.stream_counts.as_record()
    state = {"t": setup.state.optimizer.t, "progress": vars(progress), "journals": job.folder.marks()}
    state |= {"threads": torch.get_num_threads(), **setup.steps.state(setup.state.step)}
    tensors = setup.state.optimizer.tensors()
    checkpoint.save(
        job.folder.checkpoints, setup.state.step, trained_weights(setup), tensors, state, job.config.train.keep
    )


def _resume(job: TrainingJob, setup: TrainingSetup) -> Progress:
    """Take up the checkpoint that the run goes on from, and cut the journals back to it."""
    if job.latest_checkpoint is None:
        job.folder.cut({})
        return Progress()
    saved = checkpoint.load(job.latest_checkpoint)
    load_checkpoint(setup, saved)
    job.folder.cut(saved.state["journals"])
    return Progress(**saved.state["progress"])
