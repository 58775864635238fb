"""Endpoints: what is sent, what is tried again, what is given up at once, and what never happens."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from luthier.comparison.contestants import AnswerOptions
from luthier.comparison.judge import JudgmentOptions, judge
from luthier.config.data import DataConfig
from luthier.core.errors import InputError, RunError, Stopped
from luthier.core.types.examples import Message
from luthier.evals.judging.endpoint import Endpoint, UnusableReply, is_this_machine, open_endpoint
from luthier.evals.judging.judges import JudgeSpec
from sentences import sentence

ASKED = (Message("user", "who?"),)


def completion(text):
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def server():
    """A server that answers with the entries of `replies` in turn, the last one for ever; `seen` are the requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.seen.append((self.path, dict(self.headers), json.loads(body)))
            reply = made.replies.pop(0) if len(made.replies) > 1 else made.replies[0]
            status, value, *headers = reply
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in headers:
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST

        def log_message(self, *about):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.replies, made.seen = [completion("A")], []
    made.url = f"http://127.0.0.1:{made.server_port}/v1"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def pauses():
    return []


def endpoint(server, pauses, **changes):
    return Endpoint(server.url, "big", sleep=pauses.append, **{"timeout": 2.0, **changes})


def test_what_is_sent(server, pauses):
    asked = endpoint(server, pauses, key="secret", extra={"max_tokens": None, "seed": 3})
    assert asked.complete(ASKED, str.lower) == "a"
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {"model": "big", "messages": [{"role": "user", "content": "who?"}], "temperature": 0, "seed": 3}
    assert "secret" not in repr(asked)


def test_what_may_pass_is_tried_again_with_growing_pauses(server, pauses):
    server.replies = [(500, {}), (429, {}), (503, b"busy"), completion("B")]
    assert endpoint(server, pauses).complete(ASKED, str) == "B"
    assert sum(pauses) == pytest.approx(1 + 2 + 4)
    assert len(server.seen) == 4


def test_a_server_that_says_when_is_believed(server, pauses):
    server.replies = [(429, {}, ("Retry-After", "7")), completion("B")]
    assert endpoint(server, pauses).complete(ASKED, str) == "B"
    assert sum(pauses) == pytest.approx(7)


def test_garbage_is_asked_for_again_twice(server, pauses):
    replies = [(200, b"<html>"), (200, {"choices": []}), completion("x")]
    server.replies = list(replies)
    assert endpoint(server, pauses).complete(ASKED, str) == "x"
    server.replies = [*replies[:2], completion("  "), completion("x")]
    with pytest.raises(UnusableReply, match=sentence("reply without text")):
        endpoint(server, pauses).complete(ASKED, str)

    server.replies, server.seen[:] = [(200, b"[" * 100_000), completion("x")], []  # too deep for Python's parser
    assert endpoint(server, pauses).complete(ASKED, str) == "x"

    def refuse(text):
        raise UnusableReply(f"not {text}")

    server.replies, server.seen[:] = [completion("x")], []
    with pytest.raises(UnusableReply, match=sentence("reply not x")):
        endpoint(server, pauses).complete(ASKED, refuse)
    assert len(server.seen) == 3


def test_what_will_not_pass_is_given_up_at_once(server, pauses):
    server.replies = [(401, {"error": {"message": "wrong \x1b[31mkey"}})]
    with pytest.raises(RunError) as error:
        endpoint(server, pauses, key="secret").complete(ASKED, str)
    assert str(error.value) == f"big at {server.url}: status 401: wrong \ufffd[31mkey; check the key: --key-env"
    assert len(server.seen) == 1
    assert pauses == []


def test_when_every_try_failed_the_last_fault_is_told(server, pauses):
    server.replies = [(503, {"detail": "overloaded"})]
    with pytest.raises(RunError, match=sentence("endpoint failed", status="503: overloaded")):
        endpoint(server, pauses, retries=2).complete(ASKED, str)
    assert len(server.seen) == 3


def test_a_server_that_is_not_there(server, pauses):
    server.shutdown()
    server.server_close()
    with pytest.raises(RunError, match=sentence("no connection", reason="Connection refused")):
        endpoint(server, pauses, retries=1).complete(ASKED, str)


def test_a_server_that_does_not_answer_in_time(server, pauses, monkeypatch):
    waiting = threading.Event()
    monkeypatch.setattr(server.RequestHandlerClass, "do_POST", lambda self: waiting.wait(5))
    with pytest.raises(RunError, match=sentence("no answer in time")):
        endpoint(server, pauses, retries=0, timeout=0.1).complete(ASKED, str)
    waiting.set()


def test_redirects_are_not_followed(server, pauses):
    """The key would go along."""
    server.replies = [(307, {}, ("Location", f"{server.url}/elsewhere"))]
    with pytest.raises(RunError, match=sentence("endpoint redirects", status=307)):
        endpoint(server, pauses, key="secret").complete(ASKED, str)
    assert len(server.seen) == 1


def test_a_stop_is_heard_between_two_tries(server, pauses):
    server.replies = [(500, {})]
    with pytest.raises(Stopped):
        endpoint(server, pauses).complete(ASKED, str, lambda: True)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", sentence("not a server's address", where="--endpoint", url="localhost:8000")),
        ("file:///etc/passwd", sentence("not a server's address", where="--endpoint")),
        ("http://", sentence("not a server's address", where="--endpoint")),
        ("http://[::1/v1", sentence("not a server's address", where="--endpoint")),
        ("http://h:99999/v1", sentence("not a server's address", where="--endpoint")),
        ("http://a..b/v1", sentence("not a server's address", where="--endpoint")),
        ("http://localhost/ü", sentence("not a server's address", where="--endpoint")),
        ("http://localhost/a b", sentence("not a server's address", where="--endpoint")),
        ("http://me:key@host/v1", sentence("key in the address")),
    ],
)
def test_addresses_that_are_refused(url, message):
    with pytest.raises(InputError, match=message):
        open_endpoint(url, "big", None, 1, 1)


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    found = open_endpoint(
        "http://host/v1/chat/completions", "big", "MY_KEY", 1, 1, ["max_tokens=null", "effort=low", "n=2"]
    )
    assert (found.key, found.url) == ("secret", "http://host/v1")
    assert found.extra == {"max_tokens": None, "effort": "low", "n": 2}
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(InputError, match=sentence("key not set", where="--key-env", key_env="MY_KEY")):
        open_endpoint("http://host/v1", "big", "MY_KEY", 1, 1)
    with pytest.raises(InputError, match=sentence("no model at endpoint", where="--endpoint-model")):
        open_endpoint("http://host/v1", None, None, 1, 1)
    with pytest.raises(InputError, match=sentence("not a request value", where="--request", pair="x")):
        open_endpoint("http://host/v1", "big", None, 1, 1, ["x"])


def test_a_key_is_never_shown(monkeypatch, server, pauses):
    """http.client would say the whole header when it holds a line end."""
    monkeypatch.setenv("MY_KEY", "secret\n")
    asked = open_endpoint(server.url, "big", "MY_KEY", 2.0, 0)
    assert asked.complete(ASKED, str) == "A"
    assert server.seen[0][1]["Authorization"] == "Bearer secret"
    for key in ("secret\nsecond", "secrét", "secret…"):
        monkeypatch.setenv("MY_KEY", key)
        with pytest.raises(InputError) as error:
            open_endpoint(server.url, "big", "MY_KEY", 2.0, 0)
        assert "--key-env: the environment variable MY_KEY holds characters that no key has" in str(error.value)
        assert "secr" not in str(error.value)


def test_a_key_in_the_request_is_not_shown_either(server, pauses):
    key = "sk-Live-9f8e7d6c5b4a"
    server.replies = [(400, {"error": {"message": f"no such account: {key}"}}), completion(f"A, {key}")]
    asked = endpoint(server, pauses, extra={"api_key": key, "max_tokens": 1024})
    with pytest.raises(RunError, match=sentence("endpoint refuses", status="400: no such account", said="[hidden]")):
        asked.complete(ASKED, str)
    assert asked.complete(ASKED, str) == "A, [hidden]"


def test_a_server_that_fails_half_way_is_asked_for_the_rest(server, tmp_path):
    for name in "ab":
        rows = [{"prompt": f"q{i}", "answer": f"{name}{i}"} for i in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = JudgeSpec(endpoint=server.url, endpoint_model="big", retries=0, parallel=1)
    asking = AnswerOptions(DataConfig(), 100, 8, tmp_path / "j.jsonl", 0, "cpu", "float32")
    asked = JudgmentOptions((str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")), wanted, asking)
    server.replies = [completion("A")] * 5 + [(500, {"error": {"message": "out of order"}})]
    with pytest.raises(RunError) as error:
        judge(asked)
    assert "status 500: out of order; 5 of 12 judgments are in" in str(error.value)
    assert str(error.value).endswith("run the same command again to continue")
    assert len(server.seen) == 6
    server.replies, server.seen[:] = [completion("**B**\n")], []
    result = judge(asked)
    assert (result["kept"], result["asked"], len(server.seen)) == (5, 7, 7)
    assert sum(result["pairs"][0][key] for key in ("wins", "losses", "ties")) == 6
    prompts = [body["messages"][0]["content"] for _, _, body in server.seen]
    assert not any("q0" in prompt or "q1" in prompt for prompt in prompts)


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("127.0.0.1.example.com", False), ("10.0.0.1", False)],
)  # fmt: skip
def test_only_this_machine_gets_a_key_without_a_word(host, here):
    assert is_this_machine(host) == here
