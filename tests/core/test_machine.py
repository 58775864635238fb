"""What the machine has: allowed cores, quotas, what others take, and what is said of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from luthier.core import machine
from luthier.core.machine import CpuTimes, cores, crowded, moment, share, taken, wait_passively


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/pod/one\n", "sys/fs/cgroup/pod/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/pod\n", "sys/fs/cgroup/pod/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/pod\n", "sys/fs/cgroup/pod/cpu.max": "50000 100000\n"}, 1),  # half a core is one
        (
            {
                "proc/self/cgroup": "3:cpuset:/\n2:cpu:/box\n0::/\n", "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "2:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
    ids=["no groups", "a container", "a group above", "no limit", "half a core", "version 1", "version 1, no limit"],
)  # fmt: skip
def test_cores_are_those_allowed_and_no_more_than_the_quota(tmp_path, monkeypatch, files, expected) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: set(range(8)))
    assert cores(written(tmp_path, files)) == expected


def test_what_others_take_is_what_runs_on_our_cores_without_us(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: {0, 1})
    ticks = os.sysconf("SC_CLK_TCK")
    # user nice system idle iowait irq softirq steal; core 2 is not ours
    line = f"{2 * ticks} 0 {ticks} 50 50 0 0 {ticks} 0 0"
    root = written(tmp_path, {"proc/stat": f"cpu 9 9 9 9\ncpu0 {line}\ncpu1 {line}\ncpu2 {line}\nintr 7\n"})
    now = moment(root)
    assert now is not None and now.busy == pytest.approx(8)
    began = CpuTimes(now.clock - 4, 2.0, now.own - 2)
    assert taken(began, now) == pytest.approx((6 - 2) / 4)
    assert taken(CpuTimes(now.clock - 4, 8.0, now.own - 2), now) == 0  # rounding never makes it negative


def test_without_two_moments_the_load_of_the_last_minute_speaks(monkeypatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(os, "getloadavg", lambda: (2.5, 0, 0))
    close = CpuTimes(1.0, 1.0, 1.0), CpuTimes(1.2, 1.0, 1.0)
    assert taken(None, None) == taken(*close) == 1.5


@pytest.mark.parametrize(
    ("others", "threads", "said"),
    [
        (0.3, 2, None),
        (0.0, 2, None),
        (1.1, 2, "1.1 of 2 cores, so this takes longer; --threads 1 loses least"),
        (1.1, 1, None),
        (2.0, 1, "2.0 of 2 cores, so this takes longer"),
    ],
)
def test_a_busy_machine_is_said_with_the_threads_that_fit(others, threads, said) -> None:
    told = crowded(others, 2, threads)
    assert told is None if said is None else told is not None and told.endswith(said)


def test_threads_wait_asleep_unless_the_user_said_how() -> None:
    nothing: dict[str, str] = {}
    wait_passively(nothing)
    assert nothing == {"OMP_WAIT_POLICY": "PASSIVE"}
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        chosen = {name: "7"}
        wait_passively(chosen)
        assert chosen == {name: "7"}


def test_the_program_says_so_before_torch_is_loaded() -> None:
    program = (
        "import os, sys\n"
        "sys.argv = ['luthier', '--version']\n"
        "from luthier.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if name not in machine.WAITING}
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "PASSIVE False"


def test_libraries_share_the_threads_unless_the_user_said_how_many() -> None:
    environment = {"RAYON_NUM_THREADS": "5"}
    share(3, environment)
    assert environment == {"RAYON_NUM_THREADS": "5", "OPENBLAS_NUM_THREADS": "3"}
    share(None, nothing := {})
    assert nothing == {}
