"""The options that name a judge, for the commands that have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from luthier.commands.options import JUDGE, option

OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--judge", {"metavar": "MODEL", "help": "A model or a run that judges on this machine, by probability."}),
    ("--endpoint", {"metavar": "URL", "help": "An OpenAI-compatible server that judges, such as http://localhost:8000/v1."}),
    ("--endpoint-model", {"metavar": "NAME", "help": "The model's name on that server."}),
    ("--key-env", {"metavar": "NAME", "help": "The environment variable that holds the key."}),
    ("--timeout", {"type": click.FloatRange(0, min_open=True), "default": 120.0, "metavar": "SECONDS",
                   "help": "Longest wait for one answer of the server.  [120]"}),
    ("--retries", {"type": click.IntRange(0), "default": 5, "metavar": "N",
                   "help": "Retries after a failure, with growing pauses.  [5]"}),
    ("--parallel", {"type": click.IntRange(1), "default": 4, "metavar": "N",
                    "help": "Questions asked at once.  [4]"}),
    ("--request", {"multiple": True, "metavar": "KEY=VALUE",
                   "help": "Change what the server is sent, such as max_tokens=4000; null leaves a key out."}),
)  # fmt: skip


def with_judge(group: str = JUDGE) -> Callable[[Any], Any]:
    """Add the options of a judge."""

    def add(command: Any) -> Any:
        for name, settings in reversed(OPTIONS):
            names = (name, "judge_") if name == "--judge" else (name,)
            command = option(*names, group=group, **settings)(command)
        return command

    return add


def judge_of(values: dict[str, Any], device: str, dtype: str) -> Any:
    """The judge among a command's parameters."""
    from luthier.evals.judging.judges import JudgeSpec

    names = ("endpoint", "endpoint_model", "key_env", "timeout", "retries", "parallel", "request")
    return JudgeSpec(values["judge_"], **{name: values[name] for name in names}, device=device, dtype=dtype)
