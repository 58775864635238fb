"""Files -> rows: every format, every wrapper, and every way a file can be bad."""

import bz2
import gzip
import io
import json
import os
import sys

import pytest
import zstandard
from reading_of import fault, fields, places, put

from luthier.core.errors import InputError
from luthier.core.types.examples import Origin
from luthier.data import text_files
from luthier.data.paths import KNOWN
from luthier.data.read import read_rows

ROWS = [{"text": "first"}, {"text": "zweite Zeile: größer"}, {"text": "第三"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


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


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("ending", PACK)
def test_compression_is_seen_in_the_bytes_and_told_where_the_name_says_otherwise(tmp_path, ending, capsys):
    path = put(tmp_path, "a.jsonl", PACK[ending](LINES.encode()))
    assert fields(path) == fields(path) == ROWS
    assert capsys.readouterr().err.count("a.jsonl: compressed with") == 1, "told once, though read twice"
    assert fields(put(tmp_path, "b.jsonl" + ending, LINES)) == ROWS
    assert "not compressed with" in capsys.readouterr().err
    assert fields(put(tmp_path, "c.jsonl" + ending, PACK[ending](PACK[".gz"](LINES.encode())))) == ROWS, "packed twice"
    assert fields(put(tmp_path, "d.jsonl" + ending, PACK[ending](LINES.encode()))) == ROWS
    assert "d.jsonl" not in capsys.readouterr().err


@pytest.mark.parametrize("name", [f"a{ending}" for ending in KNOWN] + ["a.jsonl.gz", "a"])
def test_a_pointer_of_git_lfs_is_no_data_whatever_its_ending(tmp_path, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab12\nsize 146946961\n"
    assert "Git LFS pointer" in fault(put(tmp_path, name, pointer))
    assert "git lfs pull" in fault(put(tmp_path, name, "\ufeff" + pointer))


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml", "a spreadsheet; save it as CSV"),
        (b"PK\x03\x04" + bytes(26) + b"rows.jsonl", "a zip archive; unpack"),
        (b"\xfd7zXZ\x00", "compressed with xz; unpack"),
        (b"rows.csv" + bytes(249) + b"ustar", "a tar archive; unpack"),
        (b"%PDF-1.7", "a PDF"),
        (b"<!DOCTYPE html>\n<html>", "a web page or XML, as after a failed download"),
    ],
)
def test_other_files_under_a_known_ending_are_named(tmp_path, start, kind):
    for name in ("a.csv", "a.jsonl", "a.json", "a.jsonl.gz"):
        assert kind in fault(put(tmp_path, name, start))


def test_a_file_under_another_ending_is_read_as_what_it_is(tmp_path, capsys):
    for name, content in {
        "a.jsonl": json.dumps(ROWS, indent=1), "b.csv": LINES, "c.txt": LINES, "d.json": LINES, "e": LINES,
        "f.jsonl": parquet_bytes(ROWS), "g.jsonl": json.dumps(ROWS[0], indent=1),
    }.items():  # fmt: skip
        assert fields(put(tmp_path, name, content))[0] == ROWS[0]
        assert (f"{name}: read as" in capsys.readouterr().err) == (name != "d.json")
    prose = '{"text": "first"}\nis how a row begins.\n'
    assert fields(put(tmp_path, "h.txt", prose)) == [{"text": prose}]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.txt"])
def test_carriage_returns_alone_end_lines(tmp_path, name):
    lines = {"a.jsonl": ['{"text": "a"}', '{"text": "b"}']}.get(name, ["text", "a", "b"])
    rows = fields(put(tmp_path, name, "\r".join(lines) + "\r"))
    assert rows == ([{"text": "text\na\nb\n"}] if name == "a.txt" else [{"text": "a"}, {"text": "b"}])


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
def test_files_that_were_joined_have_marks_in_the_middle(tmp_path, name):
    row = '\ufeff{"text": "a"}\n' if "json" in name else "\ufefftext\na\n"
    assert fields(put(tmp_path, name, row + row)) == [{"text": "a"}] * 2


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


def test_text_file_is_one_document_and_a_long_one_is_cut_at_empty_lines(tmp_path, monkeypatch):
    poem = "first verse\nof it\n\nsecond verse\n\nthird\n"
    path = put(tmp_path, "a.txt", poem)
    assert fields(path) == [{"text": poem}]
    monkeypatch.setattr(text_files, "MAX_DOCUMENT", 16)
    assert fields(path) == [{"text": "first verse\nof it\n\n"}, {"text": "second verse\n\nthird\n"}]
    assert places(path) == [1, 4]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"text": "a"}\n{"text": "b"}\n', [{"text": "a"}, {"text": "b"}]),
        (b'[{"text": "a"}]', [{"text": "a"}]),
        (b'{\n "text": "a"\n}', [{"text": "a"}]),
        (gzip.compress(b'{"text": "a"}\n', mtime=0), [{"text": "a"}]),
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
