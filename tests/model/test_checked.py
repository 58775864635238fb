"""The check at load is kept: by config, weights, type and versions, for every command, and never in the way."""

from __future__ import annotations

import gc
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from luthier.model import check, checked, load
from luthier.model.hub.sources import Source
from luthier.runs.open import open_model

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one with each comparison."""
    found: list[str] = []
    monkeypatch.setattr(check, "expected", lambda m, own=check.expected: found.append("") or own(m))
    return found


def command(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of its own."""
    monkeypatch.setattr(load, "CHECKED", set())
    checked.forget()


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    load.load(folder, device=CPU, dtype=dtype)


def test_a_model_is_compared_once_for_all_commands(model, cache, compared, monkeypatch) -> None:
    command(monkeypatch)
    load.verify(Source("m", model, "folder"), device=CPU, dtype=torch.float32)  # as train does, before its data
    assert len(compared) == 1
    command(monkeypatch)
    loads: list[int] = []
    monkeypatch.setattr(load, "slices", lambda *args, own=load.slices, **named: loads.append(1) or own(*args, **named))
    load.verify(Source("m", model, "folder"), device=CPU, dtype=torch.float32)
    assert not loads  # its weights are not even read
    open_model(str(model), device="cpu", dtype="float32")  # as chat, eval and compare do
    assert len(compared) == 1
    assert len(loads) == 1


@pytest.mark.parametrize("change", ["config", "time", "size", "type", "version", "place"])
def test_what_the_answer_depends_on_has_it_compared_again(change, model, cache, compared, monkeypatch) -> None:
    command(monkeypatch)
    opened(model)
    weights, dtype = model / "model.safetensors", torch.float32
    if change == "config":
        said = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(said | {"rms_norm_eps": 1e-3}))
    elif change == "time":
        os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    elif change == "size":
        load.load(model, device=CPU, dtype=dtype).model.save_pretrained(model)
        when = weights.stat().st_mtime_ns
        content = weights.read_bytes()
        length = int.from_bytes(content[:8], "little")
        weights.write_bytes(
            (length + 8).to_bytes(8, "little") + content[8 : 8 + length] + b" " * 8 + content[8 + length :]
        )
        os.utime(weights, ns=(when, when))
        compared.clear()
        compared.append("")
    elif change == "type":
        dtype = torch.bfloat16
    elif change == "version":
        monkeypatch.setattr(checked, "__version__", "99")
    else:
        model = model.rename(model.with_name("elsewhere"))
    command(monkeypatch)
    opened(model, dtype)
    assert len(compared) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[1, null]", b'{"a": 1}', b"\xff\xfe", b"[" * 100_000, None])
def test_a_record_that_is_damaged_is_as_none_and_is_mended(content, model, cache, compared, monkeypatch) -> None:
    cache.mkdir()
    if content is None:
        os.mkfifo(cache / checked.FILE)  # is not opened: nothing would ever come
    else:
        (cache / checked.FILE).write_bytes(content)
    for _ in range(2):
        command(monkeypatch)
        opened(model)
    assert len(compared) == (2 if content is None else 1)


def test_a_cache_that_cannot_be_written_is_no_hindrance(model, tmp_path, compared, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "file" / "below"))
    for _ in range(2):
        command(monkeypatch)
        opened(model)
    assert len(compared) == 2


def test_the_record_does_not_grow_without_end(model, cache, monkeypatch) -> None:
    cache.mkdir()
    (cache / checked.FILE).write_text(json.dumps([str(number) for number in range(checked.MOST)]))
    command(monkeypatch)
    opened(model)
    kept = json.loads((cache / checked.FILE).read_text())
    assert len(kept) == checked.MOST
    assert kept[0] == "1"


def test_what_was_compared_is_let_go_of_whole(model, cache, monkeypatch):
    """It hangs in circles of references, old ones by then: they are looked for among all objects."""
    command(monkeypatch)
    looked = []
    monkeypatch.setattr(gc, "collect", lambda generation=2: looked.append(generation) or 0)
    for times in (1, 0):  # known the second time: nothing is loaded
        looked.clear()
        load.verify(Source("tiny", model, "folder"), device=CPU, dtype=torch.float32)
        assert looked.count(2) == times
