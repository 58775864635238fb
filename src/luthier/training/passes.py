"""What the micro-batches of a step are put through: each by itself, or all of them for a loss that sees the whole step.

    batch  forward, loss, backward: one micro-batch after the other
    step   forward of all without a graph; the loss of all outputs, and its gradient by them; forward of each again, and
           backward from its share of that gradient (GradCache, Gao et al. 2021)

The gradient is that of one large batch either way, and the graph of only one micro-batch is ever held. Several ranks share the
micro-batches of a step, every rank as many passes: one that has too few runs an idle pass, which weighs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch

from luthier.core.ranks import here
from luthier.core.types.batch import Batch, Loss, Output
from luthier.text.pack import joined

Scope = Literal["batch", "step"]
Read = Callable[[int, Batch], Output]  # a forward pass of the micro-batch of that number
LossOf = Callable[[Batch, Output], Loss]
IDLE = -1  # number of an idle pass
BY_LEAF = ("score", "embed", "balance")  # outputs that have a row for each leaf; the others have one for each target


class Part(NamedTuple):
    """What the loss of a micro-batch, or of a whole step, comes to. `number` is its place in the step, `load` what each expert of
    a mixture was given in it."""

    number: int
    value: float
    rows: list[tuple[int, float, int]]
    sums: dict[str, tuple[float, float]]
    load: list[list[int]] | None = None


def by_batch(micro: Sequence[tuple[int, Batch]], read: Read, loss: LossOf) -> Iterator[Part]:
    """Gradients and results of micro-batches, one by one."""
    for number, batch in micro:
        output = read(number, batch)
        result = loss(batch, output)
        result.total.backward()
        if number != IDLE:
            yield _part(number, batch, result, output.load)
        del output, result  # or this graph would live on while the next one grows


def by_step(micro: Sequence[tuple[int, Batch]], whole: Sequence[Batch], read: Read, loss: LossOf) -> Iterator[Part]:
    """Gradients of this rank's micro-batches, and on the first rank the result, of a loss over the `whole` step."""
    load = None
    with torch.no_grad():
        found = {}
        for number, batch in micro:
            output = read(number, batch)
            found[number] = _fields(batch, output)
            if output.load is not None:
                own = output.load * (number != IDLE)
                load = own if load is None else load + own
    here().add([] if load is None else [load])
    outputs = _of_all_ranks(found, whole)
    result = loss(joined(whole), _output(outputs))
    learned = {name: output for name, output in outputs.items() if output.requires_grad}
    slopes = torch.autograd.grad(result.total, list(learned.values()), allow_unused=True, materialize_grads=True)
    sizes = [_sizes(batch) for batch in whole]
    for number, batch in micro:
        again = _fields(batch, read(number, batch))
        reached = dict[str, torch.Tensor]()
        for name, slope in zip(learned, slopes, strict=True):
            if again[name].requires_grad:  # not what no parameter makes, such as log-probabilities of no target
                at = sum(size[name in BY_LEAF] for size in sizes[: max(0, number)])
                own = slope[at : at + len(again[name])]
                reached[name] = torch.zeros_like(again[name]) if number == IDLE else own
        torch.autograd.backward([again[name] for name in reached], list(reached.values()))
        del again
    if here().first:
        yield _part(0, joined(whole), result, load)


def measured(micro: Iterable[Batch], read: Read, loss: LossOf, scope: Scope) -> Iterator[tuple[Batch, Output, Loss]]:
    """Outputs and losses without gradient: of each micro-batch, or of all as one."""
    if scope == "batch":
        for number, batch in enumerate(micro):
            output = read(number, batch)
            yield batch, output, loss(batch, output)
        return
    batches = list(micro)
    found = [_fields(batch, read(number, batch)) for number, batch in enumerate(batches)]
    whole, output = joined(batches), _output({name: torch.cat([one[name] for one in found]) for name in found[0]})
    yield whole, output, loss(whole, output)


def shared_out(micro: Sequence[Batch]) -> list[tuple[int, Batch]]:
    """The micro-batches of a step that this rank computes, numbered: as many on every rank, the dearest given out first."""
    ranks = here()
    if ranks.world == 1:
        return list(enumerate(micro))
    passes = -(-len(micro) // ranks.world)
    mine: list[list[int]] = [[] for _ in range(ranks.world)]
    load = [0] * ranks.world
    for i in sorted(range(len(micro)), key=lambda i: (-micro[i].real, i)):
        rank = min((r for r in range(ranks.world) if len(mine[r]) < passes), key=lambda r: (load[r], r))
        mine[rank].append(i)
        load[rank] += micro[i].real
    own = [(i, micro[i]) for i in sorted(mine[ranks.rank])]
    return own + [(IDLE, idle(micro[0]))] * (passes - len(own))


def idle(batch: Batch) -> Batch:
    """A pass that changes nothing: `batch` with weights of zero."""
    return replace(batch, weight=torch.zeros_like(batch.weight), tree_weight=torch.zeros_like(batch.tree_weight))


def example_losses(batch: Batch, loss: Loss) -> list[tuple[int, float, int]]:
    """(row, loss summed over its units, number of units) of each tree of a batch."""
    return list(zip(batch.rows, loss.each.tolist(), [int(n) for n in loss.count.tolist()], strict=True))


def sums(loss: Loss) -> dict[str, tuple[float, float]]:
    """Everything a loss reports beside itself: name -> (sum, weight)."""
    means = {name: (float(values.nansum()), float((~values.isnan()).sum())) for name, values in loss.items.items()}
    return {**means, **loss.metrics}


def _part(number: int, batch: Batch, result: Loss, load: torch.Tensor | None) -> Part:
    rows = [found for found in example_losses(batch, result) if found[0] >= 0]  # others are none of the data's
    return Part(number, float(result.total.detach()), rows, sums(result), None if load is None else load.tolist())


def _fields(batch: Batch, output: Output) -> dict[str, torch.Tensor]:
    """What a loss sees of an output, target by target or leaf by leaf: without log-probabilities, where there was no need of them."""
    targets = len(batch.source)
    found = {name: value for name, value in vars(output).items() if value is not None and name != "load"}
    return {name: value for name, value in found.items() if name != "logp" or len(value) == targets}


def _output(fields: Mapping[str, torch.Tensor]) -> Output:
    return Output(**({"logp": torch.zeros(0)} | dict(fields)))


def _sizes(batch: Batch) -> tuple[int, int]:
    """Targets and leaves of a batch."""
    return len(batch.source), len(batch.leaf_tree)


def _of_all_ranks(found: Mapping[int, Mapping[str, torch.Tensor]], whole: Sequence[Batch]) -> dict[str, torch.Tensor]:
    """The outputs of all micro-batches of the step end to end, to be differentiated by. Those of other ranks come as a sum with
    zeros, which is exact."""
    out = {}
    for name, like in next(iter(found.values())).items():
        parts = []
        for number, batch in enumerate(whole):
            count = _sizes(batch)[name in BY_LEAF]
            parts.append(found[number][name] if number in found else like.new_zeros(count, *like.shape[1:]))
        output = torch.cat(parts)
        here().add([output])
        out[name] = output.requires_grad_(name != "entropy")
    return out
