"""What measuring a run costs beside training it: how many held-out rows are measured where nobody says, and how long all takes.

Work is counted in tokens that are read. On two cores with SmolLM2-135M a token that is learned took 2.4 to 2.9 times as long as
one that is read, and one that is generated, 64 answers at once, 2.3 to 3.7 times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from luthier.config.evaluation import EVAL_ROWS, EVAL_SAMPLES
from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.types.trees import TokenTree
from luthier.evals.forgetting import GENERAL_PROMPTS, GENERAL_TOKENS
from luthier.runs.method import chosen_method
from luthier.tune.build import TrainingJob, planned_steps
from luthier.tune.held_out import HeldOut

LEARNED_TOKEN, GENERATED_TOKEN = 3, 3  # times a token that is read
EVALUATION_SHARE = (
    0.5  # of the training's work that measuring, before and after, may take where nobody says how much is measured
)
LEAST_ROWS, LEAST_SAMPLES = 32, 16  # fewer would tell nothing


@dataclass(frozen=True)
class EvaluationCost:
    """Tokens read, or as long as reading them takes: by the `training`, by one held-out `row` and by one `answer`, each once."""

    training: float
    row: float
    answer: float

    def sizes(self, rows: int | None, samples: int | None) -> tuple[int, int]:
        """How many rows and answers are measured: as asked, and where nobody asked the usual number, or fewer so that both
        measurements stay within their share of the training."""
        room = EVALUATION_SHARE * self.training / 2
        if rows is None:
            rows = _clamped(LEAST_ROWS, room / 2 / self.row, EVAL_ROWS)
        if samples is None:
            samples = _clamped(LEAST_SAMPLES, (room - rows * self.row) / self.answer, EVAL_SAMPLES)
        return rows, samples


def _clamped(least: int, count: float, most: int) -> int:
    return int(max(least, min(count, most)))


def estimate(job: TrainingJob) -> EvaluationCost:
    """What this run's parts cost. Online methods sample while they train, so their training is never the shorter part."""
    trees = job.encoded.train or job.encoded.test  # of a stream nothing is known but what is held out
    mean = fmean(map(len, trees)) if trees else 1.0
    held_out = fmean(map(len, job.encoded.test)) if job.encoded.test else mean
    learned = float("inf") if chosen_method(job.config).online else planned_steps(job) * job.config.train.batch * mean
    return EvaluationCost(
        LEARNED_TOKEN * learned, held_out, held_out + GENERATED_TOKEN * job.config.eval.max_new_tokens
    )


def note_fewer_rows(job: TrainingJob, sizes: tuple[int, int], held_out: HeldOut) -> None:
    """Say what of the held-out rows is left out, where nobody said how many are measured."""
    parts, settings, there = [], job.config.eval, job.encoded.counts["held_out"]
    if settings.rows is None and sizes[0] < (most := min(EVAL_ROWS, there)):
        parts.append(f"the loss of {sizes[0]} held-out rows instead of {most} (--eval.rows)")
    if settings.samples is None and len(held_out.rows) == sizes[1] < (most := min(EVAL_SAMPLES, there)):
        parts.append(f"{sizes[1]} answers instead of {most} (--eval.samples)")
    if parts:
        log.note(f"measuring only {' and '.join(parts)}, so that it takes at most half as long as this short training")


def announce(cost: EvaluationCost, held_out: HeldOut, config: RunConfig, seconds: float) -> None:
    """Say how long each part takes at so many `seconds` a token that is read."""
    general = (
        len(GENERAL_PROMPTS) * (GENERATED_TOKEN * GENERAL_TOKENS + GENERAL_TOKENS) if config.eval.forgetting else 0
    )
    prompts = sum(len(ids) + GENERATED_TOKEN * config.eval.max_new_tokens for ids in held_out.prompt_ids)
    once = log.clock(seconds * (_tokens(held_out.trees) + _tokens(held_out.general_texts) + prompts + general))
    training = f"{log.clock(seconds * cost.training)} to train, " if cost.training < float("inf") else ""
    log.note(f"about {once} to measure {len(held_out.rows)} answers and the loss, {training}{once} to measure again")


def _tokens(trees: Sequence[TokenTree]) -> int:
    return sum(map(len, trees))
