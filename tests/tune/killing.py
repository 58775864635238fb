"""Starts of commands that something befalls: a kill or a signal at the n-th file operation or after some time, half a
write, a disk that is full or read-only.

`python tests/tune/killing.py` is a parent that has imported everything and computed nothing. It reads a start a line, as JSON,
forks a child that does it in a folder, and answers how it ended. A start then costs what its command computes, no more.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import importlib
import io
import json
import os
import signal
import sys
import time
from pathlib import Path

PATIENCE = 300  # seconds that a start may take: it hangs otherwise
SIGNALS = {"kill": signal.SIGKILL, "half": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}
ANSWERS = {"full": errno.ENOSPC, "readonly": errno.EROFS, "closed": errno.EACCES}


class Operations:
    """Counts what changes the disk; at the `at`-th of these, `kind` happens: a signal, or from then on an error."""

    def __init__(self, kind: str | None, at: int) -> None:
        self.kind, self.at, self.count = kind, at, 0

    def tick(self, name: str, write=None) -> None:
        """One more operation. `write(share)` does a share of it, for one that a kill cuts in two."""
        self.count += 1
        if self.kind in ANSWERS:
            full = self.kind == "full"
            if self.count >= self.at and (not full or name in ("write", "mkdir", "fsync")):
                raise OSError(ANSWERS[self.kind], os.strerror(ANSWERS[self.kind]))
        elif self.kind in SIGNALS and self.count == self.at:
            if self.kind == "half" and write:
                write()
            os.kill(os.getpid(), SIGNALS[self.kind])

    def patch(self) -> None:
        """Count from now on, in this process."""
        for name in ("replace", "rename", "fsync", "unlink", "remove", "mkdir", "rmdir", "truncate"):
            setattr(os, name, self.counted(name, getattr(os, name)))
        fcntl.flock = self.counted("flock", fcntl.flock)
        real_open, real_file = os.open, builtins.open
        tick = self.tick

        def os_open(path, flags, *args, **named):
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                tick("open")
            return real_open(path, flags, *args, **named)

        class Raw(io.FileIO):
            def write(self, data):
                data = bytes(data)
                tick("write", lambda: io.FileIO.write(self, data[: len(data) // 2]))
                return super().write(data)

            def truncate(self, *args):
                tick("truncate")
                return super().truncate(*args)

        def file_open(
            file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None
        ):
            if not set(mode) & set("wax+"):
                return real_file(file, mode, buffering, encoding, errors, newline, closefd, opener)
            if opener is None and not isinstance(file, int):
                tick("open")
            raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd=closefd, opener=opener)
            handle = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return handle if "b" in mode else io.TextIOWrapper(handle, encoding, errors, newline)

        os.open, builtins.open, io.open = os_open, file_open, file_open
        import safetensors
        import safetensors.torch

        def serialize_file(tensors, name, metadata=None):
            with file_open(name, "wb") as handle:
                handle.write(safetensors.serialize(tensors, metadata))

        safetensors.torch.serialize_file = serialize_file

    def counted(self, name, function):
        def call(*args, **named):
            self.tick(name)
            return function(*args, **named)

        return call


def child(order: dict) -> None:
    """Do one start in this process, which ends with it."""
    os.setpgid(0, 0)
    os.chdir(order["folder"])
    said = os.open("../said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
    operations = Operations(order.get("kind"), order.get("at", 0))
    operations.patch()
    from luthier.cli import TEXTS_ONLY, main, run

    sys.argv = ["luthier", *order["arguments"]]
    status = 0
    if sys.argv[1] in TEXTS_ONLY:  # its program leaves torch out, which is here
        status = run(sys.argv[1:])
    else:
        try:
            main()
        except SystemExit as ended:
            status = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    operations.kind = None
    with open("../report", "w") as report:
        json.dump({"operations": operations.count, "modules": list(sys.modules)}, report)
    os._exit(status)


def start(order: dict) -> dict:
    """Fork a child for the start and wait for its end. `after` seconds later it gets the signal `kind`."""
    report, began = Path(order["folder"]).parent / "report", time.monotonic()
    report.unlink(missing_ok=True)
    if not (pid := os.fork()):
        try:
            child({name: value for name, value in order.items() if name != "kind" or "after" not in order})
        except BaseException:
            import traceback

            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(99)
    asked = None
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        spent = time.monotonic() - began
        if done:
            break
        if asked is None and "after" in order and spent >= order["after"]:
            asked = spent
            os.kill(pid, SIGNALS[order["kind"]])
        if spent > PATIENCE:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    told = json.loads(report.read_text()) if report.exists() else {}
    for name in told.pop("modules", ()):
        if name not in sys.modules:  # imported here, they are there in every child to come
            try:
                importlib.import_module(name)
            except Exception:
                continue
    return told | {"status": os.waitstatus_to_exitcode(status), "hung": spent > PATIENCE, "seconds": spent,
                     "ending": None if asked is None else spent - asked}  # fmt: skip


def main() -> None:
    import torch

    signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts us in the background has it ignored
    torch.set_num_threads(1)
    import transformers  # noqa: F401

    import luthier.tune.train  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(start(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
