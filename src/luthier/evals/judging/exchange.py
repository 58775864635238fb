"""One request to a server and its reply: within a deadline for the whole of it, a size, and the one address that was given."""

from __future__ import annotations

import http.client
import queue
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any

from luthier.core.errors import Stopped

MOST = 4 << 20  # bytes of a reply
GRACE = 2.0  # seconds that a request under way still has when somebody asked to stop
PAUSE = 0.05
FAULT = 4096  # bytes that are read of a reply that is an error
FOREVER = 10.0**6  # seconds


@dataclass(frozen=True)
class Reply:
    """What came back. `whole` says that it was not larger than MOST."""

    status: int
    headers: Message
    body: bytes
    whole: bool = True


class _Straight(urllib.request.HTTPRedirectHandler):
    """No redirects: the key and the texts go to the address that was given, and nowhere else."""

    def redirect_request(self, *about: Any) -> None:
        return None


def post(
    url: str, data: bytes, headers: Mapping[str, str], seconds: float, stop: Callable[[], bool] = lambda: False
) -> Reply:
    """Send and receive, in so many seconds from the first look-up of a name to the last byte, however slowly they come.

    A limit of time on a socket is one for each piece, so a server that sends a byte a second is never late. Here the exchange has
    a thread of its own, whose connection is cut when the time is over. Raises TimeoutError then, Stopped when `stop()` and the
    reply did not come soon after, OSError and HTTPException for connections that fail. Proxies are those of the environment.
    """
    seconds = min(seconds, FOREVER)
    opened: list[socket.socket] = []
    found: queue.SimpleQueue[Reply | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            found.put(_exchange(urllib.request.Request(url, data, dict(headers), method="POST"), seconds, opened))
        except BaseException as error:  # is raised where it is waited for
            found.put(error)

    threading.Thread(target=work, daemon=True).start()
    until, stopped = time.monotonic() + seconds, False
    while True:
        with suppress(queue.Empty):
            reply = found.get(timeout=PAUSE)
            if isinstance(reply, BaseException):
                raise reply
            return reply
        if not stopped and stop():
            stopped, until = True, min(until, time.monotonic() + GRACE)
        if time.monotonic() >= until:
            for line in opened:
                with suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)
            if stopped:
                raise Stopped("stopped while waiting for the endpoint")
            raise TimeoutError


def _exchange(request: urllib.request.Request, seconds: float, opened: list[socket.socket]) -> Reply:
    try:
        with _opener(opened).open(request, timeout=seconds) as reply:
            body = reply.read(MOST + 1)
            return Reply(reply.status, reply.headers, body[:MOST], len(body) <= MOST)
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.headers, error.read(FAULT))


def _opener(opened: list[socket.socket]) -> urllib.request.OpenerDirector:
    """What opens http and https, and nothing else; the sockets that it opens are put into `opened`."""

    def noted(kind: type[http.client.HTTPConnection]) -> Any:
        class Noted(kind):  # type: ignore[valid-type,misc]
            def connect(self) -> None:
                super().connect()
                opened.append(self.sock)

        return Noted

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(noted(http.client.HTTPConnection), request)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(noted(http.client.HTTPSConnection), request)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(), Plain(), Secure(), _Straight(), urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(), urllib.request.UnknownHandler(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener
