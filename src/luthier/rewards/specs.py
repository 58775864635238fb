"""From specs, such as `2*exact` or `python:rewards.py:score`, to one weighted sum."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from luthier.config.rewards import RewardConfig
from luthier.core.errors import FunctionError, InputError, unknown
from luthier.rewards.answer import Answer, Component, opening
from luthier.rewards.function import Function
from luthier.rewards.imports import sources
from luthier.rewards.rules import RULES, rule

_SPEC = re.compile(r"(?:([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\*\s*)?([^:]*)(?::(.*))?", re.DOTALL)


@dataclass(frozen=True)
class RewardScores:
    """`total[i]` = sum over the parts of weight * `parts[name][i]`, for answer i."""

    total: list[float]
    parts: dict[str, list[float]]


@dataclass(frozen=True)
class RewardPart:
    """One term of the sum. `name` is its spec without the weight, and `reference` says that the row must have a right
    answer."""

    name: str
    weight: float
    component: Component
    reference: bool = False


class Rewards:
    """A weighted sum of components; a context manager, because some of them are processes."""

    def __init__(self, parts: Sequence[RewardPart], closing: ExitStack) -> None:
        self.parts = tuple(parts)
        self._closing = closing

    def score(self, answers: Sequence[Answer]) -> RewardScores:
        """The sum and its parts, for a batch.

        Raises FunctionError, naming the part and the prompt, when a part fails, gives another count of numbers than
        answers, or one that is not finite.
        """
        return self.weigh({part.name: _checked(part, part.component(answers), answers) for part in self.parts})

    def weigh(self, parts: Mapping[str, Sequence[float]]) -> RewardScores:
        """The sum of parts that were computed before."""
        columns = [[part.weight * value for value in parts[part.name]] for part in self.parts]
        return RewardScores(
            [math.fsum(row) for row in zip(*columns, strict=True)], {k: list(v) for k, v in parts.items()}
        )

    @property
    def referring(self) -> tuple[str, ...]:
        """The names of the parts that compare with the row's right answer."""
        return tuple(part.name for part in self.parts if part.reference)

    def unusable(self, reference: str) -> str | None:
        """The first part that cannot compare with this right answer, and gives 0 whatever the answer; None without one."""
        parts = (part for part in self.parts if part.reference)
        return next((part.name for part in parts if not RULES[part.name.partition(":")[0]].usable(reference)), None)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that decide what the sum is, for lineage."""
        return tuple(files([part.name for part in self.parts]))

    def close(self) -> None:
        """End the processes of the user's functions."""
        self._closing.close()

    def __enter__(self) -> Rewards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def parse(specs: Sequence[str], settings: RewardConfig, model: Callable[[str], Component] | None) -> Rewards:
    """The rewards that `specs` name, `[WEIGHT*]NAME[:ARGUMENT]` each; `model` opens what `model:RUN` names.

    Files are read and functions loaded now, so that what is wrong with them is said before anything is computed.
    Raises InputError for an unknown name (with the nearest), an argument or file that is wrong, a spec given twice.
    """
    if not specs:
        raise InputError("no reward given", where="--reward", fix="give one, such as exact, or python:FILE:FUNCTION")
    with ExitStack() as closing:
        parts: list[RewardPart] = []
        for text in specs:
            part = _part(text.strip(), settings, model, closing)
            if part.name in {other.name for other in parts}:
                raise InputError("given twice", where=f"reward '{part.name}'", fix="give it once, with one weight")
            parts.append(part)
        return Rewards(parts, closing.pop_all())


def check_rules(specs: Sequence[str], settings: RewardConfig) -> None:
    """What `parse` refuses of the rewards that need no process and no model, early: unknown names and wrong arguments."""
    matches = [(text.strip(), _SPEC.fullmatch(text.strip())) for text in specs]
    if rules := [text for text, match in matches if match and match[2] not in ("python", "model")]:
        parse(rules, settings, None).close()


def files(specs: Sequence[str]) -> list[Path]:
    """The files that `specs` name: functions of the user's with what they import from beside them, and schemas."""
    found = [match for text in specs if (match := _SPEC.fullmatch(text.strip())) and match[3]]
    out: list[Path] = []
    for match in found:
        if match[2] == "python" and (path := Path(match[3].rpartition(":")[0])).is_file():
            out += sources(path)
        elif match[2] == "json" and (path := Path(match[3])).is_file():
            out.append(path)
    return out


def models(specs: Sequence[str]) -> list[str]:
    """The runs of the reward models that `specs` name."""
    matches = [_SPEC.fullmatch(text.strip()) for text in specs]
    return [match[3] for match in matches if match and match[2] == "model" and match[3]]


def _part(
    text: str, settings: RewardConfig, model: Callable[[str], Component] | None, closing: ExitStack
) -> RewardPart:
    match = _SPEC.fullmatch(text)
    assert match  # the name may be anything up to the first colon
    factor, name, argument = match.groups(default="")
    weight = float(factor or 1)
    spec = f"{name}:{argument}" if argument else name
    if name == "python":
        return RewardPart(spec, weight, closing.enter_context(Function(spec, argument, settings)))
    if name == "model":
        return RewardPart(spec, weight, _model(spec, argument, model))
    if name not in RULES:
        raise unknown("reward", name, [*RULES, "python", "model"], where=f"reward '{text}'")
    return RewardPart(spec, weight, rule(spec, name, argument, settings), RULES[name].reference)


def _model(spec: str, run: str, model: Callable[[str], Component] | None) -> Component:
    where = f"reward '{spec}'"
    if not run:
        raise InputError("'model' needs a run", where=where, fix="write model:runs/NAME")
    if model is None:
        raise InputError("reward models cannot be used here", where=where, fix="use python:FILE:FUNCTION")
    return model(run)


def _checked(part: RewardPart, values: list[float], answers: Sequence[Answer]) -> list[float]:
    where, fix = f"reward '{part.name}'", "fix it and run the same command again; nothing else is lost"
    if len(values) != len(answers):
        raise FunctionError(
            f"gave {len(values)} numbers for {len(answers)} answers, the first to '{opening(answers[0].prompt)}'",
            kind="reward", where=where, fix=fix,
        )  # fmt: skip
    for value, answer in zip(values, answers, strict=True):
        if not math.isfinite(value):
            raise FunctionError(
                f"gave {value} for an answer to '{opening(answer.prompt)}'", kind="reward", where=where, fix=fix
            )
    return values
