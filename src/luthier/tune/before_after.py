"""A measurement in numbers: the metrics of its answers, and the table before | after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luthier.config.run import RunConfig
from luthier.core.types.run_result import RewardModelFigures
from luthier.evals.metrics import measure_answers as score
from luthier.evals.stats.calibration import correlation, expected_calibration_error
from luthier.evals.stats.paired import before_after, paired
from luthier.tune import repeated_prompts
from luthier.tune.held_out import HeldOut, Measured


def scores(held_out: HeldOut, measured: Measured, names: Sequence[str], config: RunConfig) -> score.Scores:
    """Every metric of every answer: name -> one number per answer."""
    return score.score(measured.answers, held_out.references, held_out.prompts, names, measured.ended, config.reward)


def means(held_out: HeldOut, measured: Measured, names: Sequence[str], config: RunConfig) -> list[dict[str, Any]]:
    """The mean of each metric as a row with `before` alone; none where nothing was generated."""
    found = score.means(scores(held_out, measured, names, config)) if measured.answers else []
    return score.with_baseline(found, held_out.references)


def compare(
    held_out: HeldOut, before: Measured, after: Measured, names: Sequence[str], config: RunConfig
) -> list[dict[str, Any]]:
    """The table before | after: the held-out loss, what the method reports of each row, then the metrics of the
    answers, and of those given `again`, each with its interval; verdicts are corrected for all of them."""
    questions = []
    if before.losses:
        old, new = ([loss for _, loss, _ in measured.losses] for measured in (before, after))
        questions.append(score.loss_question(old, new, [count for _, _, count in before.losses]))
    for name in score.METHOD_FIGURES:
        old, new = ([i[name] for i in measured.items if name in i] for measured in (before, after))
        if old:
            questions.append(paired(name, old, new, score.about_item(name)))
    for name in before.scored[0] if before.scored else ():
        old, new = ([row[name] for row in measured.scored] for measured in (before, after))
        questions.append(paired(name, old, new, score.about_item(name)))
    if not before.answers:
        return before_after(questions, config.seed)
    questions += score.questions(scores(held_out, before, names, config), scores(held_out, after, names, config))
    then, now = (repeated_prompts.repeat_figures(held_out, m.answers, m.again, names) for m in (before, after))
    return score.with_baseline(
        before_after([*questions, *repeated_prompts.questions(then, now)], config.seed), held_out.references
    )


def reward_model_figures(held_out: HeldOut, measured: Measured) -> RewardModelFigures:
    """What a reward model's held-out scores are worth: how its chances come true, and how much length pulls them."""
    pairs = {tree.row: tree.pairs for tree in held_out.trees}
    scores, lengths, differences = [], [], []
    for (row, _, _), items in zip(measured.losses, measured.items, strict=True):
        scores += items["scores"]
        lengths += items["lengths"]
        differences += [items["scores"][a] - items["scores"][b] for a, b in pairs[row]]
    return {
        "pairs": len(differences),
        "calibration_error": expected_calibration_error(differences) if differences else None,
        "length_correlation": correlation(scores, lengths),
    }
