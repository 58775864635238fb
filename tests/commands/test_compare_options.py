"""Every option that docs/compare.md names does what it says, from the command line; the checks of suites are tried in
test_suite_docs.py."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from luthier.cli import run

PAGE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
LOCAL = ("--device", "cpu", "--dtype", "float32", "--threads", "1")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"who {i}?", "completion": f"cat {i}"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in "ab":
        lines = [{"prompt": f"who {i}?", "answer": f"{name} {i}"} for i in range(8)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


@pytest.fixture
def told(capsys):
    """What a command prints with --json, when it ends with `status`."""

    def tell(*arguments, status=0):
        try:
            found = run([*map(str, arguments), "--json"])
        except SystemExit as leaving:
            found = leaving.code
        out, err = capsys.readouterr()
        assert found == status, err
        return json.loads(out)

    return tell


@pytest.fixture
def server():
    """A judge that prefers whatever stands second, or says yes; `fail` replies are refused first."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.seen.append((self.headers["Authorization"], body))
            made.fail -= 1
            word = "Yes" if "Yes" in body["messages"][-1]["content"] else "B"
            raw = json.dumps({"choices": [{"message": {"role": "assistant", "content": word}}]}).encode()
            self.send_response(503 if made.fail >= 0 else 200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *about):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.seen, made.fail = [], 0
    made.url = f"http://127.0.0.1:{made.server_port}/v1"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.mark.medium
def test_options_of_a_judge_behind_an_endpoint(place, told, server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    judge = ("--endpoint", server.url, "--endpoint-model", "big", "--key-env", "MY_KEY", "--timeout", 5, "--retries", 1,
             "--parallel", 2, "--request", "max_tokens=7")  # fmt: skip
    server.fail = 1
    result = told(
        "judge", "mine=a.jsonl", "b.jsonl", "reference", "--data", "rows.jsonl", "--rows", 3, *judge, "--out", "j.jsonl"
    )
    assert (result["prompts"], result["asked"], result["out"]) == (3, 18, "j.jsonl")
    assert {label for pair in result["pairs"] for label in pair["models"]} == {"mine", "b.jsonl", "reference"}
    assert len(server.seen) == 19  # one was tried again
    assert {key for key, _ in server.seen} == {"Bearer s3cret"}
    assert {(body["model"], body["max_tokens"]) for _, body in server.seen} == {("big", 7)}
    people = [json.loads(line) | {"annotator": "anna"} for line in (place / "j.jsonl").read_text().splitlines()]
    for line in people:
        line["info"] = {}
    (place / "people.jsonl").write_text("".join(json.dumps(line) + "\n" for line in people))
    again = told("judge", "mine=a.jsonl", "b.jsonl", "reference", "--data", "rows.jsonl", "--rows", 3, *judge,
                 "--out", "j.jsonl", "--human", "people.jsonl")  # fmt: skip
    assert (again["kept"], again["human"]["units"] > 0) == (18, True)
    server.seen.clear()
    server.fail = 99
    with pytest.raises(AssertionError, match="503"):
        told("judge", "a.jsonl", "b.jsonl", *judge[:8], "--retries", 0, "--out", "k.jsonl")
    assert len(server.seen) <= 4  # as many as are asked at a time, and no second try


def test_a_suite_is_judged_by_an_endpoint_and_what_it_said_is_kept(place, told, server, tiny_folder):
    case = '{prompt: %s, checks: [{judged: "Is it?"}]}'
    cases = ", ".join(case % name for name in "ab")
    (place / "s.yaml").write_text(f"sampling: {{max_new_tokens: 2}}\ngroups: [{{name: g, cases: [{cases}]}}]")
    arguments = ("test", "s.yaml", "--model", tiny_folder, *LOCAL, "--endpoint", server.url, "--endpoint-model", "big",
                 "--judged", "said.jsonl")  # fmt: skip
    assert told(*arguments)["met"]
    assert len(server.seen) == 2
    assert told(*arguments)["met"]
    assert len(server.seen) == 2


def test_answers_of_models_have_the_length_that_is_asked_for(place, told, tiny_folder):
    arguments = ("judge", f"one={tiny_folder}", "a.jsonl", "--data", "rows.jsonl", "--rows", 2, "--max-new-tokens", 1,
                 "--judge", tiny_folder, "--out", "j.jsonl", *LOCAL)  # fmt: skip
    assert told(*arguments)["prompts"] == 2
    kept = [json.loads(line) for line in (place / "j.one.answers.jsonl").read_text().splitlines()]
    assert len(kept) == 2
    assert max(len(line["answer"]) for line in kept) < 20  # one token


@pytest.mark.medium
def test_options_of_compare(place, told, tiny_folder):
    arguments = (
        "compare",
        f"a={tiny_folder}",
        f"b={tiny_folder}",
        "--data",
        "rows.jsonl",
        "--eval.max_new_tokens",
        2,
        *LOCAL,
    )
    own = told(
        *arguments, "--eval.metrics", "exact", "--eval.metrics", "token_f1", "--false-alarms", "--out", "items.jsonl"
    )
    assert [row["name"] for row in own["rows"]] == ["loss", "exact", "token_f1"] or {
        row["name"] for row in own["rows"]
    } == {"loss", "exact", "token_f1"}
    assert set(own["false_alarms"]) == {"loss", "exact", "token_f1"}
    lines = [json.loads(line) for line in (place / "items.jsonl").read_text().splitlines()]
    assert len(lines) == 24
    plain = told(*arguments, "--text.template", "plain")
    told_so = told(*arguments, "--system", "Say cat.")
    losses = [next(row["before"] for row in found["rows"] if row["name"] == "loss") for found in (own, plain, told_so)]
    assert len(set(losses)) == 3


def test_options_of_elo(place, told):
    lines = [
        {"prompt": f"p{i}", "models": ["a", "b"], "answers": ["x" * (i * i % 23 + 1), "y" * (i % 5 + 1)],
         "order": [0, 1], "annotator": "me", "verdict": [1, 2] if i % 3 else [2, 1]}
        for i in range(40)
    ]  # fmt: skip
    (place / "j.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first = told("elo", "j.jsonl", "--anchor", "b=1200", "--rounds", 200, "--seed", 1)
    rated = {rating["model"]: rating for rating in first["ratings"]}
    assert rated["b"]["rating"] == pytest.approx(1200)
    assert told("elo", "j.jsonl", "--anchor", "b=1200", "--rounds", 200, "--seed", 1) == first
    assert told("elo", "j.jsonl", "--anchor", "b=1200", "--rounds", 200, "--seed", 2)["ratings"] != first["ratings"]
    assert first["length"] is None
    assert told("elo", "j.jsonl", "--length-control", "--rounds", 100)["length"] is not None


def test_every_option_of_the_page_is_tried_somewhere():
    tests = Path(__file__).parents[1]
    tried = "".join(path.read_text(encoding="utf-8") for path in tests.rglob("test_*.py"))
    for option in set(re.findall(r"--([a-z][a-z_.-]+[a-z])", PAGE)):
        assert option in tried or option.replace(".", "__") in tried, option
