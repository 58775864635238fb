"""Paths: folders, globs, links, splits, and what is never read as rows."""

import json

import pytest

from luthier.core.errors import InputError
from luthier.data.paths import REFUSED
from luthier.data.read import read_rows


def put(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def fields(path, **how):
    return [row.fields for row in read_rows([path], **how)]


def places(path):
    return [row.origin.line for row in read_rows([path])]


def fault(*paths):
    with pytest.raises(InputError) as caught:
        list(read_rows(list(paths)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
