"""luthier compare, test, judge and elo from the command line: what they print, JSON, and their exit statuses."""

from __future__ import annotations

import json

import pytest

from luthier.cli import run

SUITE = """\
sampling: {max_new_tokens: 2}
groups:
  - name: g
    cases:
      - {name: any, prompt: "who?", checks: [{length: {max: 99}}]}
      - {name: none, prompt: "what?", checks: [{equals: nothing}]}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suite.yaml").write_text(SUITE)
    rows = [{"prompt": f"who {i}?", "completion": "cat"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in "ab":
        lines = [{"prompt": f"who {i}?", "answer": f"{name} {i}"} for i in range(6)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def status(*arguments):
    try:
        return run([str(argument) for argument in arguments])
    except SystemExit as leaving:
        return leaving.code


def told(capsys, *arguments, status_=0):
    assert status(*arguments, "--json") == status_
    out, _ = capsys.readouterr()
    return json.loads(out)


LOCAL = ("--device", "cpu", "--dtype", "float32", "--threads", "1")


@pytest.mark.medium
def test_a_suite_sets_the_exit_status(place, tiny_folder, capsys):
    arguments = ("test", "suite.yaml", "--model", tiny_folder, *LOCAL, "--junit", "out.xml")
    assert status(*arguments) == 1
    text = capsys.readouterr().out
    assert "✗ g › none" in text
    assert "is not 'nothing'" in text
    assert (place / "out.xml").read_text().startswith("<?xml")
    result = told(capsys, *arguments, status_=1)
    assert (result["model"], result["met"], result["all"]["threshold"]) == (str(tiny_folder), False, 1.0)
    (place / "suite.yaml").write_text("threshold: 0.5\n" + SUITE)
    assert status(*arguments) == 0
    (place / "suite.yaml").write_text(SUITE.replace("equals", "equls"))
    assert status(*arguments) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1] == "luthier: suite.yaml:6: unknown key 'equls'; did you mean 'equals'?"
    )


@pytest.mark.medium
def test_compare_prints_a_table_or_json(place, tiny_folder, capsys):
    arguments = (
        "compare",
        f"a={tiny_folder}",
        f"b={tiny_folder}",
        "--data",
        "rows.jsonl",
        "--eval.max_new_tokens",
        "2",
        *LOCAL,
    )
    assert status(*arguments, "--false-alarms") == 0
    text = capsys.readouterr().out
    assert "against a" in text
    assert "no difference shown" in text
    assert "check: equal models were called different in 0.0% of 200" in text
    result = told(capsys, *arguments)
    assert [row["difference"] for row in result["rows"]] == [0.0] * len(result["rows"])
    assert result["models"] == {"a": [str(tiny_folder)], "b": [str(tiny_folder)]}


def test_judge_then_elo(place, tiny_folder, capsys):
    arguments = ("judge", "a.jsonl", "b.jsonl", "--judge", tiny_folder, "--out", "j.jsonl", *LOCAL)
    result = told(capsys, *arguments)
    assert (result["prompts"], result["asked"], result["kept"], result["unreadable"]) == (6, 12, 0, 0)
    assert status(*arguments) == 0
    assert "how far to trust it" in capsys.readouterr().out
    assert told(capsys, *arguments)["kept"] == 12
    rated = told(capsys, "elo", "j.jsonl", "--rounds", "100")
    assert {rating["model"] for rating in rated["ratings"]} == {"a.jsonl", "b.jsonl"}
    assert (rated["judgments"], rated["duels"]) == (12, 6)
    assert rated["annotators"][0]["steady"]["n"] == 6
    assert status("elo", "j.jsonl", "--anchor", "b.jsonl=1200", "--length-control") == 0
    assert "1200" in capsys.readouterr().out
    assert status("elo", "j.jsonl", "--anchor", "b.jsonl=x") == 2
    assert "--anchor: 'x' is not a rating" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("judge", "a.jsonl", "b.jsonl"),
            "no judge is named; give --judge MODEL, or --endpoint URL with --endpoint-model NAME",
        ),
        (("judge", "a.jsonl", "b.jsonl", "--endpoint", "x"), "--endpoint: 'x' is not the address of a server"),
        (("judge", "a.jsonl"), "a comparison needs two or more; for example `luthier judge smollm2-135m runs/mine`"),
        (("compare", "a", "b"), "nothing to compare on; give one of --data FILE, --suite FILE and --tasks NAMES"),
        (
            ("compare", "a", "b", "--tasks", "all"),
            "a: no benchmark records; make them: luthier eval a --tasks NAMES --data-dir FOLDER",
        ),
        (("elo", "rows.jsonl"), "rows.jsonl:1: unknown key 'completion' in a judgment"),
        (("elo", "none.jsonl"), "none.jsonl: no such file or folder"),
        (("test", "none.yaml", "--model", "x"), "none.yaml: cannot read the suite: No such file or directory"),
    ],
)
def test_wrong_input_is_one_line(place, capsys, arguments, message):
    assert status(*arguments) == 2
    assert f"luthier: {message}" in capsys.readouterr().err.splitlines()[-1]
