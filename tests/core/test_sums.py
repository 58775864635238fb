"""Sums of files and lines: what is written is believed, what was changed since is not, whenever a kill came."""

from __future__ import annotations

import contextlib
import json
import subprocess

import pytest

from luthier.core.errors import InputError
from luthier.core.storage.sums import Sums, checked, digest_of, with_sum
from sentences import sentence

OLD, NEW = b"old\n", b"new\n"


@pytest.fixture
def sums(tmp_path):
    (tmp_path / "evals").mkdir()
    return put(Sums(tmp_path), "evals/a.jsonl", OLD)


def put(sums, name, content):
    with sums.replacing({name: digest_of(content)}):
        (sums.folder / name).write_bytes(content)
    return sums


def test_sha256sum_checks_them_too(sums):
    put(sums, "b.json", b"{}\n")
    done = subprocess.run(["sha256sum", "--strict", "--check", "sums"], cwd=sums.folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "evals/a.jsonl: OK\nb.json: OK\n")


@pytest.mark.parametrize("content", [b"", b"ol", b"old\n\n", b"ole\n", None])
def test_cut_emptied_changed_and_removed(sums, content):
    path = sums.folder / "evals" / "a.jsonl"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    what = "file gone" if content is None else "file changed"
    with pytest.raises(InputError, match=sentence(what, where="evals/a.jsonl")) as caught:
        sums.check_all()
    assert caught.value.where == path


def test_a_folder_in_place_of_a_file_is_a_file_that_is_gone(sums):
    (sums.folder / "evals" / "a.jsonl").unlink()
    (sums.folder / "evals" / "a.jsonl").mkdir()
    with pytest.raises(InputError, match=sentence("file gone")):
        sums.check("evals/a.jsonl")


class Killed(BaseException):
    pass


def killed_while(sums, name, content):
    """A kill after NEW was noted and `content` put in place."""
    with contextlib.suppress(Killed), sums.replacing({name: digest_of(NEW)}):
        if content:
            (sums.folder / name).write_bytes(content)
        raise Killed


@pytest.mark.parametrize("before", [OLD, None])
@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("times", [1, 2])
def test_a_kill_at_any_moment_leaves_what_is_noted_true(tmp_path, before, written, times):
    sums, name = Sums(tmp_path), "a"
    if before:
        put(sums, name, before)
    for _ in range(times):
        killed_while(sums, name, NEW if written else None)
        sums.check_all()
    (tmp_path / name).write_bytes(b"other")
    with pytest.raises(InputError, match=sentence("file changed")):
        sums.check_all()
    put(sums, name, NEW)
    sums.check_all()
    (tmp_path / name).write_bytes(OLD)
    with pytest.raises(InputError, match=sentence("file changed")):
        sums.check_all()


def test_a_file_that_was_replaced_meanwhile_may_not_be_gone(sums):
    killed_while(sums, "evals/a.jsonl", None)
    sums.check_all()  # the old one stands there


def test_what_is_not_noted_is_believed(sums):
    (sums.folder / "c").write_text("anything")
    sums.check("c")
    sums.forget(["evals/a.jsonl", "c"])
    assert sums.noted() == {}


def test_a_folder_that_is_replaced_has_its_own_files_only(tmp_path):
    sums = Sums(tmp_path)
    for name in ("model/a", "model/b", "models"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        put(sums, name, OLD)
    with sums.replacing({"model/a": digest_of(NEW)}, "model"):
        (tmp_path / "model" / "b").unlink()
        (tmp_path / "model" / "a").write_bytes(NEW)
    assert set(sums.noted()) == {"model/a", "models"}
    sums.check_all()


@pytest.mark.parametrize("damage", [lambda text: text[:-1], lambda text: text[:30], lambda text: "x" + text[1:]])
def test_damaged_sums_are_refused_with_the_line(sums, damage):
    text = sums.path.read_text()
    sums.path.write_text(damage(text))
    with pytest.raises(InputError, match=sentence("not a line of sums", where="sums:1")):
        sums.check_all()


@pytest.mark.parametrize("record", [{"a": 1.5, "b": [1, None, float("inf")], "c": "ü\u2028"}, {}, {1: "x", 10: (2, 3)}])
def test_a_line_keeps_its_sum(record):
    line = json.loads(json.dumps(with_sum(record)))
    assert checked(line, "f:1", "fix") == json.loads(json.dumps(record))


def test_a_line_with_one_digit_changed(tmp_path):
    line = with_sum({"prompt": 0, "answers": ["12"]})
    for changed in ({"prompt": 1}, {"answers": ["13"]}, {"more": 1}, {"sum": "0" * 16}, {"sum": None}):
        with pytest.raises(InputError, match=sentence("line changed", where="f:3", fix="do this")):
            checked(line | changed, "f:3", "do this")
    assert checked({"prompt": 0}, "f:3", "do this") == {"prompt": 0}  # of an older version
