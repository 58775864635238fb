"""PPO and GRPO on a real model: 10 steps of 32 answers move a reward that is shaped like a reward model's, on held-out prompts."""

from __future__ import annotations

import json
from statistics import fmean

import pytest

from luthier.config.resolve import resolve
from luthier.tune.train import run

REWARD = """
def close(answers):
    '''How close the answer's length is to 40 characters, from -1 to -0.9.'''
    return [0.1 * max(0, 1 - abs(len(answer) - 40) / 40) - 1 for answer in answers]
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_ten_steps_raise_a_reward_and_answers_still_end(shared, smollm2_folder, tmp_path, method):
    (tmp_path / "mine.py").write_text(REWARD)
    settings = {
        "method": method, "model": str(smollm2_folder), "data.path": [str(shared / "rasbt_instruct" / "instruction-data.json")],
        "out": str(tmp_path / "run"), "data.holdout": 0.2, "eval.samples": 192, "eval.rows": 8, "eval.temperature": 1.0,
        "eval.max_new_tokens": 24, "eval.forgetting": False, "reward.use": [f"python:{tmp_path / 'mine.py'}:close"],
        "train.batch": 8, "train.steps": 10, "rollout.samples": 4, "rollout.max_new_tokens": 24, "device": "cpu",
    }  # fmt: skip
    change = run(resolve(settings))["metrics"]["reward"]
    assert change["n"] > 150
    assert change["low"] > 0
    ended = {}
    for stage in ("before", "after"):
        records = [
            json.loads(line) for line in (tmp_path / "run" / "evals" / f"{stage}.jsonl").read_text().splitlines()
        ]
        ended[stage] = fmean(record["ended"] == "stop" for record in records if "answer" in record)
    assert ended["after"] >= ended["before"]
