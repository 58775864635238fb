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


def test_the_limit_is_that_of_training(data, rows):
    assert data(rows, "--text.max_length", "8")["over_limit"] == {"limit": 8, "rows": 41, "share": 41 / 42}


def test_rows_that_the_test_file_shares_are_leaks(data, rows, tmp_path):
    test = tmp_path / "test.jsonl"
    test.write_text("".join(rows.read_text().splitlines(keepends=True)[:3]))
    assert data(rows, "--data.eval", test)["leaks"]["exact"] == 3


def test_clean_and_split_write_whole_rows_and_every_reason(data, rows, tmp_path):
    out = tmp_path / "new"
    result = data(rows, "--clean", "--split", "--to", out, "--near", "0", "--data.holdout", "0.2")
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
    data(rows, "--clean", "--split", "--to", again, "--near", "0", "--data.holdout", "0.2")
    assert all(
        (again / path.name).read_bytes() == path.read_bytes() for path in out.iterdir() if path.stem != "dropped"
    )


def test_the_card_for_people(rows, tiny_folder, capsys, tmp_path):
    assert run(["data", str(rows), "--model", str(tiny_folder), "--clean", "--to", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"layout +alpaca", out)
    assert re.search(r"rows +42", out)
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
