"""`luthier data`: the card for people and for scripts, mapped columns, and new files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from luthier.cli import run

KEYS = re.findall(r"`(\w+)`", (Path(__file__).parents[2] / "docs" / "run.md").read_text().split("`luthier data`:")[1])
CARD = [key for key in KEYS if key not in ("written", "path", "rows", "why")] + ["rows"]


@pytest.fixture
def data(tiny_folder, capsys):
    """Run `luthier data --json` and return its object."""

    def go(*arguments, status=0):
        assert run(["data", *map(str, arguments), "--model", str(tiny_folder), "--json"]) == status
        out = capsys.readouterr().out
        return json.loads(out)

    return go


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    words = ["red", "blue", "green", "gold", "grey", "pink", "teal", "plum"]
    lines = [
        {"instruction": f"Name colour {i} of {words[i % 8]}", "output": f"it is {w} {i}"}
        for i, w in enumerate(words * 5)
    ]
    lines += [lines[0], {"instruction": "Say nothing", "output": ""}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_json_is_one_object_with_the_documented_keys(data, rows):
    card = data(rows)
    assert set(card) == set(CARD)
    assert card["layout"] == "alpaca"
    assert card["rows"] == card["seen"] == 42
    assert card["duplicates"]["exact"] == 1
    assert sum(card["empty"].values()) == 1
    assert card["tokens"]["unit"] == "tokens"
    assert card["tokens"]["max"] < card["over_limit"]["limit"] == 1024


def test_columns_of_other_names(data, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("instruction,solution\nadd 1 and 1,2\nadd 2 and 2,4\n")
    assert data(path, "--data.columns", "output=solution")["layout"] == "alpaca"


def test_codes_that_could_mean_two_things_are_told_on_the_command_line(data, tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    rows = [{"instruction": f"q {i}", "output_1": "a", "output_2": "b", "preference": i % 3} for i in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(["data", str(path)]) == 2
    assert "could mean two things; say what each means, such as --data.values" in capsys.readouterr().err
    card = data(path, "--data.values", "1=output_1,2=output_2,0=tie")
    assert (card["rows"], card["unused"]) == (6, 3)
    assert card["codes"]["0"] == {"means": "a tie", "rows": 3}
    assert (card["read"]["preference"], card["unread"]) == ("preference", [])
    with_commas = data(path, "--data.values", "0=output_1", "--data.values", "1=output_2,2=tie")
    assert with_commas["codes"]["0"]["means"] == "output_1 better"
    assert run(["data", str(path), "--data.values", "1"]) == 2
    assert "'1' is not VALUE=MEANING" in capsys.readouterr().err


def test_the_limit_is_that_of_training(data, rows):
    assert data(rows, "--text.max_length", "8")["over_limit"] == {"limit": 8, "rows": 41, "share": 41 / 42}


def test_rows_that_the_test_file_shares_are_leaks(data, rows, tmp_path):
    test = tmp_path / "test.jsonl"
    test.write_text("".join(rows.read_text().splitlines(keepends=True)[:3]))
    assert data(rows, "--data.eval", test)["leaks"]["exact"] == 3


def test_clean_and_split_write_whole_rows_and_every_reason(data, rows, tmp_path):
    out = tmp_path / "new"
    result = data(rows, "--clean", "--split", "--out", out, "--near", "0", "--data.holdout", "0.2")
    files = {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in out.iterdir()}
    assert {name: len(lines) for name, lines in files.items()} == {
        name: file["rows"] for name, file in result["written"].items()
    }
    source = [json.loads(line) for line in rows.read_text().splitlines()]
    assert files["clean"] == source[:40]
    assert sorted(((row["row"], row["origin"]) for row in files["dropped"]), key=lambda item: item[1]) == [
        (source[40], f"{rows}:41"),
        (source[41], f"{rows}:42"),
    ]
    assert {row["filter"] for row in files["dropped"]} == {"duplicate", "empty"}
    assert sum(result["written"]["dropped"]["why"].values()) == 2
    assert sorted(map(str, files["train"] + files["test"])) == sorted(map(str, files["clean"]))
    assert 2 <= len(files["test"]) <= 16
    again = tmp_path / "again"
    data(rows, "--clean", "--split", "--out", again, "--near", "0", "--data.holdout", "0.2")
    assert all(
        (again / path.name).read_bytes() == path.read_bytes() for path in out.iterdir() if path.stem != "dropped"
    )


def test_the_card_for_people(rows, tiny_folder, capsys, tmp_path):
    assert run(["data", str(rows), "--model", str(tiny_folder), "--clean", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"layout +alpaca", out)
    assert re.search(r"rows +42", out)
    assert re.search(r"read +instruction, output; not read: nothing", out)
    assert re.search(r"dropped: \d+ rows in .*dropped.jsonl", out.replace("\n", ""))
    assert "\x1b" not in out


def test_a_stream_is_described(data, rows):
    card = data(rows, "--data.stream")
    assert card["seen"] == card["rows"] == 42


def test_standard_input(data, rows, monkeypatch):
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rows.read_bytes())))
    assert data("-")["rows"] == 42


def test_a_file_to_test_by_is_judged_beside_what_is_learned(tmp_path, capsys, monkeypatch):
    import re

    monkeypatch.chdir(tmp_path)
    lines = [f"{i * 7919 % 1009} or {i}?,{['yes', 'no'][i % 2]}\n" for i in range(200)]
    (tmp_path / "test.csv").write_text("text,label\n" + "".join(lines))
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(lines[:3]))

    def told(*arguments):
        assert run(["data", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    alone = told("test.csv", "--role", "test")
    assert (alone["good"], alone["seen"], alone["rows"]) == (True, None, 200)
    assert alone["needed"]["10"] == {"0.1": 77, "0.2": 155, "0.4": 312}
    assert alone["shown"]["0.2"] == pytest.approx(0.089)
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text().partition("## Checking a test set")[2]
    page = page.partition("## Splitting")[0].partition("`--json`: ")[2]
    assert set(alone) <= set(re.findall(r"`(\w+)`", page))
    seen = told("test.csv", "--role", "test", "--training", "train.csv")
    assert (seen["good"], seen["seen"]) == (False, {"exact": 3, "near": 0})
    assert run(["data", "test.csv", "--role", "test", "--training", "train.csv"]) == 0
    screen = capsys.readouterr().out
    assert "rows that training sees: 3 exact, 0 nearly the same" in screen
    assert "10 points need" in screen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--training", "x.csv"), "--training: this is only for test rows; give --role test, or --data.eval"),
        (("--role", "test", "--data.eval", "x.csv"), "--data.eval: PATH itself is the test"),
        (("--role", "test", "--split"), "--split: test rows are only described"),
        (("--role", "test", "--clean"), "--clean: test rows are only described"),
        (("--role", "test", "--data.stream"), "--data.stream: a test is read as a whole"),
    ],
)
def test_options_of_the_other_role_are_refused(tmp_path, capsys, options, message):
    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    with pytest.raises(SystemExit) as leaving:
        raise SystemExit(run(["data", str(tmp_path / "rows.csv"), *options]))
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err
