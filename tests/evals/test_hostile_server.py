"""Servers that answer slowly, endlessly, elsewhere, or with the key: in time, in bounds, and nothing leaks."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import threading
import time
from contextlib import suppress

import pytest

from luthier.core import secrets
from luthier.core.errors import RunError, Stopped
from luthier.core.types.examples import Message
from luthier.evals.judging.endpoint import Endpoint, UnusableReply
from sentences import sentence

ASKED = (Message("user", "who?"),)
KEY = "sk-proj-Zq7Wt9dLr2mXv4HnBc"
OK = b"HTTP/1.1 200 OK\r\n"


def completion(text):
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def whole(body, status=b"200 OK", *headers):
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.fixture
def serve(monkeypatch):
    """A server that sends every connection the pieces of a reply; `seconds` between them. Returns its endpoint."""
    monkeypatch.setattr(secrets, "KNOWN", set())
    over, seen = threading.Event(), []

    def start(pieces, seconds=0.0, **changes):
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(0.05)

        def talk(line):
            with line, suppress(OSError):
                line.settimeout(2)
                seen.append(line.recv(65536))
                for piece in pieces():
                    line.sendall(piece)
                    if over.wait(seconds):
                        return
                line.shutdown(socket.SHUT_WR)

        def listen():
            with listening:
                while not over.is_set():
                    with suppress(TimeoutError):
                        threading.Thread(target=talk, args=[listening.accept()[0]], daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        given = {"timeout": 0.5, "retries": 0, "key": KEY, "sleep": lambda seconds: None}
        found = Endpoint(url, "big", **(given | changes))
        return found, seen

    yield start
    over.set()


def forever(piece):
    while True:
        yield piece


def dripped(text):
    for byte in text:
        yield bytes([byte])


SLOW = {
    "nothing": lambda: forever(b""),
    "status line": lambda: dripped(b"HTTP/1.1 200 " + b"O" * 10_000),
    "headers": lambda: dripped(OK + b"X: y\r\n" * 1000),
    "body": lambda: [OK + b"Content-Length: 9000\r\n\r\n", *dripped(b" " * 9000)],
    "chunks": lambda: [OK + b"Transfer-Encoding: chunked\r\n\r\n", *dripped(b"1\r\n \r\n" * 2000)],
    "continue": lambda: forever(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "error": lambda: [b"HTTP/1.1 400 Bad\r\n\r\n", *dripped(b"x" * 4000)],
}


@pytest.mark.parametrize("kind", SLOW)
def test_a_reply_that_comes_byte_by_byte_is_late(serve, kind):
    """102 s passed with a timeout of 2 when it held for each byte."""
    asked, _ = serve(SLOW[kind], 0.02)
    began = time.monotonic()
    with pytest.raises(RunError, match=sentence("no answer in time")):
        asked.complete(ASKED, str)
    assert time.monotonic() - began < 5


def test_a_body_without_end_is_cut(serve):
    asked, _ = serve(lambda: [OK + b"\r\n", *[b"x" * 65536] * 200], timeout=10)
    with pytest.raises(UnusableReply, match=sentence("reply too long", most=4)):
        asked.complete(ASKED, str)


def test_a_packed_reply_is_not_unpacked(serve):
    bomb = gzip.compress(b"0" * 10_000_000)
    asked, seen = serve(lambda: [whole(bomb, b"200 OK", b"Content-Encoding: gzip")], timeout=10)
    with pytest.raises(UnusableReply, match=sentence("reply packed", how="gzip")):
        asked.complete(ASKED, str)
    assert b"Accept-Encoding: identity" in seen[0]


@pytest.mark.parametrize("target", ["http://127.0.0.1:1/", "https://example.com/", "file:///etc/passwd", "//other/"])
@pytest.mark.parametrize("status", [b"301 x", b"302 x", b"303 x", b"307 x", b"308 x"])
def test_no_redirect_is_followed(serve, status, target):
    asked, seen = serve(lambda: [whole(b"", status, b"Location: " + target.encode())])
    with pytest.raises(RunError, match=sentence("endpoint redirects", status=status[:3].decode(), said="")):
        asked.complete(ASKED, str)
    assert len(seen) == 1


ECHOES = {
    "plain": KEY, "in pieces": " ".join(KEY), "base64": base64.b64encode(KEY.encode()).decode(),
    "basic": "Basic " + base64.b64encode(f"me:{KEY}".encode()).decode(), "percent": "".join(f"%{ord(c):02x}" for c in KEY),
    "hexadecimal": KEY.encode().hex(), "backwards": KEY[::-1], "cut": "y" * 150 + KEY, "entities": "".join(f"&#{ord(c)};" for c in KEY),
}  # fmt: skip


@pytest.mark.medium
@pytest.mark.parametrize("echo", ECHOES)
def test_a_key_that_comes_back_is_not_shown(serve, echo, capsys):
    said = ECHOES[echo]
    for body in (
        said.encode(),
        json.dumps({"error": {"message": f"wrong key {said}"}}).encode(),
        b"x" * 4080 + said.encode(),
    ):
        asked, _ = serve(lambda body=body: [whole(body, b"401 no")])
        with pytest.raises(RunError) as error:
            asked.complete(ASKED, str)
        assert not any(KEY[i : i + 8] in str(error.value) for i in range(len(KEY) - 7))
        assert said not in str(error.value)
        assert "check the key: --key-env" in str(error.value)
    asked, _ = serve(lambda: [f"HTTP/9 {said}\r\n\r\n".encode()])
    with pytest.raises(RunError) as error:
        asked.complete(ASKED, str)
    assert KEY[:8] not in str(error.value) and said not in str(error.value)


def test_a_key_in_an_answer_is_hidden_before_anything_is_made_of_it(serve):
    asked, _ = serve(lambda: [whole(completion(f"A, and your key is {KEY}"))])
    assert asked.complete(ASKED, str) == "A, and your key is [hidden]"

    def refuse(text):
        raise UnusableReply(f"not {text}")

    with pytest.raises(UnusableReply, match=sentence("reply with key hidden")):
        asked.complete(ASKED, refuse)


def test_texts_that_no_file_can_hold(serve):
    asked, _ = serve(lambda: [whole(b'{"choices": [{"message": {"content": "a\\ud800b \\ud83d\\ude00"}}]}')])
    assert asked.complete(ASKED, str) == "a\ufffdb 😀"
    asked, _ = serve(lambda: [whole(b"\xff\xfe\x1b[31m" + "‮".encode(), b"400 x")])
    with pytest.raises(RunError, match=sentence("endpoint refuses", status=400, said="���[31m�")):
        asked.complete(ASKED, str)


@pytest.mark.parametrize("after", [b"31536000", b"1e400", b"nan", b"-5", b"Fri, 31 Dec 2100 23:59:59 GMT"])
def test_nobody_waits_for_a_year(serve, after):
    pauses = []
    asked, _ = serve(lambda: [whole(b"", b"503 x", b"Retry-After: " + after)], retries=1, sleep=pauses.append)
    with pytest.raises(RunError, match=sentence("endpoint failed", status=503)):
        asked.complete(ASKED, str)
    assert sum(pauses) <= 60


def test_a_page_of_megabytes_is_a_short_line(serve):
    asked, _ = serve(lambda: [whole(b"<html>" + b"<p>x</p>" * 1_000_000, b"500 x")], timeout=10)
    with pytest.raises(RunError) as error:
        asked.complete(ASKED, str)
    assert len(str(error.value)) < 400


@pytest.mark.medium
def test_a_stop_is_heard_while_a_server_is_silent(serve):
    asked, _ = serve(SLOW["nothing"], 0.02, timeout=60)
    began = time.monotonic()
    with pytest.raises(Stopped):
        asked.complete(ASKED, str, lambda: True)
    assert time.monotonic() - began < 10
