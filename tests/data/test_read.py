"""Files -> rows: every format, every wrapper, and every way a file can be bad."""

import bz2
import gzip
import io
import json
import os
import sys

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.core.errors import InputError
from luthier.core.types import Origin
from luthier.data import read
from luthier.data.read import read_rows

ROWS = [{"text": "first"}, {"text": "zweite Zeile: größer"}, {"text": "第三"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def fields(path):
    return [row.fields for row in read_rows([path])]


def places(path):
    return [row.origin.line for row in read_rows([path])]


def fault(*paths):
    with pytest.raises(InputError) as caught:
        list(read_rows(list(paths)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_jsonl_rows_know_their_lines_and_empty_lines_count(tmp_path):
    path = put(tmp_path, "a.jsonl", '{"text": "a"}\n\n{"text": "b"}\n')
    assert [(row.fields["text"], row.origin) for row in read_rows([path])] == [
        ("a", Origin(path, 1)),
        ("b", Origin(path, 3)),
    ]


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet"])
def test_formats_and_compressions_give_the_same_rows(tmp_path, name, ending):
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.ZstdCompressor().compress}
    if name == "a.parquet":
        content = parquet_bytes(ROWS)
    elif name == "a.jsonl":
        content = LINES.encode()
    elif name == "a.json":
        content = json.dumps(ROWS, indent=1).encode()
    else:
        content = ("text\n" + "".join(row["text"] + "\n" for row in ROWS)).encode()
    assert fields(put(tmp_path, name + ending, pack[ending](content))) == ROWS


def parquet_bytes(rows):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    target = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), target)
    return target.getvalue()


def test_zstd_frames_that_follow_each_other_are_all_read(tmp_path):
    pack = zstandard.ZstdCompressor().compress
    assert fields(put(tmp_path, "a.jsonl.zst", pack(LINES.encode()) + pack(LINES.encode()))) == ROWS * 2


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
def test_truncated_compressed_file_is_refused_not_cut_short(tmp_path, ending):
    lines = "".join(json.dumps({"text": os.urandom(30).hex()}) + "\n" for _ in range(2000)).encode()
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.ZstdCompressor().compress}[ending]
    whole = pack(lines)
    assert "truncated" in fault(put(tmp_path, "a.jsonl" + ending, whole[: len(whole) // 2]))


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".zst"])
def test_wrong_compression_is_one_line(tmp_path, ending):
    assert "cannot read it" in fault(put(tmp_path, "a.jsonl" + ending, LINES))


def test_truncated_parquet(tmp_path):
    assert "truncated" in fault(put(tmp_path, "a.parquet", parquet_bytes(ROWS)[:-20]))


def test_byte_order_mark_is_not_part_of_the_first_field(tmp_path):
    assert fields(put(tmp_path, "a.csv", "\ufefftext\nfirst\n")) == [{"text": "first"}]
    assert fields(put(tmp_path, "a.json", "\ufeff" + '[{"text": "first"}]')) == [{"text": "first"}]
    assert fields(put(tmp_path, "a.jsonl", "\ufeff" + '{"text": "first"}')) == [{"text": "first"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_wrong_encoding_names_line_and_byte(tmp_path, name):
    start = {"a.jsonl": '{"text": "ok"}\n{"text": "caf', "a.json": '[{"text": "ok"},\n{"text": "caf'}.get(
        name, "text\ncaf"
    )
    message = fault(put(tmp_path, name, start.encode() + b'\xe9"}\n'))
    column = len(start.split("\n")[1]) + 1
    assert f"{name}:2: not UTF-8: byte {column} of the line is 0xe9" in message
    assert "iconv -f WINDOWS-1252" in message


def test_utf16_is_recognised_in_the_advice(tmp_path):
    assert "iconv -f UTF-16" in fault(put(tmp_path, "a.csv", "text\nfirst\n".encode("utf-16")))


def test_character_cut_by_a_read_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("luthier.data.decode.CHUNK", 7)
    assert fields(put(tmp_path, "a.json", json.dumps(ROWS, ensure_ascii=False))) == ROWS


def test_broken_json_line_is_named_and_can_be_skipped(tmp_path):
    path = put(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": \n[1]\n{"text": "\\ud800"}\n{"text": "b"}\n')
    message = fault(path)
    assert "a.jsonl:2: broken JSON" in message
    assert "skip_bad" in message
    left = []
    rows = list(read_rows([path], skipped=lambda origin, reason: left.append((origin.line, reason))))
    assert [row.fields["text"] for row in rows] == ["a", "b"]
    assert [line for line, _ in left] == [2, 3, 4]
    assert "a list" in left[1][1]
    assert "half of a character" in left[2][1]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_number_of_very_many_digits_is_one_line(tmp_path, name):
    assert f"{name}:1: broken JSON: a whole number of more digits" in fault(
        put(tmp_path, name, '{"text": ' + "1" * 5000 + "}")
    )


def test_broken_json_array_names_the_line(tmp_path):
    assert "a.json:3: broken JSON" in fault(put(tmp_path, "a.json", '[\n{"text": "a"},\n{"text" "b"}\n]'))
    assert "ends in the middle" in fault(put(tmp_path, "b.json", '[{"text": "a"},\n{"text": "b"}\n'))
    assert "broken JSON" in fault(put(tmp_path, "c.json", '[{"text": "a"}, {"te'))


def test_csv_line_numbers_with_line_ends_inside_cells(tmp_path):
    path = put(tmp_path, "a.csv", 'text,label\n"one\ntwo",x\nthree,y\n')
    assert fields(path) == [{"text": "one\ntwo", "label": "x"}, {"text": "three", "label": "y"}]
    assert places(path) == [2, 4]


def test_csv_faults(tmp_path):
    ragged = put(tmp_path, "a.csv", "text,label\nno, not this,x\nfine,y\n")
    assert "a.csv:2: 3 cells, but the first row has 2" in fault(ragged)
    assert [row.fields["text"] for row in read_rows([ragged], skipped=lambda origin, reason: None)] == ["fine"]
    assert "broken quoting" in fault(put(tmp_path, "b.csv", 'text,label\n"never closed,x\n'))


def test_csv_field_longer_than_the_libraries_limit(tmp_path):
    assert len(fields(put(tmp_path, "a.csv", f"text,label\n{'x' * 200_000},y\n"))[0]["text"]) == 200_000


def test_csv_with_semicolons_and_with_an_index_column(tmp_path):
    assert fields(put(tmp_path, "a.csv", "text;label\none, two;x\n")) == [{"text": "one, two", "label": "x"}]
    assert fields(put(tmp_path, "b.csv", ",text\n0,one\n")) == [{"index": "0", "text": "one"}]


def test_table_without_names_is_recognised(tmp_path):
    path = put(tmp_path, "a.csv", "A man sings.,A man is singing.,4.75\nA dog runs.,A cat sleeps.,0\n")
    assert fields(path)[0] == {"sentence1": "A man sings.", "sentence2": "A man is singing.", "score": "4.75"}
    assert places(path) == [1, 2]
    assert fields(put(tmp_path, "b.csv", "Where is it?,card\n")) == [{"column1": "Where is it?", "column2": "card"}]


def test_text_file_is_one_document_and_a_long_one_is_cut_at_empty_lines(tmp_path, monkeypatch):
    poem = "first verse\nof it\n\nsecond verse\n\nthird\n"
    path = put(tmp_path, "a.txt", poem)
    assert fields(path) == [{"text": poem}]
    monkeypatch.setattr(read, "PIECE", 16)
    assert fields(path) == [{"text": "first verse\nof it\n\n"}, {"text": "second verse\n\nthird\n"}]
    assert places(path) == [1, 4]


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


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"text": "a"}\n{"text": "b"}\n', [{"text": "a"}, {"text": "b"}]),
        (b'[{"text": "a"}]', [{"text": "a"}]),
        (b'{\n "text": "a"\n}', [{"text": "a"}]),
        (gzip.compress(b'{"text": "a"}\n'), [{"text": "a"}]),
        (b"text,label\nhi,x\n", [{"text": "hi", "label": "x"}]),
        (b"text\tlabel\nhi\tx\n", [{"text": "hi", "label": "x"}]),
        (parquet_bytes(ROWS), ROWS),
        (b"Hello, world\n", [{"text": "Hello, world\n"}]),
    ],
)
def test_standard_input_is_recognised(monkeypatch, content, expected):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    rows = list(read_rows(["-"]))
    assert [row.fields for row in rows] == expected
    assert rows[0].origin.file == "<stdin>"
    assert not sys.stdin.closed


def test_paths_that_cannot_be_read(tmp_path):
    put(tmp_path, "train.jsonl", LINES)
    assert "did you mean" in fault(str(tmp_path / "trian.jsonl"))
    assert "no such file" in fault(str(tmp_path / "nowhere" / "x.jsonl"))
    assert "no file matches" in fault(str(tmp_path / "*.csv"))
    assert "known: .json" in fault(put(tmp_path, "a.docx", "x"))
    assert "XML" in fault(put(tmp_path, "a.xml", "<x/>"))
    (tmp_path / "empty").mkdir()
    assert "no file to read" in fault(str(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.txt"])
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_data(tmp_path, name, content):
    assert "no rows" in fault(put(tmp_path, name, content))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_file_without_rights(tmp_path):
    path = put(tmp_path, "a.jsonl", LINES)
    os.chmod(path, 0)
    assert "Permission denied" in fault(path)


def test_rows_are_read_as_they_are_asked_for(tmp_path):
    path = put(tmp_path, "a.jsonl", LINES + "broken\n")
    rows = read_rows([path])
    assert [next(rows).fields for _ in ROWS] == ROWS
    with pytest.raises(InputError):
        next(rows)


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), min_size=1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries({"text": cell, "label": cell}), min_size=1, max_size=5))
def test_csv_reads_back_what_the_standard_library_wrote(tmp_path_factory, rows):
    import csv

    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    assert fields(str(path)) == rows
