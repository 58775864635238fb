"""luthier quickstart: the whole way, on a tiny model; stopped and gone on with."""

from __future__ import annotations

import json
import signal
import time

import pytest

from luthier.cli import run
from luthier.core.storage.files import read_json
from luthier.tune import quickstart as app_quickstart
from luthier.tune import train as app_train
from whole_runs import signalled_after

pytestmark = pytest.mark.medium


@pytest.fixture
def arguments(tmp_path, tiny_folder):
    options = {
        "--model": tiny_folder, "--out": tmp_path / "run", "--limit": 24, "--train.steps": 4, "--train.batch": 4,
        "--eval.rows": 8, "--eval.samples": 8, "--threads": 1, "--device": "cpu",
    }  # fmt: skip
    return ["quickstart", *(str(part) for option in options.items() for part in option)]


def test_a_stop_leaves_a_run_that_the_same_command_goes_on_with(arguments, tmp_path, capsys, monkeypatch):
    with signalled_after(2, signal.SIGINT):
        assert run(arguments) == 130
    out, err = capsys.readouterr()
    headings = [line.strip("─ ") for line in out.splitlines() if line.endswith("───") and line[0] != "─"]
    assert headings == [
        "the data", "what is learned, token by token", "this run", "before: what the model says as it is",
    ]  # fmt: skip
    assert out.count(" tokens · ") == 3  # three examples token by token
    assert "ROUGE-L" in out and "one line, %" in out and out.count("answer") >= 2
    assert "run the same command again to continue" in err
    assert run(arguments) == 0
    text = capsys.readouterr().out
    places = [
        text.index(part) for part in ("before and after", "the same questions", "what the model forgot", "the run ─")
    ]
    assert places == sorted(places)
    assert run([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["steps"], result["metrics"]["rouge_l"]["n"]) == (4, 8)
    assert result["forgetting"]["sentence"]
    assert {"rouge_l", "chrf", "one_line", "length", "loss"} <= set(result["metrics"])
    assert result == read_json(tmp_path / "run" / "result.json")


def test_its_time_begins_before_the_data_is_read(arguments, capsys, monkeypatch):
    seen = {}
    read = app_quickstart.read_examples

    def reading(*given):
        seen.setdefault("read", time.monotonic())
        return read(*given)

    monkeypatch.setattr(app_quickstart, "read_examples", reading)
    monkeypatch.setattr(app_train, "run", lambda config, show, began: {"began": began})
    assert run([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert 0 < json.loads(out)["began"] <= seen["read"]
    assert "reading the functions of Python's own library" in err


def test_a_bad_setting_is_told_before_anything_is_read(capsys):
    assert run(["quickstart", "--train.steps", "many"]) == 2
    assert capsys.readouterr().err == "luthier: --train.steps: should be a valid integer, not 'many'\n"
