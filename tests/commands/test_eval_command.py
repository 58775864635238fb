"""`luthier eval` on the command line."""

from __future__ import annotations

import json

import pytest

from luthier.cli import run


@pytest.fixture
def data(tmp_path):
    rows = [
        {"goal": f"to sit on mat {i}", "sol1": "the cat sat", "sol2": "a dog ran by the tree", "label": i % 2}
        for i in range(8)
    ]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


def test_json_is_all_there_is_on_standard_output(tiny_folder, data, tmp_path, capsys):
    arguments = ["eval", str(tiny_folder), "--tasks", "piqa", "--data-dir", str(data), "--out", str(tmp_path / "out")]
    assert run([*arguments, "--dtype", "float32", "--shots", "2", "--threads", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert set(result["tasks"]["piqa"]) == {"acc", "acc_norm"}
    assert result["tasks"]["piqa"]["acc"]["n"] == 8
    assert result["chat_template"] is False and result["dtype"] == "float32" and result["shots"] == {"piqa": 2}
    assert result["truncated"] == {"piqa": 0}
    assert len(next(iter(result["files"]["piqa"].values()))) == 64
    assert "piqa, 2 shots" in err


def test_the_screen_shows_value_interval_and_how(tiny_folder, data, tmp_path, capsys):
    arguments = ["eval", str(tiny_folder), "--tasks", "piqa", "--data-dir", str(data), "--out", str(tmp_path / "out")]
    assert run([*arguments, "--dtype", "float32", "--chat"]) == 0
    out = capsys.readouterr().out
    for words in ("piqa", "accuracy, by length, %", "95 % interval", "documents", "on (chat)", "piqa.jsonl ("):
        assert words in out


def test_records_of_a_bare_model_go_below_evals(tiny_folder, data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["eval", str(tiny_folder), "--tasks", "piqa", "--data-dir", str(data), "--dtype", "float32"]) == 0
    assert (tmp_path / "evals" / "tiny" / "piqa.jsonl").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tasks", "pica"], "--tasks: unknown task 'pica'; did you mean 'piqa'?"),
        (["--tasks", "piqa"], "--data-dir: the files of piqa are not given; give the folder that holds them"),
        (["--tasks", "piqa", "--data-dir", "nowhere"], "nowhere: no such folder; give --data-dir"),
        (["--tasks", "leaderbord"], "--tasks: unknown task 'leaderbord'; did you mean 'leaderboard'?"),
        (["--tasks", "leaderboard", "--shots", "3"], "--shots: the suite leaderboard has its own examples"),
        (["--suite", "all"], "--suite: unknown suite 'all'; known: leaderboard"),
        (["--tasks", "piqa", "--shots", "-1"], "--shots"),
        ([], "nothing to measure; give --tasks"),
        (["--tasks", "perplexity", "--text", "nowhere.txt"], "nowhere.txt: no such file or folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words, tiny_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["eval", str(tiny_folder), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert words in line


def test_a_broken_row_is_named_with_its_line(tiny_folder, data, tmp_path, capsys):
    with open(data / "piqa.jsonl", "a") as handle:
        handle.write('{"goal": "g", "sol1": "a", "sol2": "b", "label": 2}\n')
    arguments = ["eval", str(tiny_folder), "--tasks", "piqa", "--data-dir", str(data), "--out", str(tmp_path / "out")]
    assert run(arguments) == 2
    err = capsys.readouterr().err.strip()
    assert err.endswith(
        "piqa.jsonl:9: the right answer is number 3 of 2 choices; "
        "the file must be as its authors published it: fetch it again"
    )
    assert "\n" not in err
