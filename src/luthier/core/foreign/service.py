"""What stands at the other end of the line of a `child`: requests, replies, limits. Only the standard library is imported."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import socket
import sys
from collections.abc import Iterator

_encode = json.JSONEncoder(ensure_ascii=False).encode
GRACE = 10.0  # seconds that the parent has to end this process, before it does so itself


class Line:
    """Requests, one after the other until the other end closes, and replies to them."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # what this process starts must not keep the line open
        self._socket = socket.socket(fileno=descriptor)
        self._requests = self._socket.makefile("rb")

    def __iter__(self) -> Iterator[object]:
        with contextlib.suppress(ConnectionError):
            for request in self._requests:
                yield json.loads(request.decode("utf-8", "surrogatepass"))

    def send(self, *replies: object) -> None:
        """Answer, a line for each reply. Where nobody is left to hear it, this process has nothing more to do."""
        lines = "".join(_encode(reply) + "\n" for reply in replies)
        try:
            self._socket.sendall(lines.encode("utf-8", "surrogatepass"))
        except ConnectionError:
            sys.exit(0)


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[None]:
    """End this process when the block takes too long and nobody is left to end it: even C code that never returns."""
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def limit_memory(mib: int) -> None:
    """Let this process allocate so many MiB of data, where the system can hold it to that (Linux does)."""
    with contextlib.suppress(ImportError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = mib << 20
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))
