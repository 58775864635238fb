"""Paths: folders, globs, links, splits, and what is never read as rows."""

import json
import os

import pytest
from reading_of import fault, fields, put

from luthier.data.paths import REFUSED, files_of, split_of
from luthier.data.read import read_rows

ROWS = [{"text": "first"}, {"text": "second"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def test_folders_are_read_in_order_and_globs_too(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    put(tmp_path / "b", "x.txt", "last")
    put(tmp_path, "a.md", "first")
    put(tmp_path, "c.unknown", "not read")
    put(tmp_path / ".hidden", "x.txt", "not read")
    assert [row.fields["text"] for row in read_rows([str(tmp_path)])] == ["first", "last"]
    put(tmp_path, "z.jsonl", '{"text": "data"}\n')
    assert [row.fields["text"] for row in read_rows([str(tmp_path)])] == ["data"], "text beside data is its read-me"
    assert [row.fields["text"] for row in read_rows([str(tmp_path / "**" / "*.txt")])] == ["last"]


def test_paths_that_cannot_be_read(tmp_path):
    put(tmp_path, "train.jsonl", LINES)
    assert "did you mean" in fault(str(tmp_path / "trian.jsonl"))
    assert "no such file" in fault(str(tmp_path / "nowhere" / "x.jsonl"))
    assert "no file matches" in fault(str(tmp_path / "*.csv"))
    assert "known: .json" in fault(put(tmp_path, "a.odd", "x"))
    for ending in REFUSED:
        assert f"a{ending}: this is a" in fault(put(tmp_path, f"a{ending}", "x")).replace("is YAML", "is a").replace(
            "is XML", "is a"
        )
    (tmp_path / "empty").mkdir()
    assert "no file to read" in fault(str(tmp_path / "empty"))


def names(paths, **how):
    return [os.path.basename(path) for path in files_of([str(path) for path in paths], **how)]


def test_a_path_that_exists_is_no_pattern(tmp_path, monkeypatch):
    path = put(tmp_path / "a b [1] ü#%", "rows [x].JSONL", LINES)
    assert fields(path) == fields(str(tmp_path / "a b [[]1] *" / "rows*")) == ROWS
    decomposed = path.replace("ü", "u\u0308")
    assert fields(decomposed) == ROWS, "as macOS writes it"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fields("~/a b [1] ü#%/rows [x].JSONL") == ROWS


def test_links_and_copies(tmp_path, capsys):
    put(tmp_path, "rows.jsonl", LINES)
    put(tmp_path, "._rows.jsonl", b"\x00\x05\x16\x07")
    put(tmp_path / ".ipynb_checkpoints", "rows.jsonl", LINES)
    put(tmp_path / "elsewhere", "more.jsonl", LINES)
    folder = tmp_path / "in"
    folder.mkdir()
    put(folder, "UP.JSONL", LINES)
    os.symlink(tmp_path / "elsewhere", folder / "linked")
    os.symlink(folder, folder / "loop")
    os.symlink("/nowhere/rows.jsonl", folder / "gone.jsonl")
    os.symlink(folder / "UP.JSONL", folder / "again.jsonl")
    os.mkfifo(folder / "pipe.jsonl")
    assert names([folder]) == ["UP.JSONL", "more.jsonl"]
    said = capsys.readouterr().err
    assert "gone.jsonl: a broken link, left out" in said
    assert "again.jsonl: the same file as" in said
    assert names([tmp_path / "*.jsonl", tmp_path / "rows.jsonl"]) == ["rows.jsonl"], "nothing twice"
    assert "a broken link; it points to /nowhere/rows.jsonl" in fault(str(folder / "gone.jsonl"))


def test_an_empty_file_beside_others_is_named(tmp_path, capsys):
    put(tmp_path, "a.jsonl", LINES)
    put(tmp_path, "b.jsonl", "")
    assert fields(str(tmp_path)) == ROWS
    assert "b.jsonl: it has no rows" in capsys.readouterr().err


def test_what_of_a_folder_is_not_read_is_told(tmp_path, capsys):
    for name in ("README.md", "LICENSE.txt", "a.py"):
        put(tmp_path, name, "not data")
    put(tmp_path, "rows.jsonl", LINES)
    assert names([tmp_path]) == ["rows.jsonl"]
    assert not capsys.readouterr().err
    for name in ("notes.txt", "more.xlsx"):
        put(tmp_path, name, "perhaps data")
    assert names([tmp_path]) == ["rows.jsonl"]
    assert "left out more.xlsx, notes.txt" in capsys.readouterr().err


def test_splits_of_a_folder(tmp_path, capsys):
    for name in ("train-00000-of-00001", "test-00000-of-00001", "validation-00000-of-00001"):
        put(tmp_path / "data", f"{name}.jsonl", LINES)
    put(tmp_path, "dataset_infos.json", "{}")
    assert names([tmp_path]) == ["train-00000-of-00001.jsonl"]
    assert "left out data/test-00000-of-00001.jsonl, data/validation" in capsys.readouterr().err
    assert names([tmp_path], held_out=True) == ["validation-00000-of-00001.jsonl"]
    assert len(names([tmp_path / "data" / "*.jsonl"])) == 3, "a pattern means what it matches"
    (tmp_path / "data" / "train-00000-of-00001.jsonl").unlink()
    assert len(names([tmp_path])) == 2, "nothing to learn from by name: all of them"


@pytest.mark.parametrize(
    ("name", "split"),
    [("train_sft", "train"), ("test-00000-of-00001.parquet", "test"), ("my.dev.jsonl", "validation"), ("contest", None),
     ("training", "train"), ("eval", "validation"), ("trains.csv", None), ("val", "validation")],
)  # fmt: skip
def test_names_of_splits(name, split):
    assert split_of(name) == split
