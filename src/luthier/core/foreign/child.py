"""A process beside this one, for what is not to be trusted with it: the user's functions, templates that came with a model.

It is the running interpreter, started with a list of arguments, and speaks lines of JSON over a socket pair. It leads a
session of its own, so that Ctrl-C does not reach it and everything it starts can be ended with it; when we are gone, however
that came, its line closes and it ends. What stands at its end of the line is in `service.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

ENDING_SECONDS = 2.0  # seconds that a process is given to end by itself
PIECE = 1 << 16
MAX_REPLY_BYTES = 1 << 28  # bytes of a reply
MEMORY_CHECK_SECONDS = 0.25  # seconds between two looks at the memory that a process takes
WATCH_MEMORY = sys.platform != "linux"  # elsewhere the system holds no process to its limit of memory, so we do

Why = Literal["late", "memory", "closed", "status", "signal", "reply"]
_children: weakref.WeakSet[Child] = weakref.WeakSet()


class Ended(Exception):
    """The process is no more. `why`: it was late, took too much memory, closed the line, ended with a status, was ended by
    a signal, or sent what is no reply; `number` is the status or the signal."""

    def __init__(self, why: Why, what: str, number: int = 0) -> None:
        super().__init__(what)
        self.why, self.what, self.number = why, what, number


class Child:
    """A process that runs `python -m MODULE FD MIB ARGUMENT...`. After `Ended` it is gone, with all that it started.

    A forked process has nothing to do with the children of the one that it came from: there they are closed.
    """

    def __init__(
        self,
        module: str,
        mib: int,
        arguments: Sequence[str] = (),
        *,
        silent: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it. What it writes goes to standard error, or nowhere when `silent`. Raises OSError when it cannot start."""
        ours, theirs = socket.socketpair()
        self.mib, self._line, self._held, self._owner = mib, ours, bytearray(), os.getpid()
        with theirs:
            try:
                self.process = subprocess.Popen(
                    # -P: the folder that a user stands in may be foreign, and no module is taken from there.
                    [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(mib), *arguments],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if silent else 2,
                    stderr=subprocess.DEVNULL if silent else None, pass_fds=(theirs.fileno(),),
                    start_new_session=True, env=environment,
                )  # fmt: skip
            except BaseException:
                ours.close()
                raise
        _children.add(self)

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, request: object, seconds: float, most: int = MAX_REPLY_BYTES) -> Any:
        """What it replies to a request, within so many seconds and bytes. Raises Ended."""
        until = time.monotonic() + seconds
        self.send(request, seconds)
        return self.receive(until - time.monotonic(), most, said=seconds)

    def send(self, request: object, seconds: float) -> None:
        """Hand it a request. Raises Ended; TypeError, ValueError and RecursionError where the request is not JSON."""
        self.send_line(json.dumps(request, ensure_ascii=False), seconds)

    def send_line(self, request: str, seconds: float) -> None:
        """`send` of what is JSON already, on one line."""
        try:
            self._line.settimeout(seconds)
            self._line.sendall(request.encode("utf-8", "surrogatepass") + b"\n")
        except TimeoutError:
            raise self._late(seconds) from None
        except OSError:  # nobody is there to read it
            raise self._dead() from None

    def receive(self, seconds: float, most: int = MAX_REPLY_BYTES, *, said: float | None = None) -> Any:
        """The next line it sends, within so many seconds, which errors call `said`. Raises Ended."""
        until = time.monotonic() + seconds
        seen = 0
        while (end := self._held.find(b"\n", seen)) < 0:
            seen = len(self._held)
            if seen > most:
                raise self._end("reply", f"it sent more than {most:,} bytes")
            self._held += self._piece(until, seconds if said is None else said)
        line = self._held[:end].decode("utf-8", "surrogatepass")
        del self._held[: end + 1]
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise self._end("reply", "it sent something else than JSON") from None

    def close(self) -> None:
        """End the process: politely, then not; and what it left running."""
        self._line.close()
        if self._owner == os.getpid():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(ENDING_SECONDS)
            self.kill()

    def kill(self) -> None:
        """End the process and all it started, at once."""
        self._line.close()
        if self._owner == os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()

    def _piece(self, until: float, seconds: float) -> bytes:
        while True:
            left = until - time.monotonic()
            try:
                self._line.settimeout(max(0.001, min(left, MEMORY_CHECK_SECONDS) if WATCH_MEMORY else left))
                piece = self._line.recv(PIECE)
            except TimeoutError:
                if time.monotonic() >= until:
                    raise self._late(seconds) from None
                if WATCH_MEMORY and self._takes() > self.mib << 20:
                    raise self._end("memory", f"it took more than {self.mib} MiB of memory") from None
                continue
            except OSError:
                raise self._dead() from None
            if not piece:
                raise self._dead()
            return piece

    def _takes(self) -> int:
        """Bytes of memory that it takes."""
        import psutil

        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def _late(self, seconds: float) -> Ended:
        return self._end("late", f"it took longer than {seconds:g} s")

    def _end(self, why: Why, what: str) -> Ended:
        self.kill()
        return Ended(why, what)

    def _dead(self) -> Ended:
        status: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self.process.wait(ENDING_SECONDS)
        self.kill()
        if status is None:
            return Ended("closed", "it closed the line to Luthier")
        if status >= 0:
            return Ended("status", f"its process ended with status {status}", status)
        return Ended("signal", f"its process was ended by {signal.Signals(-status).name}", -status)


def _forget() -> None:
    """In a process that was just forked: the lines belong to the other, which must be the only one to hold them."""
    for child in list(_children):
        child._line.close()
    _children.clear()


os.register_at_fork(after_in_child=_forget)
