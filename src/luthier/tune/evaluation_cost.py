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
from luthier.evals.forgetting import GENERAL_PROMPTS
from luthier.runs.method import chosen_method
from luthier.tune.build import Run, planned
from luthier.tune.evaluator import GENERAL_TOKENS
from luthier.tune.held_out import HeldOut

LEARNED, MADE = 3, 3  # times a token that is read
SHARE = 0.5  # of the training's work that measuring, before and after, may take where nobody says how much is measured
LEAST_ROWS, LEAST_SAMPLES = 32, 16  # fewer would tell nothing


@dataclass(frozen=True)
class EvaluationCost:
    """Tokens read, or as long as reading them takes: by the `training`, by one held-out `row` and by one `answer`, each once."""

    training: float
    row: float
    answer: float

    def fitting(self, rows: int | None, samples: int | None) -> tuple[int, int]:
        """How many rows and answers are measured: as asked, and where nobody asked the usual number, or fewer so that both
        measurements stay within their share of the training."""
        room = SHARE * self.training / 2
        if rows is None:
            rows = _between(LEAST_ROWS, room / 2 / self.row, EVAL_ROWS)
        if samples is None:
            samples = _between(LEAST_SAMPLES, (room - rows * self.row) / self.answer, EVAL_SAMPLES)
        return rows, samples


def _between(least: int, count: float, most: int) -> int:
    return int(max(least, min(count, most)))


def work_of(job: Run) -> EvaluationCost:
    """What this run's parts cost. Online methods sample while they train, so their training is never the shorter part."""
    trees = job.ready.train or job.ready.test  # of a stream nothing is known but what is held out
    mean = fmean(map(len, trees)) if trees else 1.0
    held_out = fmean(map(len, job.ready.test)) if job.ready.test else mean
    learned = float("inf") if chosen_method(job.config).online else planned(job) * job.config.train.batch * mean
    return EvaluationCost(LEARNED * learned, held_out, held_out + MADE * job.config.eval.max_new_tokens)


def tell_fewer(job: Run, fitting: tuple[int, int], held_out: HeldOut) -> None:
    """Say what of the held-out rows is left out, where nobody said how many are measured."""
    told, asked, there = [], job.config.eval, job.ready.counts["held_out"]
    if asked.rows is None and fitting[0] < (most := min(EVAL_ROWS, there)):
        told.append(f"the loss of {fitting[0]} held-out rows instead of {most} (--eval.rows)")
    if asked.samples is None and len(held_out.rows) == fitting[1] < (most := min(EVAL_SAMPLES, there)):
        told.append(f"{fitting[1]} answers instead of {most} (--eval.samples)")
    if told:
        log.note(f"measuring only {' and '.join(told)}, so that it takes at most half as long as this short training")


def announce(work: EvaluationCost, held_out: HeldOut, config: RunConfig, seconds: float) -> None:
    """Say how long each part takes at so many `seconds` a token that is read."""
    said = len(GENERAL_PROMPTS) * (MADE * GENERAL_TOKENS + GENERAL_TOKENS) if config.eval.forgetting else 0
    asked = sum(len(ids) + MADE * config.eval.max_new_tokens for ids in held_out.prompt_ids)
    once = log.clock(seconds * (_tokens(held_out.trees) + _tokens(held_out.texts) + asked + said))
    training = f"{log.clock(seconds * work.training)} to train, " if work.training < float("inf") else ""
    log.note(f"about {once} to measure {len(held_out.rows)} answers and the loss, {training}{once} to measure again")


def _tokens(trees: Sequence[TokenTree]) -> int:
    return sum(map(len, trees))
