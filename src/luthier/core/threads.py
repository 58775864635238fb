"""On how many threads a command computes."""

from __future__ import annotations

import torch

from luthier.core import log, machine


def use_threads(threads: int | None = None) -> int:
    """Compute on so many threads, by default on all cores that there are for this process; returns their number. Says so
    where other programs leave less room. Results are bitwise equal only with the same number."""
    here = machine.cores()
    chosen = threads or here
    torch.set_num_threads(chosen)
    machine.share(threads)
    if told := machine.crowded(machine.taken(machine.STARTED, machine.moment()), machine.allowed(), chosen):
        log.warn(told)
    return chosen
