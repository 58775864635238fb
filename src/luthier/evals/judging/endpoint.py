"""A model behind an OpenAI-compatible endpoint, asked only when a URL is given."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from luthier.core import log
from luthier.core.errors import InputError, RunError, Stopped
from luthier.core.screen import line
from luthier.core.secrets import NAMED, keep, said_by_server, without
from luthier.core.types.examples import Message
from luthier.evals.judging.http_post import MAX_ERROR_BYTES, MAX_REPLY_BYTES, Reply, post

RETRIED_STATUSES = frozenset(
    {408, 409, 425, 429, 500, 502, 503, 504, 529}
)  # statuses that may be another a moment later
MAX_WAIT = 60.0  # seconds between two tries, at most
MAX_SHOWN = 160  # characters of what a server said
MAX_UNUSABLE = 2  # times that a reply which is garbage is asked for again


class UnusableReply(Exception):
    """A reply that cannot be used; asked again, it may be another."""


class _StatusError(Exception):
    """A status that is no success, with what the server said of it."""

    def __init__(self, reply: Reply, message: str) -> None:
        self.status, self.retry_after = reply.status, _seconds(reply.headers.get("Retry-After"))
        super().__init__(f"status {reply.status}" + (f": {message}" if message else ""))


@dataclass(frozen=True)
class Endpoint:
    """Where a model is asked. `url` ends before /chat/completions; `extra` changes keys of the request, None removes one.

    A try that fails in a way that may pass (time-out, no connection, status 429 or 5xx, a reply that is garbage) is made
    again up to `retries` times, at most twice for garbage, after 1, 2, 4, ... seconds, or what the server asks for, up to
    a minute. `timeout`: seconds for the whole reply to one try.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    retries: int = 5
    extra: Mapping[str, Any] = field(default_factory=dict)
    sleep: Callable[[float], object] = time.sleep

    def __post_init__(self) -> None:
        for secret in self._keys:
            keep(secret)

    @property
    def _keys(self) -> list[str]:
        """What is not to be shown: the key, and what `extra` gives under the name of one."""
        named = [value for name, value in self.extra.items() if NAMED.search(name) and isinstance(value, str)]
        return [key for key in (self.key, *named) if key]

    def complete(
        self, messages: Sequence[Message], accept: Callable[[str], Any], stop: Callable[[], bool] = lambda: False
    ) -> Any:
        """What `accept` makes of the model's answer; `accept` raises Garbage for one that is to be asked for again.

        Raises Garbage when the last reply was, RunError when the server could not be asked, and at once for what will
        not pass by itself, such as a wrong key; Stopped when `stop()` between two tries.
        """
        unusable = 0
        for attempt in range(self.retries + 1):
            wait = min(MAX_WAIT, 2.0**attempt)
            try:
                return accept(self._ask(messages, stop))
            except _StatusError as error:
                fault = str(error)
                if error.status not in RETRIED_STATUSES:
                    raise self._failed(fault, _fix(error.status)) from None
                wait = min(MAX_WAIT, max(wait, error.retry_after))
            except (OSError, http.client.HTTPException) as error:
                fault = self._shown(_connection_fault(error))
            except UnusableReply as error:
                unusable += 1
                if unusable > MAX_UNUSABLE or attempt == self.retries:
                    raise
                fault = str(error)
            if attempt < self.retries:
                self._wait(wait, stop)
        raise self._failed(fault, "see whether the server is well, or raise --timeout or --retries")

    def _ask(self, messages: Sequence[Message], stop: Callable[[], bool]) -> str:
        body = {
            "model": self.model, "messages": [{"role": m.role, "content": m.content} for m in messages], "temperature": 0,
            "max_tokens": 1024, **self.extra,
        }  # fmt: skip
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "luthier"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = json.dumps({key: value for key, value in body.items() if value is not None}).encode()
        reply = post(f"{self.url.rstrip('/')}/chat/completions", data, headers, self.timeout, stop)
        if not 200 <= reply.status < 300:
            raise _StatusError(reply, self._shown(_error_text(reply.body)))
        if not reply.complete:
            raise UnusableReply(f"the reply is longer than {MAX_REPLY_BYTES >> 20} MiB")
        if (encoding := reply.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise UnusableReply(f"the reply is packed ({self._shown(encoding)}), which was not asked for")
        try:
            content = json.loads(reply.body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            raise UnusableReply(
                f"the reply is not a chat completion: {self._shown(_error_text(reply.body))!r}"
            ) from None
        if not isinstance(content, str) or not content.strip():
            raise UnusableReply("the reply holds no text")
        text = content.encode("utf-16", "surrogatepass").decode(
            "utf-16", "replace"
        )  # files are UTF-8: no half characters
        return without(text, self._keys)

    def _shown(self, text: str) -> str:
        """What a server said, on one line, without the key, in whatever form it comes back; the beginning of it."""
        shown = line(without(said_by_server(text), self._keys))
        return shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + "…"

    def _wait(self, seconds: float, stop: Callable[[], bool]) -> None:
        """Sleep in short pieces, so that a stop is heard."""
        left = seconds
        while left > 0:
            if stop():
                raise Stopped("stopped while waiting for the endpoint")
            self.sleep(min(left, 0.25))
            left -= 0.25

    def _failed(self, fault: str, fix: str) -> RunError:
        return RunError(fault, where=f"{self.model} at {self.url}", fix=fix)


def open_endpoint(
    url: str, model: str | None, key_env: str | None, timeout: float, retries: int, extra: Sequence[str] = ()
) -> Endpoint:
    """The endpoint that the options name. Raises InputError for a URL that is none, a key that is not set or cannot be one."""
    parts = _split_url(url)
    if parts is None:
        raise InputError(
            f"'{url}' is not the address of a server", where="--endpoint", fix="such as http://localhost:8000/v1"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            "a key does not belong in the address", where="--endpoint", fix="name its variable: --key-env NAME"
        )
    if not model:
        raise InputError("no model is named", where="--endpoint-model", fix="give the name that the server knows it by")
    key = os.environ.get(key_env, "").strip() if key_env else None  # a file that it was read from ends its line
    if key_env and not key:
        raise InputError(
            f"the environment variable {key_env} is not set", where="--key-env", fix=f"export {key_env}=..."
        )
    if key and not (key.isascii() and key.isprintable()):  # said here, because http.client says the key itself
        raise InputError(
            f"the environment variable {key_env} holds characters that no key has", where="--key-env",
            fix=f"export {key_env}=... with the key alone",
        )  # fmt: skip
    if key and parts.scheme == "http" and not is_this_machine(parts.hostname or ""):
        log.warn(f"the key goes to {parts.hostname} unencrypted; use https:// if the server offers it")
    return Endpoint(
        url.removesuffix("/").removesuffix("/chat/completions"), model, key, timeout, retries, _request_changes(extra)
    )


def _split_url(url: str) -> SplitResult | None:
    """The parts of an address; None of what no request could be sent to."""
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").encode("idna"), parts.port  # both raise for what they cannot be
    except ValueError:
        return None
    sendable = parts.path.isascii() and url.isprintable() and " " not in url
    return parts if parts.scheme in ("http", "https") and host and sendable else None


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _request_changes(pairs: Sequence[str]) -> dict[str, Any]:
    out = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not (name and sign):
            raise InputError(f"'{pair}' is not KEY=VALUE", where="--request", fix="such as max_tokens=2000")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = value
    return out


def _fix(status: int) -> str:
    return {
        401: "check the key: --key-env", 403: "check the key: --key-env", 404: "check --endpoint and --endpoint-model",
        400: "see what the server says; --request changes what it is sent",
    }.get(status, "see what the server says")  # fmt: skip


def _seconds(text: str | None) -> float:
    try:
        return max(0.0, float(text or 0))
    except ValueError:
        return 0.0  # a date: the doubling waits do


def _connection_fault(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    return f"no connection: {getattr(reason, 'strerror', None) or reason or type(reason).__name__}"


def _error_text(raw: bytes) -> str:
    """A reply as text; of an error in JSON, its message."""
    text = raw[:MAX_ERROR_BYTES].decode("utf-8", "replace")
    try:
        value = json.loads(text)
        message = (
            value["error"]["message"]
            if isinstance(value.get("error"), dict)
            else value.get("message") or value.get("detail")
        )
        return message if isinstance(message, str) else text
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return text
