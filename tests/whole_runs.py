"""Shared by tests of whole runs: small rows, what a run learned, and a signal that stops it after a step."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from luthier.config.run import RunConfig
from luthier.core.errors import Stopped
from luthier.tune import training_steps
from luthier.tune.train import run
from sentences import sentence

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "by", "tree", "red", "blue"]


def questions(path: Path, count: int = 40) -> Path:
    """A file of small questions, each answered by its first word."""
    draw, lines = random.Random(0), []
    for i in range(count):
        question = " ".join(draw.choice(WORDS) for _ in range(draw.randint(2, 8)))
        lines.append(json.dumps({"prompt": f"{question} {i}?", "completion": question.split()[0]}) + "\n")
    path.write_text("".join(lines))
    return path


def bits(folder: Path) -> dict[str, torch.Tensor]:
    """The learned weights of a run: its adapter's, or the model's."""
    return load_file(next(folder.glob("a*/adapter_model.safetensors"), folder / "model" / "model.safetensors"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether the names and all bits are equal."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@contextmanager
def signalled_after(step: int, number: int = signal.SIGTERM) -> Iterator[None]:
    """A run begun in here gets this signal once it noted the step."""
    original = training_steps.log_step

    def noted(folder, progress, report, *rest):
        original(folder, progress, report, *rest)
        if report.step == step:
            os.kill(os.getpid(), number)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training_steps, "log_step", noted)
        yield


def run_until(step: int, config: RunConfig, number: int = signal.SIGTERM) -> None:
    """Begin the run, or go on with it, until a signal comes after this step."""
    with signalled_after(step, number), pytest.raises(Stopped, match=sentence("stopped in a phase")):
        run(config)
