"""Whether a judge saw the reward's rise, in words; the two over the divergence from the starting model, in a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from luthier.core.verdicts import BETTER, NONE_SHOWN, TOO_FEW, WORSE
from luthier.report import plot
from luthier.report.reward_over_divergence import judge_confirmation, reward_over_divergence


def row(name, difference, low, high, verdict):
    return {"name": name, "before": 0.25, "after": 0.25 + difference, "difference": difference, "low": low, "high": high,
            "verdict": verdict}  # fmt: skip


ROSE = row("reward", 0.25, 0.125, 0.375, BETTER)
LEARNED = "the reward that was learned from rose by 0.250 (95 % interval +0.125 … +0.375)"


@pytest.mark.parametrize(
    ("judge", "confirmed", "words"),
    [
        ((0.5, 0.25, 0.75, BETTER), True, "and the reward that judges rose by 0.500 (95 % interval +0.250 … +0.750)"),
        ((-0.5, -0.75, -0.25, WORSE), False, "but the reward that judges fell by 0.500 (95 % interval −0.750 … −0.250)"),
        (
            (0.125, -0.25, 0.5, NONE_SHOWN), False,
            "but the reward that judges is not shown to have risen or fallen (95 % interval −0.250 … +0.500)",
        ),
        ((0.125, None, None, TOO_FEW), None, "but the reward that judges was measured on too few rows to tell"),
    ],
)  # fmt: skip
def test_a_rise_is_confirmed_or_not(judge, confirmed, words):
    assert judge_confirmation([ROSE, row("judge", *judge)]) == {
        "confirmed": confirmed,
        "sentence": f"{LEARNED}, {words}",
    }


def test_where_the_reward_did_not_rise_there_is_nothing_to_confirm():
    level = row("reward", 0.125, -0.25, 0.5, NONE_SHOWN)
    found = judge_confirmation([level, row("judge", -0.5, -0.75, -0.25, WORSE)])
    assert found["confirmed"] is None
    assert found["sentence"].startswith("the reward that was learned from is not shown to have risen or fallen (95 %")
    assert judge_confirmation([ROSE]) is None
    assert judge_confirmation([row("judge", 0.5, 0.25, 0.75, BETTER)]) is None


LINES = [
    {"step": 1, "reward": 0.25, "kl_per_answer": 0.0}, {"step": 2, "reward": 0.5, "kl_per_answer": 3.0},
    {"step": 2, "eval_reward": 0.5, "eval_judge": 9.0, "eval_kl_per_answer": 2.5},
    {"step": 3, "reward": 0.75, "kl_per_answer": 2.0},
]  # fmt: skip


def test_points_come_by_distance_and_from_the_way_where_it_was_measured():
    found = reward_over_divergence(LINES, [ROSE])
    assert found.rollouts == [(0.0, 0.25), (2.0, 0.75), (3.0, 0.5)]
    assert (found.held_out, found.judge) == ([(2.5, 0.5)], [(2.5, 9.0)])


def test_without_evaluations_on_the_way_the_ends_are_shown():
    found = reward_over_divergence([line for line in LINES if "reward" in line], [ROSE])
    assert (found.held_out, found.judge) == ([(0.0, 0.25), (2.0, 0.5)], [])  # the last rollout was at 2.0


def test_panels_share_the_axis_and_have_scales_of_their_own(tmp_path):
    """From 0 to 4 along pixels 64 to 592; the second panel lies 394 pixels below the first."""
    shown = [plot.Panel("one", [(0, 0.0), (4, 1.0)], []), plot.Panel("two", (), [(0, 100.0), (2, 0.0)])]
    plot.panels(shown, "both", tmp_path / "both.svg", "KL")
    root = ET.parse(tmp_path / "both.svg").getroot()
    paths = {e.get("class"): e.get("d") for e in root.iter("{http://www.w3.org/2000/svg}path")}
    assert paths["line train"] == "M64 340L592 70"
    assert paths["line held"] == "M64 464L328 734"
    assert root.get("height") == "788"
