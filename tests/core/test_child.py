"""A process beside us: what it answers, each way in which it ends, and that it ends with us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import luthier
from luthier.core.foreign import child as children
from luthier.core.foreign.child import Child, Ended

PROGRAM = """
import os, signal, sys, time
from luthier.core.foreign.service import Line, limit_memory
line = Line(int(sys.argv[1]))
for request in line:
    line.send(eval(request, {"os": os, "signal": signal, "time": time, "limit": limit_memory}))
"""
PARENT = """
import os, sys, time
from luthier.core.foreign.child import Child
child = Child("answering", 512)
child.ask("1", 30)
if os.fork() == 0:  # another process, which outlives its parent and has inherited all it could
    time.sleep(60)
print(child.pid, flush=True)
time.sleep(60)
"""


def elsewhere(folder: Path) -> dict[str, str]:
    """An environment in which PROGRAM is a module."""
    (folder / "answering.py").write_text(PROGRAM)
    source = Path(luthier.__file__).parents[1]
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{source}"}


@pytest.fixture
def child(tmp_path):
    made = Child("answering", 512, environment=elsewhere(tmp_path))
    yield made
    made.close()


def gone(pid: int) -> bool:
    """Whether it is gone, or was not yet waited for, within five seconds."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def ending(child: Child, request: str, seconds: float = 30.0, most: int = 1 << 20) -> Ended:
    with pytest.raises(Ended) as caught:
        child.ask(request, seconds, most)
    assert gone(child.pid)
    return caught.value


def test_it_answers_one_request_after_the_other(child):
    assert child.ask("[1, {'a': None}]", 30) == [1, {"a": None}]
    assert child.ask("'\\ud800 é\\u2028\\n' + 'x' * 200_000", 30) == "\ud800 é\u2028\n" + "x" * 200_000
    assert child.ask("os.getpid()", 30) == child.pid != os.getpid()


@pytest.mark.parametrize(
    ("request_", "why", "what"),
    [
        ("time.sleep(60)", "late", "it took longer than 0.2 s"),
        ("os._exit(3)", "status", "its process ended with status 3"),
        ("os.abort()", "signal", "its process was ended by SIGABRT"),
        ("os.close(int(__import__('sys').argv[1])) or time.sleep(60)", "closed", "closed the line"),
        ("os.write(int(__import__('sys').argv[1]), b'{\\n')", "reply", "it sent something else than JSON"),
        ("os.write(int(__import__('sys').argv[1]), b'[' * 100_000 + b'\\n')", "reply", "something else than JSON"),
        ("'x' * 2_000_000", "reply", "it sent more than 1,048,576 bytes"),
    ],
)
def test_each_way_to_end(child, request_, why, what, monkeypatch):
    monkeypatch.setattr(children, "ENDING_SECONDS", 0.5)
    ended = ending(child, request_, 0.2 if why == "late" else 30.0)
    assert ended.why == why and what in ended.what
    with pytest.raises(Ended):
        child.ask("1", 30)


def test_memory_is_held_by_the_system(child):
    child.ask("limit(64)", 30)
    assert child.ask("len(b'x' * (1 << 24))", 30) == 1 << 24
    assert ending(child, "len(b'x' * (1 << 28))").why == "status"  # a MemoryError that nobody caught


def test_memory_is_watched_where_the_system_does_not_hold_it(child, monkeypatch):
    monkeypatch.setattr(children, "WATCH_MEMORY", True)
    monkeypatch.setattr(children, "MEMORY_CHECK_SECONDS", 0.05)
    child.mib = 64
    ended = ending(child, "(b'x' * (1 << 27), time.sleep(60))")
    assert (ended.why, ended.what) == ("memory", "it took more than 64 MiB of memory")


def test_no_module_is_taken_from_the_folder_that_one_stands_in(tmp_path, monkeypatch):
    made = elsewhere(tmp_path)
    here = tmp_path / "foreign"
    here.mkdir()
    (here / "json.py").write_text("raise SystemExit('taken')")
    monkeypatch.chdir(here)
    child = Child("answering", 512, environment=made)
    assert child.ask("1", 30) == 1
    child.close()


def test_ctrl_c_does_not_reach_it_and_closing_ends_it(child):
    child.ask("1", 30)
    assert os.getpgid(child.pid) != os.getpgid(0)
    child.close()
    assert gone(child.pid)


def test_it_ends_when_its_parent_is_killed_though_a_fork_lives_on(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=elsewhere(tmp_path), start_new_session=True
    )
    try:
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
        assert gone(pid)
    finally:
        os.killpg(parent.pid, signal.SIGKILL)  # the fork
        parent.wait()


def test_a_fork_leaves_the_child_of_its_parent_alone(child):
    child.ask("1", 30)
    if (forked := os.fork()) == 0:
        child.close()
        os._exit(0)
    os.waitpid(forked, 0)
    assert child.ask("2", 30) == 2
