"""luthier report from the command line: paths, JSON, errors; and the command that a page gives is the run's."""

from __future__ import annotations

import json
import shlex
import webbrowser

import pytest

from luthier.cli import run as cli
from luthier.commands.settings import config_of
from luthier.commands.train import command as train
from luthier.config.resolve import resolve, write_yaml
from luthier.report.page.summary import command

RESULT = {
    "run": "r", "seconds": 1.0, "steps": 1, "tokens": 10, "tokens_per_second": 5.0, "example_tokens": 10,
    "peak_memory_bytes": 10, "trainable": 1, "parameters": 2, "loss": {"first": 1.0, "last": 1.0, "eval": None}, "metrics": {},
    "forgetting": None, "kept": {"step": 1, "why": "last"}, "data": {"rows": 1, "held_out": 0},
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two run directories with the least that a finished run leaves."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name / "evals").mkdir(parents=True)
        (tmp_path / name / "run.yaml").write_text(write_yaml(resolve({"data.path": ["rows.jsonl"], "out": name})))
        (tmp_path / name / "lineage.json").write_text('{"inputs": {}}')
        (tmp_path / name / "result.json").write_text(json.dumps(RESULT))
    return tmp_path


def test_the_path_is_printed_and_the_page_is_there(place, capsys):
    assert cli(["report", "a"]) == 0
    assert capsys.readouterr().out.strip() == "a/report.html"
    assert (place / "a" / "report.html").read_text().startswith("<!doctype html>")
    assert cli(["report", "a", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": "report-compare.html"}
    assert cli(["report", "a", "--out", "x/y.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": "x/y.html"}
    assert (place / "x" / "y.html").is_file()


def test_nothing_is_opened_unless_asked(place, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert cli(["report", "a"]) == 0
    assert opened == []
    assert cli(["report", "a", "--open"]) == 0
    assert opened == [(place / "a" / "report.html").as_uri()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "luthier: nowhere: not a run directory: no run.yaml in it; give a folder under runs/"),
        (
            ["a", "b", "--coding"],
            "luthier: luthier report: --coding takes one run; code the answers of one run at a time",
        ),
        (["a", "--coding"], "luthier: a: this run generated no answers to read;"),
        ([], "luthier: RUN [RUN ...] is missing; see `luthier report --help`"),
    ],
)
def test_mistakes_are_one_line(place, capsys, arguments, said):
    assert cli(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(said)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"data.path": ["rows.jsonl"]},
        {"data.path": ["my rows.jsonl", "b.csv"], "method": "grpo", "reward.use": ["exact", "2*regex:a b"], "policy.kl": 0.1},
        {"data.path": ["r.jsonl"], "data.columns": {"output": "the answer"}, "eval.forgetting": False, "train.steps": 3,
         "lora.dora": True, "text.system": "Say 'hi'."},
    ],
)  # fmt: skip
def test_the_command_on_a_page_has_the_settings_of_the_run(settings):
    config = resolve(settings)
    program, name, *arguments = shlex.split(command(config).replace("\\\n", ""))
    assert (program, name) == ("luthier", "train")
    values = train.make_context("train", arguments).params
    values.pop("json_")
    assert config_of(values.pop("data"), values) == config
