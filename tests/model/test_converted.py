"""The cache of converted models: what was changed, cut, swapped, added or planted in it is made anew, not believed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from luthier.commands.models import command
from luthier.core.errors import InputError
from luthier.model.hub import listing
from luthier.model.hub.converted import ORIGIN, built, damage
from sentences import sentence

ORIGINAL = {"name": "m", "kind": "gguf", "licence": "", "sha256": "0"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


def build(folder: Path) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "model.safetensors").write_bytes(b"weights" * 100)


def same_time(path: Path, change: Callable[[Path], object]) -> None:
    """Change a file, and give it the time that it had."""
    about = path.stat()
    change(path)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (lambda f: (f / "config.json").write_text('{"a": 2}'), "config.json has another content"),
    "cut": (lambda f: os.truncate(f / "model.safetensors", 99), "model.safetensors has another size"),
    "cut, of the same time": (
        lambda f: same_time(f / "model.safetensors", lambda path: os.truncate(path, 99)), "model.safetensors has another size",
    ),
    "removed": (lambda f: (f / "1_Pooling" / "config.json").unlink(), "1_Pooling/config.json is missing"),
    "added": (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter_config.json is not of it"),
    "a link": (lambda f: ((f / "config.json").unlink(), (f / "config.json").symlink_to("/etc/passwd")), "is not a regular file"),
    "a pipe": (lambda f: ((f / "config.json").unlink(), os.mkfifo(f / "config.json")), "config.json is not a regular file"),
    "without checksums": (lambda f: (f / ORIGIN).write_text(json.dumps(ORIGINAL)), "has no checksums"),
    "checksums of another kind": (lambda f: (f / ORIGIN).write_text('{"files": {"config.json": 7}}'), "not of it"),
    "checksums in part": (
        lambda f: (f / ORIGIN).write_text((f / ORIGIN).read_text().replace('"bytes"', '"octets"', 1)), "has no checksum",
    ),
    "no luthier.json": (lambda f: (f / ORIGIN).unlink(), "luthier.json is missing"),
    "a broken luthier.json": (lambda f: (f / ORIGIN).write_text("{"), "luthier.json is broken"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_what_was_changed_is_made_anew_with_one_line(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = built("m", ORIGINAL, build)
    assert damage(folder) is None
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ORIGIN}
    change, words = CHANGES[kind]
    change(folder)
    assert words in str(damage(folder))
    assert built("m", ORIGINAL, build) == folder
    said = capsys.readouterr().err
    assert words in said
    assert said.endswith("; making it again\n")
    assert said.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ORIGIN} == before
    assert damage(folder, content=True) is None


def test_a_cache_that_was_copied_is_read_once_and_taken(tmp_path: Path) -> None:
    folder = built("m", ORIGINAL, build)
    for path in folder.rglob("*"):
        os.utime(path)
    assert built("m", ORIGINAL, lambda folder: pytest.fail("made anew")) == folder
    times = {name: said["time_ns"] for name, said in json.loads((folder / ORIGIN).read_text())["files"].items()}
    assert {name: (folder / name).stat().st_mtime_ns for name in times} == times


def test_what_cannot_be_made_anew_is_refused() -> None:
    folder = built("m", ORIGINAL, build)
    (folder / "config.json").write_text("{}")

    def fail(folder: Path) -> None:
        raise InputError("no network", fix="connect")

    with pytest.raises(
        InputError,
        match=sentence("cannot be made anew", why="config.json has another size", what="no network", fix="connect"),
    ):
        built("m", ORIGINAL, fail)
    assert (folder / "config.json").read_text() == "{}"


def open_damaged(log: str) -> None:
    def slow(folder: Path) -> None:
        with open(log, "a") as handle:
            handle.write("built\n")
        build(folder)

    assert damage(built("m", ORIGINAL, slow)) is None


def test_processes_that_find_it_changed_make_it_anew_once(tmp_path: Path) -> None:
    folder = built("m", ORIGINAL, build)
    (folder / "config.json").write_text("{}")
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=open_damaged, args=(str(tmp_path / "log"),)) for _ in range(4)]
    for process in running:
        process.start()
    for process in running:
        process.join(30)
    assert [process.exitcode for process in running] == [0, 0, 0, 0]
    assert (tmp_path / "log").read_text() == "built\n"


def test_content_is_checked_when_it_is_asked_for() -> None:
    """A byte that was changed under the same size and time: no look at the folder shows it, `--check` does."""
    folder = built("m", ORIGINAL, build)
    run = CliRunner().invoke(command, ["--check", "--json"], catch_exceptions=False)
    assert run.exit_code == 0
    same_time(folder / "model.safetensors", lambda path: path.write_bytes(b"Weights" * 100))
    assert damage(folder) is None
    (row,) = [row for row in listing.cached(check=True) if row.folder == folder]
    assert row.damage == "model.safetensors has another content"
    run = CliRunner().invoke(command, ["--check"])
    assert isinstance(run.exception, InputError)
    assert run.exception.exit_code == 2
    assert str(run.exception).startswith(
        f"{folder}: m is damaged: model.safetensors has another content; remove the folder"
    )
    assert [row.damage for row in listing.cached() if row.folder == folder] == [None]


def test_a_model_without_its_weights_is_listed_and_told() -> None:
    folder = built("m", ORIGINAL, build)
    (folder / "model.safetensors").unlink()
    (row,) = [row for row in listing.cached(check=True) if row.folder == folder]
    assert (row.parameters, row.damage) == (0, "model.safetensors is missing")
    assert [row.parameters for row in listing.cached() if row.folder == folder] == [0]


def test_a_damaged_model_does_not_hide_the_others() -> None:
    folder = built("m", ORIGINAL, build)
    (folder / ORIGIN).write_text('{"name": 7, "kind": [], "licence": {}}')
    (row,) = [row for row in listing.cached() if row.folder == folder]
    assert (row.name, row.kind, row.licence, row.parameters) == ("m", "gguf", "", 0)
    (folder / ORIGIN).unlink()
    assert any(row.damage == "luthier.json is missing" for row in listing.cached(check=True))


def test_snapshots_of_the_hub_are_checked_by_the_names_of_their_blobs(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    repo = tmp_path / "hub" / "models--owner--tiny"
    for part in ("refs", "blobs", "snapshots/abc"):
        (repo / part).mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    for path in tiny_folder.iterdir():
        content = path.read_bytes()
        large = path.suffix == ".safetensors"
        digest = hashlib.sha256(content) if large else hashlib.sha1(b"blob %d\0" % len(content) + content)
        blob = Path(shutil.copy(path, repo / "blobs" / digest.hexdigest()))
        (repo / "snapshots" / "abc" / path.name).symlink_to(f"../../blobs/{blob.name}")
    scan = huggingface_hub.scan_cache_dir
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: scan(tmp_path / "hub"))
    assert [row.damage for row in listing.cached(check=True) if row.kind == "hub"] == [None]
    config = repo / "snapshots" / "abc" / "config.json"
    config.resolve().write_text(config.read_text().replace("llama", "llamA").replace("llamA", "llama") + " ")
    assert [row.damage for row in listing.cached(check=True) if row.kind == "hub"] == [
        "config.json has another content"
    ]
