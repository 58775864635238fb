"""What people watch while a policy learns from rewards."""

from __future__ import annotations

import pytest

from luthier.training.loop import Report
from luthier.tune.checkpoint_selection import Progress
from luthier.tune.run_summary import reward_trend, rollout_figures
from luthier.tune.training_steps import step_figures

METRICS = {"reward": 0.52345, "kl_per_answer": 0.312, "ended": 0.859, "length": 40.6}


@pytest.mark.parametrize(
    ("rewards", "arrow"),
    [
        ([], ""),
        ([0.1, 0.2, 0.3, 0.4, 0.5], ""),  # three of each are needed
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "↑"),  # .5 against .2, each of deviation .1: error .082
        ([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], "↓"),
        ([0.1, 0.6, 0.2, 0.5, 0.3, 0.4], "→"),  # .4 against .3, of deviations .26 and .1: error .16
        ([0.0] * 6, "→"),
        ([9.0] * 50 + [0.0] * 10 + [1.0] * 10, "↑"),  # only the last twenty count
    ],
)
def test_a_trend_is_told_where_it_is_larger_than_its_noise(rewards, arrow):
    assert reward_trend(rewards) == arrow


def test_the_figures_of_a_rollout():
    assert rollout_figures(METRICS, [0.5] * 6) == {"reward": "0.523 →", "KL": "0.31", "ended": "86%", "length": "41"}
    assert rollout_figures(METRICS, [])["reward"] == "0.523"


def test_a_rollout_that_several_steps_learn_from_counts_once():
    progress = Progress()
    for step in range(100):
        metrics = {**METRICS, "reward": float(step // 2), "rollout": step // 2}
        step_figures(progress, Report(step, 0.1, 1.0, 1e-3, 10, 10, 2, 0.5, metrics=metrics))
    assert progress.rewards == [float(n) for n in range(30, 50)]
    assert Progress(**vars(progress)) == progress  # as a checkpoint has it
    assert step_figures(progress, Report(1, 0.25, 1.0, 1e-3, 10, 10, 2, 0.5)) == {"loss": "0.250"}
