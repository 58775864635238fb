"""Processes that work on one run together: which of them this is, and the few things they tell each other.

    torchrun --nproc-per-node 2 my_loop.py     starts the processes; `join()` in each makes them ranks 0 and 1 of 2

One process alone is rank 0 of 1: it needs no launcher, and every call gives back what it was given. All ranks make the same calls
in the same order. What crosses over is numbers and JSON, never pickles.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from luthier.core.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Ranks:
    """This process, `rank` of `world`; `local` counts those of its machine, and is the number of its GPU."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and talks to people."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """The sum of each value over all ranks, in float64 and in the order of the ranks: the same bits on each."""
        if self.world == 1:
            return list(values)
        parts = self._parts(values)
        return [sum(column, start=0.0) for column in zip(*parts, strict=True)]

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Put in the place of each tensor its sum over all ranks, which have them in the same order and shapes."""
        if self.world == 1:
            return
        import torch
        import torch.distributed as dist

        alike: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
        for tensor in tensors:
            alike.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for group in alike.values():  # as one: a message each would be mostly waiting
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.all_reduce(flat)
            for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather(self, value: Any) -> list[Any]:
        """What every rank has, in their order: values that JSON can say."""
        if self.world == 1:
            return [value]
        import torch
        import torch.distributed as dist

        mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(_device())
        sizes = [int(part[0]) for part in self._parts([len(mine)])]
        padded = mine.new_zeros(max(sizes))
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return [json.loads(bytes(part[:size].tolist())) for part, size in zip(parts, sizes, strict=True)]

    def broadcast(self, value: Any) -> Any:
        """What the first rank has, on all of them."""
        return self.gather(value if self.first else None)[0]

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        if self.world > 1:
            import torch.distributed as dist

            dist.barrier()

    def _parts(self, values: Sequence[float]) -> list[list[float]]:
        import torch
        import torch.distributed as dist

        mine = torch.tensor(values, dtype=torch.float64, device=_device())
        parts = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(parts, mine)
        return [part.tolist() for part in parts]


HERE = Ranks()


def here() -> Ranks:
    """This process: rank 0 of 1, until it joined others."""
    return HERE


def join(minutes: float = 10) -> Ranks:
    """Join the processes that a launcher started beside this one (torchrun, or any that sets RANK, WORLD_SIZE, MASTER_ADDR and
    MASTER_PORT); alone where it set nothing. A call that waits longer than `minutes` for the others raises.

    Raises InputError where the launcher's numbers do not fit.
    """
    global HERE
    import torch
    import torch.distributed as dist

    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    try:
        rank, world, local = (int(os.environ.get(name, default)) for name, default in zip(names, "010", strict=True))
    except ValueError:
        raise InputError("a rank is not a number", where=", ".join(names), fix="start with torchrun") from None
    if not 0 <= rank < world:
        raise InputError(f"rank {rank} of {world}", where="RANK, WORLD_SIZE", fix="start with torchrun")
    if world > 1 and not dist.is_initialized():
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(local)  # "cuda" means this one from now on
            backend = "cpu:gloo,cuda:nccl"  # a run may compute on the processor all the same
        dist.init_process_group(backend, timeout=timedelta(minutes=minutes))
    HERE = Ranks(rank, world, local)
    return HERE


def leave() -> None:
    """Leave the others: this process is alone again."""
    global HERE
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
    HERE = Ranks()


def _device() -> torch.device:
    """Where messages lie: NCCL alone, in a group that somebody else started, sends what is on a GPU and nothing else."""
    import torch
    import torch.distributed as dist

    return torch.device("cuda", HERE.local) if dist.get_backend() == "nccl" else torch.device("cpu")
