"""docs/rewards.md names every reward and option, and its function works as it says."""

from __future__ import annotations

import re
from pathlib import Path

from luthier.config.rewards import RewardConfig
from luthier.rewards.answer import Answer
from luthier.rewards.function_process import ARGUMENT_NAMES
from luthier.rewards.rules import RULES
from luthier.rewards.selection import OUTPUT_FORMATS
from luthier.rewards.specs import parse

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")


def test_every_reward_argument_and_kind_is_described():
    first = "".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))
    for name in (*RULES, *ARGUMENT_NAMES, *OUTPUT_FORMATS, "python:FILE:FUNCTION"):
        assert re.search(rf"`{name}[:`]", first + "`"), name


def test_the_limits_are_the_defaults():
    assert f"`--reward.timeout` ({RewardConfig().timeout:g})" in PAGE
    assert f"`--reward.memory` ({RewardConfig().memory})" in PAGE


def test_the_function_of_the_page(tmp_path):
    path = tmp_path / "rewards.py"
    path.write_text(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1])
    answers = [Answer("p", text, "4", 1, True, ()) for text in ("4, thank you", "4", "5")]
    with parse([f"python:{path}:score"], RewardConfig(), None) as rewards:
        assert rewards.score(answers).total == [1, 0.5, 0]
