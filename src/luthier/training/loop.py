"""The one loop. A generator of reports: whoever pulls decides when to evaluate, save or stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from luthier.config.training import TrainConfig
from luthier.core import seeds
from luthier.core.errors import RunError, Stopped
from luthier.core.ranks import here
from luthier.core.types.batch import Batch, Loss, Output, Step
from luthier.model.layers.determinism import same_bits
from luthier.model.layers.routing import figures
from luthier.training.optim import Optimizer, schedule
from luthier.training.passes import Part, Scope, by_batch, by_step, shared_out

Forward = Callable[[nn.Module, Batch], Output]


class Steps(Protocol):
    """A step source.

    step     optimizer step `index`; None where a stream is over
    state    what a checkpoint after `step` steps keeps of the source, by name, as JSON; nothing where seed and index say it all
    load     go on from what a checkpoint kept; raises InputError where that is not possible
    confirm  read again what the steps of a checkpoint were made of; raises InputError where it is not what was learned from
    """

    def __len__(self) -> int: ...
    def step(self, index: int) -> Step | None: ...
    def state(self, step: int) -> dict[str, Any]: ...
    def load(self, saved: Mapping[str, Any]) -> None: ...
    def confirm(self, saved: Mapping[str, Any]) -> None: ...


@dataclass
class State:
    """All that training changes: the model's learning weights and the optimizer. `step` counts finished steps."""

    model: nn.Module
    optimizer: Optimizer
    step: int = 0


@dataclass(frozen=True)
class Report:
    """One finished optimizer step.

    `loss` is the objective at the weights before the update; `rows` holds (data-set row, summed loss,
    units) of each example; `metrics` are means over the step; `seconds` is the step's own time; `load` is what a mixture's experts were
    given (`routing.figures`).
    """

    step: int
    loss: float
    norm: float
    lr: float
    tokens: int
    passed: int
    examples: int
    seconds: float
    rows: tuple[tuple[int, float, int], ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    load: Mapping[str, float | list[float]] = field(default_factory=dict)


def train(
    state: State, steps: Steps, loss: Callable[[Batch, Output], Loss], forward: Forward, config: TrainConfig, *,
    lr: float, seed: int, device: torch.device, cancelled: Callable[[], bool] = lambda: False,
    annotate: Callable[[nn.Module, Step], Step] = lambda model, step: step, scope: Scope = "batch",
) -> Iterator[Report]:  # fmt: skip
    """Run the steps from `state.step` on, yielding a Report after each. `annotate` adds to a step what the method
    computes of it without gradient, at the weights before the step. `scope` says what the loss is given: each micro-batch, or
    the whole step as one batch (see `passes`).

    Raises Stopped between micro-batches when `cancelled()`, with the weights of the last finished step, and RunError before
    the update when the loss or the gradient is not finite. Several ranks share the micro-batches of each step, stop after the
    same one, and yield the same reports.
    """
    total = len(steps)
    while state.step < total:
        began = time.perf_counter()
        made = steps.step(state.step)
        if made is None:  # a stream that is over before its time
            return
        step = annotate(state.model, made)
        rate = lr * schedule(state.step, total, config)
        yield _train_step(state, step, loss, forward, rate, seed, device, cancelled, began, scope)


def _train_step(
    state: State, step: Step, loss: Callable[[Batch, Output], Loss], forward: Forward, rate: float, seed: int,
    device: torch.device, cancelled: Callable[[], bool], began: float, scope: Scope,
) -> Report:  # fmt: skip
    state.model.train()
    if here().world > 1:  # all ranks stop together, or those that go on would wait for the others
        stopped = bool(here().sum(float(cancelled()))[0])
        cancelled = lambda: stopped  # noqa: E731

    def read(number: int, batch: Batch) -> Output:
        if cancelled():
            _drop_gradients(state)
            raise Stopped(f"stopped after step {state.step}")
        seeds.seed_torch(seed, "dropout", state.step, number)
        return forward(state.model, batch)

    micro = [(number, batch.to(device)) for number, batch in shared_out(step.micro)]
    with same_bits(device):
        if scope == "step":
            parts = list(by_step(micro, [batch.to(device) for batch in step.micro], read, loss))
        else:
            parts = list(by_batch(micro, read, loss))
    value, rows, metrics, load = _summed(parts)
    norm = state.optimizer.clip()
    if not (math.isfinite(value) and math.isfinite(norm)):
        _drop_gradients(state)
        raise RunError(
            f"step {state.step + 1}: the loss is {value:.4g} and the gradient norm {norm:.4g}; nothing was changed by it",
            fix="lower --train.lr, or look at the rows of this step in losses.jsonl",
        )
    state.optimizer.step(rate)
    state.step += 1
    return Report(
        step=state.step, loss=value, norm=norm, lr=rate, tokens=step.tokens,
        passed=sum(batch.real for batch in step.micro), examples=step.examples,
        seconds=time.perf_counter() - began, rows=tuple(rows),
        metrics={**step.metrics, **{name: amount / weight for name, (amount, weight) in metrics.items() if weight}},
        load={} if load is None else figures(load),
    )  # fmt: skip


def _summed(
    parts: list[Part],
) -> tuple[float, list[tuple[int, float, int]], dict[str, tuple[float, float]], torch.Tensor | None]:
    """Loss, rows, metrics and the experts' load of the parts of all ranks, in the order of the micro-batches."""
    every = [Part(*part) for found in here().gather(parts) for part in found]
    value, rows, metrics = 0.0, list[tuple[int, float, int]](), dict[str, tuple[float, float]]()
    for part in sorted(every, key=lambda part: part.number):
        value += part.value
        rows += [(int(row), nats, int(count)) for row, nats, count in part.rows]
        for name, (amount, weight) in part.sums.items():
            before = metrics.get(name, (0.0, 0.0))
            metrics[name] = (before[0] + amount, before[1] + weight)
    loads = [torch.tensor(part.load) for part in every if part.load is not None]
    return value, rows, metrics, torch.stack(loads).sum(0) if loads else None


def _drop_gradients(state: State) -> None:
    for parameter in state.optimizer.parameters.values():
        parameter.grad = None
