"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from luthier.core.errors import DiskFull
from luthier.core.journal import Journal
from luthier.core.storage.files import cache_folder, read_json, sha256, write_folder, write_json, write_text, writing
from sentences import sentence


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"b": "ü", "a": [1]})
    assert path.read_text(encoding="utf-8") == '{\n  "b": "ü",\n  "a": [\n    1\n  ]\n}\n'
    assert read_json(path) == {"b": "ü", "a": [1]}
    assert os.listdir(path.parent) == ["a.json"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.EIO, "no")])
def test_an_error_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with writing(path) as handle:
            handle.write("new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, number, call):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(*arguments):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(DiskFull, match=sentence("disk full", where="a.txt")), writing(path) as handle:
            handle.write("new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_bytes_and_paths(tmp_path):
    with writing(tmp_path / "a", "wb") as handle:
        handle.write(b"\x00\xff")
    write_text(tmp_path / "b", "two")
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"\x00\xff", b"two"]
    assert sha256(tmp_path / "b") == hashlib.sha256(b"two").hexdigest()


def test_a_reader_never_sees_a_part(tmp_path):
    """A process that writes again and again is killed: what stands there is one of its whole files."""
    path = tmp_path / "a.txt"
    code = (
        "import sys; from pathlib import Path; from luthier.core.storage.files import writing\n"
        "for i in range(10**9):\n"
        "  with writing(Path(sys.argv[1])) as f: f.write(str(i % 10) * 100_000)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
    while not path.exists():
        time.sleep(0.01)
    for _ in range(50):
        text = path.read_text()
        assert len(text) == 100_000 and len(set(text)) == 1
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    text = path.read_text()
    assert len(text) == 100_000 and len(set(text)) == 1


def test_the_cache_folder(monkeypatch):
    monkeypatch.setenv("LUTHIER_CACHE", "/a/b")
    assert str(cache_folder()) == "/a/b"
    monkeypatch.delenv("LUTHIER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert str(cache_folder()) == "/c/luthier"


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    final = tmp_path / "adapter"
    assert write_folder(final, lambda out: (out / "a").write_text("1") and None) == final

    def breaks(out):
        (out / "a").write_text("2")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(final, breaks)
    assert (final / "a").read_text() == "1"
    assert os.listdir(tmp_path) == ["adapter"]
    killed = tmp_path / f".adapter.{'a1' * 8}.tmp"
    killed.mkdir()
    (killed / "old").write_text("of a killed run")
    write_folder(final, lambda out: (out / "b").write_text("3") and None)
    assert os.listdir(final) == ["b"]
    assert os.listdir(tmp_path) == ["adapter"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("I/O error: No space left on device")])
def test_a_full_disk_leaves_the_old_folder(tmp_path, error):
    final = tmp_path / "adapter"
    write_folder(final, lambda out: (out / "a").write_text("1") and None)

    def full(out):
        (out / "a").write_text("2")
        raise error

    with pytest.raises(DiskFull, match=sentence("disk full", where="adapter")):
        write_folder(final, full)
    assert (final / "a").read_text() == "1"
    assert os.listdir(tmp_path) == ["adapter"]


def test_names_that_are_not_utf8_are_written_as_escapes_and_read_back(tmp_path):
    write_json(tmp_path / "a.json", {"file": "a\udcff.jsonl"})
    assert read_json(tmp_path / "a.json") == {"file": "a\udcff.jsonl"}
    Journal(tmp_path / "b.jsonl", "", sums=False).add({"file": "a\udcff"})
    assert json.loads((tmp_path / "b.jsonl").read_bytes()) == {"file": "a\udcff"}
