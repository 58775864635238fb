"""What somebody planted where we write or read is neither followed, nor emptied, nor waited for."""

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path

import pytest

import luthier
from luthier.core.errors import InputError
from luthier.core.journal import Journal
from luthier.core.storage.files import read_json, sha256, text_file, write_folder, write_json, writing
from luthier.core.storage.leftovers import new_folder, private_folder, temporary_name
from luthier.core.storage.opening import appending, holding, refuse_special, require_writable
from sentences import sentence

BUSY = InputError("busy")


def hold(path):
    with holding(path, BUSY):
        pass


WRITERS = {
    "append": lambda path: Journal(path, "").add({}),
    "cut": lambda path: Journal(path, "").cut(),
    "lock": hold,
    "journal": lambda path: appending(path).__enter__(),
    "folder": lambda path: write_folder(path, lambda out: None),
}


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_written_through_a_link(tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (tmp_path / "planted").symlink_to(secret)
    with pytest.raises(InputError, match=sentence("link in the way", where="planted")):
        WRITERS[name](tmp_path / "planted")
    assert secret.read_text() == "mine"


@pytest.mark.parametrize("name", ["append", "cut", "journal"])
def test_nothing_is_written_through_a_hard_link(tmp_path, name):
    (tmp_path / "secret").write_text("mine")
    os.link(tmp_path / "secret", tmp_path / "planted")
    with pytest.raises(InputError, match=sentence("hard link in the way", where="planted")):
        WRITERS[name](tmp_path / "planted")
    assert (tmp_path / "secret").read_text() == "mine"


@pytest.mark.parametrize("name", WRITERS)
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=sentence("pipe in the way", where="pipe")):
        WRITERS[name](tmp_path / "pipe")
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


@pytest.mark.parametrize("read", [read_json, text_file, sha256])
def test_a_pipe_is_not_read(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=sentence("pipe in the way", where="pipe")):
        read(tmp_path / "pipe")


def test_a_file_takes_the_place_of_a_link_and_leaves_what_it_led_to(tmp_path):
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "a.json").symlink_to(tmp_path / "secret")
    write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "secret").read_text() == "mine"
    assert not (tmp_path / "a.json").is_symlink()


def test_temporary_names_cannot_be_foreseen_and_planted_ones_are_not_used(tmp_path, monkeypatch):
    assert temporary_name(tmp_path / "a") != temporary_name(tmp_path / "a")
    (tmp_path / "secret").write_text("mine")
    (tmp_path / f".a.{'0' * 16}.tmp").symlink_to(tmp_path / "secret")
    monkeypatch.setattr("secrets.token_hex", lambda count: "00" * count)  # an attacker who could
    with pytest.raises(InputError), writing(tmp_path / "a") as handle:
        handle.write("x")
    assert (tmp_path / "secret").read_text() == "mine"


def test_a_long_name_has_a_temporary_name_too(tmp_path):
    write_json(tmp_path / ("ü" * 120 + ".json"), 1)
    with pytest.raises(InputError, match=sentence("name too long")):
        write_json(tmp_path / ("a" * 300), 1)


def test_devices_stay_devices(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    for path in (Path("/dev/null"), tmp_path / "link"):
        with pytest.raises(InputError, match=sentence("pipe in the way", fix="give another path")):
            write_json(path, 1)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_rights_follow_the_umask(tmp_path, mask):
    def fill(out):
        os.close(os.open(out / "b", os.O_CREAT, 0o600))  # as safetensors makes its files

    before = os.umask(mask)
    try:
        write_json(tmp_path / "a", 1)
        Journal(tmp_path / "c", "").add({})
        write_folder(tmp_path / "d", fill)
    finally:
        os.umask(before)
    for name in ("a", "c", "d/b"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o777 & ~mask


def test_what_stands_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=sentence("file in the way", where="file")):
        write_json(tmp_path / "file" / "a" / "b.json", 1)
    with pytest.raises(InputError, match=sentence("folder in the way", where="folder")):
        write_json(tmp_path / "folder", 1)
    with pytest.raises(InputError, match=sentence("file in the way", where="file")):
        write_folder(tmp_path / "file", lambda out: None)
    with pytest.raises(InputError, match=sentence("folder in the way", where="folder")):
        Journal(tmp_path / "folder", "").add({})
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_what_a_killed_process_left_among_temporary_files_is_cleared(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f".luthier-{os.getuid()}.{'b2' * 8}.tmp"
    (left / "in").mkdir(parents=True)
    with private_folder() as one, private_folder() as other:
        assert one != other
        assert sorted(tmp_path.iterdir()) == sorted([one, other])
        assert one.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.iterdir())


def test_another_process_may_clear_before_the_lock_is_held(tmp_path, monkeypatch):
    """What was just made and is not locked yet looks as if a killed process left it."""
    made, real = [], os.open

    def slow(path, flags, *rest, **named):
        if flags & os.O_DIRECTORY and not made:
            made.append(path)
            os.rmdir(path)
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", slow)
    with new_folder(tmp_path / "a") as folder:
        assert folder.is_dir()
        assert folder != made[0]


def test_where_nothing_can_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    require_writable(tmp_path / "new" / "folder" / "a.jsonl")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=sentence("file in the way", where="file")):
        require_writable(tmp_path / "file" / "a.jsonl")
    with pytest.raises(InputError, match=sentence("folder in the way")):
        require_writable(tmp_path)
    refuse_special(tmp_path, folder=True)
    monkeypatch.setattr(os, "access", lambda *a, **n: False)  # root may always
    with pytest.raises(InputError, match=sentence("no permission", where="a.jsonl")):
        require_writable(tmp_path / "new" / "a.jsonl")
    read_only = os.statvfs_result((*os.statvfs(tmp_path)[:8], os.ST_RDONLY, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: read_only)
    with pytest.raises(InputError, match=sentence("read-only", where="a.jsonl")):
        require_writable(tmp_path / "new" / "a.jsonl")


# --- nothing is written around core/ ---

WRITE = {
    "open", "write_text", "write_bytes", "truncate", "ftruncate", "unlink", "rename", "rmdir", "mkdir", "makedirs", "touch", "rmtree",
    "save_file", "save_pretrained", "save", "to_csv", "symlink_to", "hardlink_to", "chmod", "extractall", "move", "copy", "copyfile",
    "copytree", "NamedTemporaryFile", "TemporaryDirectory", "mkstemp", "mkdtemp", "write_table", "savez",
}  # fmt: skip
SHUTIL = {"open", "copy", "move"}  # other things have these too
CORE = {"write_text"}  # the function of core/storage/files.py; Path has a method of this name
HERE = {"core/journal.py", "core/storage/files.py", "core/storage/opening.py", "core/storage/leftovers.py"}
# What others write for us, into a temporary folder that `write_folder` made; and the little that is removed.
FILLS = {
    "model/adapt/adapters.py:save_file", "model/gguf/convert.py:save_file", "model/gguf/convert.py:save_pretrained",
    "model/gguf/convert.py:mkdir", "model/gguf/tokenizer.py:save", "model/gguf/tokenizer.py:save_pretrained",
    "model/gguf/tokenizer.py:unlink", "model/gguf/tokenizer.py:symlink_to", "model/folder/tokenizer.py:save",
    "model/hub/sources.py:mkdir", "model/hub/sources.py:rename", "model/hub/sources.py:rmtree",
    "model/hub/wheels.py:mkdir", "model/hub/wheels.py:unlink", "runs/export.py:save", "model/folder/copies.py:mkdir",
    "model/folder/copies.py:write_bytes", "runs/export.py:save_pretrained", "training/checkpoint.py:save_file",
}  # fmt: skip
REMOVES = {"runs/folder.py:rmtree", "feedback/sample.py:unlink", "training/checkpoint.py:rmtree"}
MAKES = {"runs/start_run.py:mkdir", "training/checkpoint.py:rename"}
NO_FILE = {"tune/training_steps.py:save"}  # the function of training/checkpoint.py


def _writes(path: Path) -> set[str]:
    """The calls of a module that write, make or remove what is on disk."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        method = isinstance(node.func, ast.Attribute)
        owner = getattr(getattr(node.func, "value", None), "id", "")
        if owner == "os" and name in ("open", "replace", "link", "symlink", "remove", "mkfifo", "mknod"):
            found.add(f"os.{name}")
        elif name == "open" and isinstance(node.func, ast.Name):
            modes = [*node.args[1:2], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
            if any(not isinstance(mode, ast.Constant) or set("wax+") & set(mode.value) for mode in modes):
                found.add("open")
        elif name in WRITE - (set() if owner == "shutil" else SHUTIL) - (set() if method else CORE):
            found.add(name)
    return found


@pytest.mark.medium
def test_nothing_is_written_around_core():
    """Who writes otherwise follows planted links, leaves halves, and answers a full disk with a traceback."""
    package = Path(luthier.__file__).parent
    found = {
        f"{path.relative_to(package).as_posix()}:{name}"
        for path in package.rglob("*.py")
        if path.relative_to(package).as_posix() not in HERE
        for name in _writes(path)
    }
    assert found == FILLS | REMOVES | MAKES | NO_FILE
