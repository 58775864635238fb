"""The cores of this machine: how many this process may use, and how many of them other programs take."""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

# What decides how OpenMP's threads wait for each other: GNU's (torch's wheels), Intel's, and the standard's own.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep while they wait, where the user has not said how they are to wait. Only before torch is loaded.

    Threads that spin take the very cores that the threads they wait for are to run on, as soon as other programs run too:
    on two cores beside other busy programs a pass took 2 to 4 times as long as with threads that sleep. What sleeping costs on cores
    of their own depends on the processor and the type of number (docs/performance.md).
    """
    if not any(name in environment for name in WAITING):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


def share(threads: int | None, environment: MutableMapping[str, str] = os.environ) -> None:
    """Let tokenizers and numpy's products take no more than so many threads, where the user has not told them otherwise. They
    read it once, when they are first used."""
    if threads:
        for name in ("RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment.setdefault(name, str(threads))


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: those it may run on, and no more than the quota of its control group."""
    return max(1, int(min(allowed(), _quota(root))))


def allowed() -> int:
    """Cores that this process may run on, whatever its share of them."""
    return len(usable_cores())


@dataclass(frozen=True)
class CpuTimes:
    """Seconds of the clock, and of all cores that this process may use: those in which something ran, by this process and
    its finished children `own`."""

    clock: float
    busy: float
    own: float


def moment(root: Path = Path("/")) -> CpuTimes | None:
    """Now. None where the system does not count so: everywhere but on Linux."""
    names = {f"cpu{core}" for core in usable_cores()}
    try:
        lines = [line.split() for line in (root / "proc/stat").read_text(encoding="ascii").splitlines()]
        counts = [[int(value) for value in line[1:9]] for line in lines if line[0] in names]
    except (OSError, ValueError):
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal: what another guest of the host took is taken too
    busy = sum(sum(count) - sum(count[3:5]) for count in counts) / os.sysconf("SC_CLK_TCK")
    times = os.times()
    return CpuTimes(time.monotonic(), busy, times.user + times.system + times.children_user + times.children_system)


def taken(since: CpuTimes | None, now: CpuTimes | None) -> float:
    """Cores that other programs took between two moments, on average. Where there are no two moments at least half a second
    apart: by the load of the last minute, without this process's one."""
    if since is None or now is None or now.clock - since.clock < 0.5:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        return min(max(0.0, load - 1), float(allowed()))
    others = (now.busy - since.busy) - (now.own - since.own)
    return min(max(0.0, others / (now.clock - since.clock)), float(allowed()))


def crowded(taken: float, here: int, threads: int) -> str | None:
    """What to say where `threads` are more than `here` cores have room for beside the `taken` ones; None where they fit."""
    free = here - taken
    if threads <= free + 0.5:
        return None
    said = f"the machine is busy: other programs take {taken:.1f} of {here} cores, so this takes longer"
    fewer = max(1, int(free + 0.5))
    return said + (f"; --threads {fewer} loses least" if fewer < threads else "")


def usable_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _quota(root: Path) -> float:
    """Cores' worth of time that the control groups of this process leave it; infinite where none sets a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float("inf")
    found = [float("inf")]
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if kinds else "")
        place = Path(path.lstrip("/"))
        for folder in (place, *place.parents):  # a container often sees its own group at the top
            found.append(_limit(top / folder))
    return min(found)


def _limit(group: Path) -> float:
    """The limit of one control group, as version 2 writes it in one file and version 1 in two."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else float("inf")
    except (OSError, ValueError):  # none, or "max"
        return float("inf")


STARTED = moment()
