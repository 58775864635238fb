"""The steps of a run: taken one by one, noted in its journals, saved in checkpoints it can go on from."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from luthier.config.training import TrainConfig
from luthier.core import log
from luthier.core.errors import DiskFull, LuthierError
from luthier.model import memory
from luthier.runs.folder import RunFolder
from luthier.training import checkpoint
from luthier.training.loop import Report
from luthier.tune import announce, warnings
from luthier.tune.build import Run, TrainingSetup, put, put_weights, steps_of, weights
from luthier.tune.checkpoint_selection import CheckpointSelector, Progress, keeps_best
from luthier.tune.resume import best

SHARE = 20  # of the time between two checkpoints that are due by the clock, saving takes a part at most


@dataclass
class Saved:
    """When the last checkpoint was saved, and how many seconds that took."""

    at: float
    took: float = 0.0

    def due(self, config: TrainConfig, step: int) -> bool:
        """Whether another is due after this step: every `checkpoint` steps, or when `checkpoint_minutes` are over. Which
        steps are saved changes nothing of the result."""
        wait = max(60 * config.checkpoint_minutes, SHARE * self.took)
        return step % config.checkpoint == 0 or (config.checkpoint_minutes > 0 and time.monotonic() - self.at >= wait)


def learn(job: Run, parts: TrainingSetup, watch: CheckpointSelector) -> Progress:
    """All remaining steps. Saves when it is due, at the end, and when asked to stop."""
    config, folder, state = job.config, job.folder, parts.state
    progress = _go_on(job, parts)
    count = len(parts.steps)
    log.note(
        f"training {parts.tuned.trainable:,} weights in {count} steps of {config.train.batch} examples, "
        f"learning rate {parts.rate:g}" + (f", going on from step {state.step}" if state.step else "")
    )
    watch.keep_start()
    saved = Saved(time.monotonic())
    try:
        # Stopped in the middle of an evaluation, a run has the step but not its measurement.
        progress.stopped = progress.stopped or (watch.due() and watch.look(progress))
        with log.progress("training", count) as bar:
            bar.start_at(state.step)
            for report in steps_of(job, parts) if not progress.stopped else ():
                _note(folder, progress, report, bar, parts.device)
                progress.stopped = watch.due() and watch.look(progress)
                if progress.stopped or report.step == count or saved.due(config.train, report.step):
                    began = time.monotonic()
                    _save(job, parts, progress)
                    saved = Saved(now := time.monotonic(), now - began)
                if job.tracker:
                    job.tracker.follow()
                if progress.stopped:
                    break
        if job.examples.stream:
            job.read.warn("rows of the stream", config)
        if 0 < state.step < count and not progress.stopped:
            log.note(f"the stream ended after {state.step} steps")
            if config.eval.every:
                watch.look(progress)
            _save(job, parts, progress)
    except DiskFull:
        raise
    except LuthierError:  # stopped, a bad row late in a stream, a loss that is not finite: the weights are whole
        _save(job, parts, progress)
        raise
    folder.close_journals()
    if keeps_best(config, progress.best_step):
        put_weights(parts, checkpoint.load(best(folder, progress)).weights)
    return progress


def _note(folder: RunFolder, progress: Progress, report: Report, bar: log.Bar, device: torch.device) -> None:
    """Keep a step's figures and show them."""
    progress.passed += report.passed
    progress.tokens += report.tokens
    progress.seconds += report.seconds
    progress.first = report.loss if progress.first is None else progress.first
    progress.last = report.loss
    progress.drift = report.metrics.get("kl_per_answer", 0.0)
    warnings.warn_of_rollout(report.metrics, report.step == 1)
    progress.misled = warnings.warn_of_critic(report.metrics.get("explained_variance"), progress.misled)
    folder.append(
        "metrics.jsonl",
        {
            "step": report.step, "loss": report.loss, "lr": report.lr, "gradient_norm": report.norm,
            "tokens": progress.passed, "tokens_per_second": round(report.passed / report.seconds, 1),
            "memory_bytes": memory.peak(device), **report.metrics,
        },
    )  # fmt: skip
    folder.append(
        "losses.jsonl", {"step": report.step, "rows": [[row, round(nats, 4), n] for row, nats, n in report.rows]}
    )
    bar.advance(
        1, **_figures(progress, report),
        **{"tokens/s": f"{progress.passed / progress.seconds:.0f}"}, memory=log.size(memory.peak(device)),
    )  # fmt: skip


def _figures(progress: Progress, report: Report) -> dict[str, str]:
    """What people watch of a step: the loss, or what its rollout was given."""
    if "reward" not in report.metrics:
        return {"loss": f"{report.loss:.3f}"}
    if (rollout := report.metrics.get("rollout")) != progress.rollout:  # several steps learn from one
        progress.rollout = rollout
        progress.rewards = [*progress.rewards, report.metrics["reward"]][-2 * announce.RECENT :]
    return announce.of_rollout(report.metrics, progress.rewards)


def _save(job: Run, parts: TrainingSetup, progress: Progress) -> None:
    if job.read.rows >= progress.read.get("rows", 1):
        progress.read = {"rows": job.read.rows} | job.read.lost()
    state = {"t": parts.state.optimizer.t, "progress": vars(progress), "journals": job.folder.marks()}
    state |= {"threads": torch.get_num_threads(), **parts.steps.state(parts.state.step)}
    tensors = parts.state.optimizer.tensors()
    checkpoint.save(job.folder.checkpoints, parts.state.step, weights(parts), tensors, state, job.config.train.keep)


def _go_on(job: Run, parts: TrainingSetup) -> Progress:
    """Take up the checkpoint that the run goes on from, and cut the journals back to it."""
    if job.newest is None:
        job.folder.cut({})
        return Progress()
    saved = checkpoint.load(job.newest)
    put(parts, saved)
    job.folder.cut(saved.state["journals"])
    return Progress(**saved.state["progress"])
