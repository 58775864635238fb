"""The journal of all: what a kill leaves of it, what was changed since, and what is no journal."""

from __future__ import annotations

import json
import os

import pytest
from typing_extensions import TypedDict

from luthier.core import journal as journal_module
from luthier.core.errors import InputError
from luthier.core.journal import Journal
from sentences import sentence

FIX = "put it back"
ROWS = [{"row": 0, "said": "ä\u2028\n"}, {"row": 1, "said": "\ud800"}]


class Row(TypedDict):
    row: int


@pytest.fixture
def journal(tmp_path):
    made = Journal(tmp_path / "new" / "a.jsonl", FIX)
    made.add(*ROWS)
    return made


def test_what_is_added_is_read(journal):
    journal.add({"row": 2})
    assert journal.read(Row) == [*ROWS, {"row": 2}]
    assert Journal(journal.path.with_name("none.jsonl"), FIX).read(Row) == []


def test_every_place_a_kill_can_cut_it_at(journal):
    content = journal.path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]
    for size in range(len(content) + 1):
        journal.path.write_bytes(content[:size])
        found = journal.read(Row)
        assert found == ROWS[: sum(size >= end - 1 for end in ends)]  # a line is whole without its end too
        journal.add({"row": 9})
        assert journal.read(Row) == [*found, {"row": 9}]


def test_a_file_that_grew_before_its_content_came_to_the_disk(journal):
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b"\0" * 40)
    assert journal.read(Row) == ROWS
    assert journal.path.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            b'{"row": 7, "sum": "0123456789abcdef"}\n',
            "a.jsonl:2: this line was changed since it was written; put it back",
        ),
        (b'{"row": 7\n', "a.jsonl:2: not JSON; put it back"),
        (b'{"row": "7"}\n', "a.jsonl:2: 'row' should be a valid integer"),
        (b"[]\n", "a.jsonl:2: this should be a valid dictionary, not a list"),
    ],
)
def test_a_damaged_line_is_refused_with_its_place(journal, line, told):
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + line + lines[1])
    with pytest.raises(InputError) as caught:
        journal.read(Row)
    assert told in str(caught.value)


@pytest.mark.parametrize("end", [b"my notes", b'{"row": 1}\nmy notes', b"{}\n[1, 2"])
def test_the_end_of_a_file_of_somebody_else_is_not_cut(tmp_path, end):
    path = tmp_path / "notes.jsonl"
    path.write_bytes(end)
    with pytest.raises(InputError, match=sentence("not json")):
        Journal(path, FIX).end()
    assert path.read_bytes() == end


def test_the_first_line_may_have_a_form_of_its_own(journal):
    class First(TypedDict):
        settings: int

    with pytest.raises(InputError, match=sentence("record lacks", where="a.jsonl:1", key="settings")):
        journal.read(Row, first=First)
    journal.cut()
    journal.add({"settings": 1}, {"row": 0})
    assert journal.read(Row, first=First) == [{"settings": 1}, {"row": 0}]


def test_fragments_of_earlier_versions(journal):
    whole = journal.path.read_bytes()
    journal.path.write_bytes(b'{"row": 5, "sa\n' + whole)
    assert journal.read(Row, fragments=True) == ROWS
    journal.path.write_bytes(b"row 5\n" + whole)
    with pytest.raises(InputError, match=sentence("not json", where="a.jsonl:1")):
        journal.read(Row, fragments=True)


def test_lines_without_sums_are_as_they_are(tmp_path):
    journal = Journal(tmp_path / "a.jsonl", FIX, sums=False)
    journal.add({"loss": 0.5, "text": "ü"})
    assert journal.path.read_text(encoding="utf-8") == '{"loss": 0.5, "text": "ü"}\n'


def test_it_is_cut_back_to_a_mark(journal):
    mark = journal.mark()
    assert mark is not None and mark["bytes"] == journal.path.stat().st_size
    journal.add({"row": 2})
    journal.require(mark)
    assert journal.mark() == Journal(journal.path, FIX).mark(), "counted on as lines come, or from the file: the same"
    journal.cut(mark)
    assert journal.read(Row) == ROWS
    assert journal.mark() == mark
    content = journal.path.read_bytes()
    journal.path.write_bytes(content.replace(b'"row": 0', b'"row": 1'))
    with pytest.raises(InputError, match=sentence("journal changed", where="a.jsonl")):
        journal.require(mark)
    journal.require(mark["bytes"])  # earlier versions noted the length alone
    journal.path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=sentence("journal changed")):
        journal.require(mark["bytes"])
    journal.path.unlink()
    with pytest.raises(InputError, match=sentence("journal gone")):
        journal.require(mark)
    assert journal.mark() is None


def test_lines_are_with_the_system_at_once_and_on_the_disk_when_asked(journal, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(handle))
    journal.add({"row": 2})
    assert len(journal.path.read_bytes().splitlines()) == 3
    assert not flushed
    journal.sync()
    assert len(flushed) == 1


def test_a_new_file_is_in_its_folder_after_a_power_cut(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(journal_module, "fsync_folder", flushed.append)
    journal = Journal(tmp_path / "a.jsonl", FIX)
    journal.add({"row": 0})
    journal.add({"row": 1})
    assert flushed == [tmp_path]
    assert [json.loads(line)["row"] for line in journal.path.read_text().splitlines()] == [0, 1]
