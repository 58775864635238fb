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

MAX_REPLY_BYTES = 4 << 20  # bytes of a reply
GRACE_SECONDS = 2.0  # seconds that a request under way still has when somebody asked to stop
POLL_SECONDS = 0.05
MAX_ERROR_BYTES = 4096  # bytes that are read of a reply that is an error
LONGEST_TIMEOUT = 10.0**6  # seconds


@dataclass(frozen=True)
class Reply:
    """What came back. `complete` says that it was not larger than MAX_REPLY_BYTES."""

    status: int
    headers: Message
    body: bytes
    complete: bool = True


class _NoRedirects(urllib.request.HTTPRedirectHandler):
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
    seconds = min(seconds, LONGEST_TIMEOUT)
    sockets: list[socket.socket] = []
    replies: queue.SimpleQueue[Reply | BaseException] = queue.SimpleQueue()

    def exchange() -> None:
        try:
            replies.put(
                _send_and_receive(urllib.request.Request(url, data, dict(headers), method="POST"), seconds, sockets)
            )
        except BaseException as error:  # is raised where it is waited for
            replies.put(error)

    threading.Thread(target=exchange, daemon=True).start()
    deadline, stopped = time.monotonic() + seconds, False
    while True:
        with suppress(queue.Empty):
            reply = replies.get(timeout=POLL_SECONDS)
            if isinstance(reply, BaseException):
                raise reply
            return reply
        if not stopped and stop():
            stopped, deadline = True, min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() >= deadline:
            for connection in sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            if stopped:
                raise Stopped("stopped while waiting for the endpoint")
            raise TimeoutError


def _send_and_receive(request: urllib.request.Request, seconds: float, sockets: list[socket.socket]) -> Reply:
    try:
        with _opener(sockets).open(request, timeout=seconds) as reply:
            body = reply.read(MAX_REPLY_BYTES + 1)
            return Reply(reply.status, reply.headers, body[:MAX_REPLY_BYTES], len(body) <= MAX_REPLY_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.headers, error.read(MAX_ERROR_BYTES))


def _opener(sockets: list[socket.socket]) -> urllib.request.OpenerDirector:
    """What opens http and https, and nothing else; the sockets that it opens are put into `sockets`."""

    def recording(kind: type[http.client.HTTPConnection]) -> Any:
        class Recording(kind):  # type: ignore[valid-type,misc]
            def connect(self) -> None:
                super().connect()
                sockets.append(self.sock)

        return Recording

    class Http(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(recording(http.client.HTTPConnection), request)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(recording(http.client.HTTPSConnection), request)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(), Http(), Https(), _NoRedirects(), urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(), urllib.request.UnknownHandler(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener
