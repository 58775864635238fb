"""Rewards over how far the policy has moved: where the reward that is learned from rises and the one that judges does not,
what is learned is the reward's mistake (Gao et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.core.types.run_result import JudgeConfirmation
from luthier.core.verdicts import BETTER, NONE_SHOWN, TOO_FEW, WORSE
from luthier.report.plot import Point
from luthier.report.tables import Row, figures

LEARNED, JUDGING = "the reward that was learned from", "the reward that judges"


@dataclass(frozen=True)
class RewardCurves:
    """(nats per answer from the starting model, reward) by rising distance: of rollouts, of held-out answers, and of these by the
    judge."""

    rollouts: list[Point]
    held_out: list[Point]
    judge: list[Point]


def reward_over_divergence(lines: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> RewardCurves:
    """The curves from the lines of metrics.jsonl. Where nothing was measured on the way, held-out rewards have two points, from
    the `rows` before and after: the start, and the distance of the last rollout."""
    rollouts = [
        (line["kl_per_answer"], line["reward"]) for line in lines if "reward" in line and "kl_per_answer" in line
    ]
    measured = [line for line in lines if line.get("eval_kl_per_answer") is not None]
    curves: dict[str, list[Point]] = {}
    for name in ("reward", "judge"):
        points = [(line["eval_kl_per_answer"], line[f"eval_{name}"]) for line in measured if f"eval_{name}" in line]
        row = next((row for row in rows if row["name"] == name), None)
        if not points and row and rollouts:
            points = [(0.0, row["before"]), (rollouts[-1][0], row["after"])]
        curves[name] = sorted(points)
    return RewardCurves(sorted(rollouts), curves["reward"], curves["judge"])


def judge_confirmation(rows: Sequence[Row]) -> JudgeConfirmation | None:
    """Whether the judge saw the reward's rise too, from the table before | after: `confirmed` and the `sentence` that says so;
    None without a judge. `confirmed` is None where the reward itself is not shown to have risen, or too few rows tell."""
    by_name = {row["name"]: row for row in rows}
    if not {"reward", "judge"} <= set(by_name):
        return None
    reward, judge = by_name["reward"], by_name["judge"]
    confirmed = None
    if reward["verdict"] == BETTER and judge["verdict"] in (BETTER, WORSE, NONE_SHOWN):
        confirmed = judge["verdict"] == BETTER
    conjunction = "and" if reward["verdict"] == judge["verdict"] else "but"
    return {
        "confirmed": confirmed,
        "sentence": f"{_change_of_reward(LEARNED, reward)}, {conjunction} {_change_of_reward(JUDGING, judge)}",
    }


def _change_of_reward(what: str, row: Row) -> str:
    """How a reward moved on the held-out rows."""
    change, low, high = figures(row, ("difference", "low", "high"))
    if row["verdict"] == TOO_FEW or row["low"] is None:
        return f"{what} was measured on too few rows to tell"
    interval = f"(95 % interval {low} … {high})"
    if row["verdict"] in (BETTER, WORSE):
        return f"{what} {'rose' if row['verdict'] == BETTER else 'fell'} by {change.lstrip('+−')} {interval}"
    return f"{what} is not shown to have risen or fallen {interval}"
