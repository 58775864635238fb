"""Checkpoints are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno

import pytest
import torch

from luthier.core.errors import RunError
from luthier.training import checkpoint
from sentences import sentence


def save(folder, step, keep=2):
    return checkpoint.save(folder, step, {"w": torch.full((3,), float(step))}, {"m": torch.ones(2)}, {"t": step}, keep)


def test_round_trip_and_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    found = checkpoint.latest(tmp_path)
    assert found.weights["w"].tolist() == [3, 3, 3]
    assert found.state == {"step": 3, "t": 3}
    assert found.optimizer["m"].tolist() == [1, 1]


def test_nothing_there_is_none(tmp_path):
    assert checkpoint.latest(tmp_path / "absent") is None


@pytest.mark.parametrize("name", [*checkpoint.FILES, "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, name, damage, capsys):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert checkpoint.latest(tmp_path).state["step"] == 1
    assert "step-00000002" in capsys.readouterr().err
    assert [p.name for p in checkpoint.whole(tmp_path)] == ["step-00000001"]


def test_a_kill_while_saving_leaves_the_one_before(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".step-00000002.tmp").mkdir()
    (tmp_path / ".step-00000002.tmp" / "weights.safetensors").write_bytes(b"half")
    assert checkpoint.latest(tmp_path).state["step"] == 1
    save(tmp_path, 2)
    assert checkpoint.latest(tmp_path).state["step"] == 2
    assert not (tmp_path / ".step-00000002.tmp").exists()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunError, match=sentence("disk full")):
        save(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001"]


def test_no_pickle_is_written(tmp_path):
    path = save(tmp_path, 1)
    assert {p.suffix for p in path.iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 5, 6])
def test_as_many_are_kept_as_was_asked_for(tmp_path, keep):
    for step in range(1, 9):
        save(tmp_path, step, keep)
        newest = [f"step-{one:08d}" for one in range(max(1, step - keep + 1), step + 1)]
        assert sorted(path.name for path in tmp_path.glob("step-*")) == newest
