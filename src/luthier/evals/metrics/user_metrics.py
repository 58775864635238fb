"""Metrics of the user's: `python:FILE:FUNCTION`, the contract and the process of a reward function (`rewards/function.py`).

The function is given lists by name, those of `prompts`, `answers`, `references` and `messages` that it asks for, and returns a number
for each answer; higher is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luthier.config.rewards import RewardConfig
from luthier.core.errors import FunctionError
from luthier.core.storage.files import sha256
from luthier.core.types.examples import Message
from luthier.evals.metrics.answer_metrics import USER_METRIC
from luthier.rewards.answer import Answer, opening
from luthier.rewards.function import Function
from luthier.rewards.imports import sources


def score(
    name: str, answers: Sequence[str], references: Sequence[str], prompts: Sequence[str], ended: Sequence[str],
    limits: RewardConfig,
) -> list[float]:  # fmt: skip
    """What the function says of every answer, within `reward.timeout` and `reward.memory`.

    Raises InputError where it cannot be loaded, FunctionError where it fails, or gives another count of numbers than answers, or one
    that is not finite.
    """
    given = [
        Answer(prompt, text, reference, 0, how != "length", (Message("user", prompt),))
        for text, reference, prompt, how in zip(answers, references, prompts, ended or [""] * len(answers), strict=True)
    ]
    with _open(name, limits) as function:
        values = function(given) if given else []
    if len(values) != len(given):
        what = f"gave {len(values)} numbers for {len(given)} answers"
        raise FunctionError(what, kind="metric", where=_where(name), fix="fix it")
    for value, answer in zip(values, given, strict=True):
        if not math.isfinite(value):
            what = f"gave {value} for an answer to '{opening(answer.prompt)}'"
            raise FunctionError(what, kind="metric", where=_where(name), fix="fix it")
    return values


def check(names: Sequence[str], limits: RewardConfig) -> dict[str, str]:
    """Load every function that `names` name, once, and say of each file what it holds: path -> sha256.

    Raises InputError for what cannot be loaded.
    """
    found: dict[str, str] = {}
    for name in names:
        if name.startswith(USER_METRIC):
            with _open(name, limits) as function:
                found |= {str(file): sha256(file) for file in sources(function.file)}
    return found


def about(name: str) -> dict[str, Any]:
    """Title, unit, best value and direction, as of the rows of METRICS."""
    file, _, function = name.removeprefix(USER_METRIC).rpartition(":")
    return {"title": f"{function} ({Path(file).name})", "unit": "", "top": None, "higher_is_better": True}


def _open(name: str, limits: RewardConfig) -> Function:
    return Function(name, name.removeprefix(USER_METRIC), limits, kind="metric")


def _where(name: str) -> str:
    return f"metric '{name}'"
