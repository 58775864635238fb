"""Files that would take all memory, or never end: each is refused in one line that names the place and the way out."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import socket
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as library
import pytest
import zstandard

from luthier.config.data import DataConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.data import size_limits
from luthier.data.load import load
from luthier.data.read import read_rows
from sentences import sentence

ROW = b'{"text": "the cat sat"}\n'
MB = 1_000_000


def refused(path, longest=MB, **how):
    with pytest.raises(InputError) as caught:
        for _ in read_rows([str(path)], longest=longest, **how):
            pass
    said = str(caught.value)
    assert "\n" not in said and len(said) < 600 and caught.value.fix
    return said


def put(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


# ------------------------------------------------------------------------------------------------- one row


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.jsonl", ROW + b'{"text": "' + b"a" * MB + b'"}\n', 2),
        ("a.jsonl", ROW + b'{"text": "' + b"a" * 3 * MB, 2),
        ("a.json", b'[{"text": "x"},\n{"text": "' + b"a" * 4 * MB + b'"}]', 2),
        ("b.json", b'{"train": [{"text": "x"},\n{"text": "' + b"a" * 4 * MB + b'"}]}', 2),
        ("a.txt", b"x\n" + b"a" * 2 * MB, 2),
        ("a.csv", b"text,label\n" + b"a" * 2 * MB + b",1\n", 2),
        ("a.csv", b'text,label\nx,1\n"' + b"a\n" * MB, 3),
        ("a.csv", b"text,label\rx,1\r" + b"a" * 2 * MB + b",1\r", 3),
    ],
    ids=["line", "open line", "array", "wrapped array", "text", "cell", "open quote", "returns"],
)
def test_a_row_that_is_too_long_is_refused_with_the_option(tmp_path, name, content, place):
    said = refused(put(tmp_path, name, content))
    assert said.startswith(f"{tmp_path / name}:{place}: ") and "of more than 1 MB; " in said
    assert said.endswith("or raise --data.max_row, which is in MB")


@pytest.mark.medium
def test_lines_that_are_too_long_are_left_out_where_bad_rows_are(tmp_path):
    path = put(tmp_path, "a.jsonl", ROW + b'{"text": "' + b"a" * 3 * MB + b'"}\n' + ROW)
    loaded = load([str(path)], DataConfig(max_row=1, skip_bad=True))
    assert [example.origin.line for example in loaded.examples] == [1, 3]
    assert loaded.skipped.first[0][0].line == 2
    assert len(load([str(path)], DataConfig(max_row=4)).examples) == 3


def test_a_row_as_long_as_allowed_is_read(tmp_path):
    line = b'{"text": "' + b"a" * (MB - 13) + b'"}\n'
    assert len(line) == MB
    assert len(list(read_rows([str(put(tmp_path, "a.jsonl", line * 2))], longest=MB))) == 2


def test_long_rows_of_parquet_are_refused_or_left_out(tmp_path):
    path = tmp_path / "a.parquet"
    library.write_table(pa.table({"text": ["x", "a" * 2 * MB, "y"], "more": [["b"], [], ["c"]]}), path)
    assert "a.parquet:2: a row of more than 1 MB" in refused(path)
    left = []
    rows = read_rows([str(path)], longest=MB, skipped=lambda origin, reason: left.append(origin.line))
    assert [row.origin.line for row in rows] == [1, 3] and left == [2]


# --------------------------------------------------------------------------------------- columns, depth, digits

WIDE = {f"c{i}": 1 for i in range(size_limits.MAX_COLUMNS + 1)}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "columns.json"])
@pytest.mark.medium
def test_too_many_columns_are_refused_in_a_short_line(tmp_path, name, capsys):
    path = tmp_path / name
    if name == "a.parquet":
        library.write_table(pa.table({key: [1] for key in WIDE}), path)
    elif name == "columns.json":
        path.write_text(json.dumps({key: [1, 2] for key in WIDE}))
    elif name.endswith(("jsonl", "json")):
        path.write_text(json.dumps([WIDE] if name == "a.json" else WIDE))
    else:
        separator = "," if name == "a.csv" else "\t"
        path.write_text(separator.join(WIDE) + "\n" + separator.join("1" for _ in WIDE) + "\n")
    assert "10,001 columns, of which at most 10,000 are read; leave out" in refused(path, 100 * MB)
    assert len(capsys.readouterr().err) < 600


@pytest.mark.parametrize("depth", [150, 600, 100_000])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_deep_rows_are_refused(tmp_path, name, depth):
    line = b'{"messages": [], "tools": ' + b"[" * depth + b"]" * depth + b"}"
    content = b"[" + line + b"]" if name == "a.json" else line
    assert "a.json" in (said := refused(put(tmp_path, name, content))) and "nested too deeply" in said


def test_a_cell_that_spells_a_deep_list_is_no_list(tmp_path):
    path = put(tmp_path, "a.csv", b"messages,x\n" + b"[" * 600 + b"]" * 600 + b",1\n")
    with pytest.raises(InputError, match=sentence("messages as text", field="messages")):
        load([str(path)], DataConfig(layout="chat"))


def test_rows_of_many_messages_are_not_deep(tmp_path):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 300
    put(tmp_path, "a.jsonl", json.dumps({"messages": turns}).encode())
    assert len(next(read_rows([str(tmp_path / "a.jsonl")])).fields["messages"]) == 600


def test_a_number_of_a_million_digits_is_refused(tmp_path):
    assert "more digits than can be read" in refused(put(tmp_path, "a.jsonl", b'{"text": ' + b"1" * MB + b"}"), 2 * MB)


# ------------------------------------------------------------------------------------------- what grows


@pytest.fixture
def small(monkeypatch):
    """Traps are small here, so that they are found soon."""
    monkeypatch.setattr(size_limits, "ALLOWED_BYTES", 4 * MB)


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstandard.compress}


@pytest.mark.medium
@pytest.mark.parametrize("ending", sorted(PACKERS))
def test_a_small_file_that_becomes_a_huge_one_is_refused(tmp_path, small, ending):
    path = put(tmp_path, f"a.jsonl.{ending}", PACKERS[ending](ROW + b"\n" * 8 * MB))
    said = refused(path)
    assert "of it become more than" in said and said.endswith("unpack it, or write it as JSON Lines, and give that")


@pytest.mark.parametrize("ending", sorted(PACKERS))
def test_one_line_that_never_ends_is_refused(tmp_path, ending):
    path = put(tmp_path, f"a.jsonl.{ending}", PACKERS[ending](b'{"text": "' + b"a" * 8 * MB))
    assert "a.jsonl" in (said := refused(path)) and ("1: a row of more than 1 MB" in said or "become" in said)


@pytest.mark.medium
def test_rows_that_compress_well_are_read(tmp_path, small):
    rows = b"".join(b'{"text": "%d the cat sat on the mat"}\n' % i for i in range(100_000))
    path = put(tmp_path, "a.jsonl.gz", gzip.compress(rows))
    assert sum(1 for _ in read_rows([str(path)])) == 100_000


def test_what_is_compressed_more_than_twice_is_refused(tmp_path):
    once = gzip.compress(ROW)
    twice = gzip.compress(once)
    assert len(list(read_rows([str(put(tmp_path, "a.jsonl.gz", twice))]))) == 1
    assert "compressed more than twice; unpack it" in refused(put(tmp_path, "b.jsonl.gz", gzip.compress(twice)))


def test_a_dictionary_that_every_row_takes_is_refused(tmp_path, small):
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000, pa.int32()), pa.array(["a" * 100_000]))
    for name, write in {"a.parquet": library.write_table, "a.arrow": _stream}.items():
        write(pa.table({"text": text}), tmp_path / name)
        assert os.path.getsize(tmp_path / name) < MB
        assert "of it become more than" in refused(tmp_path / name)


@pytest.mark.medium
def test_rows_of_nothing_come_to_an_end(tmp_path, small):
    library.write_table(pa.table({"text": pa.nulls(400_000, pa.string())}), tmp_path / "a.parquet")
    _stream(pa.table({"text": pa.nulls(10**9)}), tmp_path / "a.arrow")
    for name in ("a.parquet", "a.arrow"):
        assert "of it become more than" in refused(tmp_path / name)


def _stream(table, path):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.medium
def test_memory_stays_bounded(tmp_path):
    """Traps of hundreds of megabytes, read by a process that may take 120 MiB more than its libraries."""
    put(tmp_path, "line.jsonl.gz", gzip.compress(b'{"text": "' + b"a" * 150 * MB, 1))
    put(tmp_path, "line.jsonl.zst", zstandard.compress(b"a" * 200 * MB, 1))
    put(tmp_path, "quote.csv.gz", gzip.compress(b'text,label\n"' + b"a\n" * 40 * MB, 1))
    text = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array(["a" * 2 * MB]))
    library.write_table(pa.table({"text": text.take(pa.array([0] * 200_000))}), tmp_path / "a.parquet")
    program = """
import resource, sys
import pyarrow.parquet, zstandard
from luthier.core.errors import InputError
from luthier.data.read import read_rows
held = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (held + (120 << 20),) * 2)
for file in sys.argv[1:]:
    try:
        print(sum(1 for _ in read_rows([file], longest=4_000_000)))
    except InputError as error:
        print(error)
"""
    files = [str(tmp_path / name) for name in ("line.jsonl.gz", "line.jsonl.zst", "quote.csv.gz", "a.parquet")]
    done = subprocess.run([sys.executable, "-c", program, *files], capture_output=True, text=True)
    assert not done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 4 and "takes more memory" not in done.stdout
    assert all("more than 4 MB" in line or "of it become more than" in line for line in said)


# ----------------------------------------------------------------------------------------- no files of rows


@pytest.fixture
def special(tmp_path):
    """A folder with a sound file among things that are none."""
    put(tmp_path, "rows.jsonl", ROW)
    os.mkfifo(tmp_path / "pipe.jsonl")
    os.symlink("/dev/zero", tmp_path / "zero.jsonl")
    os.symlink("/proc/self/environ", tmp_path / "environ.jsonl")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(tmp_path / "socket.jsonl"))
    return tmp_path


@pytest.mark.parametrize("name", ["pipe", "zero", "environ", "socket"])
def test_what_is_no_file_is_refused_by_name(special, name):
    path = special / f"{name}.jsonl"
    assert refused(path) == (
        f"{path}: a pipe, a device or a file of the system, not a file of rows; give a file, or pipe the rows to '-'"
    )


@pytest.mark.parametrize("pattern", ["", "*.jsonl"])
def test_among_other_files_it_is_left_out_and_told(special, pattern, capsys):
    assert len(list(read_rows([str(special / pattern)]))) == 1
    said = capsys.readouterr().err
    assert all(f"{name}.jsonl: a pipe, a device" in said for name in ("pipe", "zero", "environ", "socket"))


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/proc/self/environ", "/proc/self/mem", "/sys/kernel/mm"])
def test_devices_and_what_the_system_makes_up_are_refused(path):
    assert "not a file of rows" in refused(path)


def test_what_the_shell_hands_over_is_read(tmp_path):
    """`luthier data <(command)`: a descriptor that is open already."""
    ours, theirs = os.pipe()
    os.write(theirs, gzip.compress(ROW))
    os.close(theirs)
    try:
        assert len(list(read_rows([f"/dev/fd/{ours}"]))) == 1
    finally:
        os.close(ours)


def test_folders_in_folders_come_to_an_end(tmp_path):
    deep = tmp_path.joinpath(*["a"] * 100)
    deep.mkdir(parents=True)
    put(deep, "rows.jsonl", ROW)
    assert "folders nested more than 64 deep" in refused(tmp_path)


def test_a_description_of_any_size_and_depth_is_refused(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "saved"
    folder.mkdir()
    _stream(pa.table({"text": ["a"]}), folder / "data.arrow")
    monkeypatch.setattr(size_limits, "MAX_HELD_BYTES", 1000)
    for content in (b"[" * 900, b" " * 2000 + b"{}"):
        put(folder, "state.json", content)
        assert "state.json: not a state.json of a saved data set" in refused(folder)
        (folder / "state.json").unlink()
        put(folder, "dataset_info.json", content)
        assert len(list(read_rows([str(folder)]))) == 1
        assert "cannot be read, so labels stay numbers" in capsys.readouterr().err
        log.warn_once.cache_clear()


@pytest.mark.parametrize("name", ["../x.arrow", "/etc/passwd", "in/x.arrow"])
def test_a_saved_data_set_names_no_file_elsewhere(tmp_path, name):
    folder = tmp_path / "saved"
    folder.mkdir()
    _stream(pa.table({"text": ["a"]}), folder / "data.arrow")
    _stream(pa.table({"text": ["secret"]}), tmp_path / "x.arrow")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    said = refused(folder)
    assert said.startswith(f"{folder / 'state.json'}: it names a file outside its folder: ")
