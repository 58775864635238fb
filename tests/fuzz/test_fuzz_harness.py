"""What the fuzzing calls a failure: each fault that it must see is committed here, and seen."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
import urllib.request
from collections import OrderedDict

import fuzz_child
import pytest

from luthier.core.errors import InputError


def write(path):
    path.write_text("x")


def panic():
    class PanicException(BaseException):  # as PyO3 makes them
        pass

    raise PanicException("called `Option::unwrap()` on a `None` value")


FAULTS = {
    "a traceback": (lambda folder: {}["a"], "KeyError"),
    "a panic": (lambda folder: panic(), "PanicException"),
    "an exit": (lambda folder: sys.exit(3), "SystemExit"),
    "a recursion": (lambda folder: (f := lambda: f())(), "RecursionError"),
    "memory": (lambda folder: bytearray(1 << 40), "out of memory"),
    "memory bit by bit": (lambda folder: [bytes(1 << 24) for _ in range(200)], "out of memory"),
    "a file outside": (lambda folder: write(folder.parent.parent / "x"), "it writes"),
    "a file outside, renamed": (lambda folder: os.rename(folder, folder.parent.parent / "y"), "it changes"),
    "a file outside, removed": (lambda folder: os.remove(folder.parent.parent / "z"), "it changes"),
    "a file outside, by a link": (lambda folder: ((folder / "l").symlink_to("/tmp/x"), write(folder / "l")), "it writes"),
    "pickled weights": (lambda folder: ((folder / "a.bin").write_bytes(b""), (folder / "a.bin").read_bytes()), "it reads"),
    "a pickle": (lambda folder: pickle.loads(pickle.dumps(OrderedDict())), "pickle.find_class"),
    "a connection": (lambda folder: socket.create_connection(("127.0.0.1", 9)), "asks the network"),
    "an address": (lambda folder: urllib.request.urlopen("http://localhost:9/"), "asks the network"),
    "a program": (lambda folder: subprocess.run(["true"]), "it starts"),
    "a shell": (lambda folder: os.system("true"), "os.system"),
    "a line on standard output": (lambda folder: print("hello"), "standard output"),
    "a traceback on standard error": (lambda folder: print("Traceback (most recent call last)", file=sys.stderr), "Traceback"),
    "a panic on standard error": (lambda folder: os.write(2, b"thread main panicked at x.rs:3"), "panicked"),
}  # fmt: skip


@pytest.mark.medium
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault, tmp_path):
    commit, told = FAULTS[fault]
    ran = fuzz_child.run("harness", lambda seed, folder: commit(folder), [7], tmp_path)
    (failure,) = ran.failures
    assert told in failure.what and failure.seed == 7


@pytest.mark.medium
@pytest.mark.parametrize(
    ("hang", "deadline"),
    [(lambda: all(True for _ in iter(int, 1)), {"DEADLINE": 1}), (lambda: time.sleep(60), {"WAITING": 1})],
    ids=["computing", "waiting"],
)
def test_a_hang_is_seen_and_the_next_case_runs(hang, deadline, tmp_path, monkeypatch):
    for name, seconds in deadline.items():
        monkeypatch.setattr(fuzz_child, name, seconds)
    ran = fuzz_child.run("harness", lambda seed, folder: hang() if seed == 1 else None, [0, 1, 2], tmp_path)
    assert "it hangs" in ran.failures[0].what and "test_fuzz_harness" in ran.failures[0].what
    assert (ran.cases, ran.taken) == (3, 2)


def test_what_is_refused_in_one_line_is_right_and_its_input_is_not_kept(tmp_path):
    def case(seed, folder):
        (folder / "input").write_text("x")
        assert not (folder / "before").exists()
        (folder / "before").mkdir()
        if seed % 2:
            raise InputError("wrong", where="a:3", fix="fix it")

    ran = fuzz_child.run("harness", case, range(10), tmp_path)
    assert (ran.cases, ran.taken, ran.refused, ran.failures) == (10, 5, 5, ())
    assert not list(tmp_path.iterdir())


def test_the_input_of_a_failure_is_kept(tmp_path):
    def case(seed, folder):
        (folder / "input").write_text(str(seed))
        raise ValueError("no error of ours")

    ran = fuzz_child.run("harness", case, range(9), tmp_path, most=2)
    assert [(f.seed, (f.folder / "input").read_text()) for f in ran.failures] == [(0, "0"), (1, "1")]
    assert "test_fuzz_harness" in ran.failures[0].what
