"""A run under way whose files were cut, garbled, changed or removed: refused at once, or gone on with to the same bits."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.runs.locate import resolve_model
from luthier.training import checkpoint
from luthier.tune import train as app_train
from luthier.tune import training_steps as app_learn
from luthier.tune.train import run
from luthier.tune.verify import resume
from luthier.tune.write_report import write_report
from sentences import sentence
from whole_runs import bits, run_until, same


def cut(content):
    return content[: len(content) // 2]


def emptied(content):
    return b""


def garbled(content):
    return bytes(random.Random(0).randrange(256) for _ in content[:200]) + content[200:]


def one_digit(content):
    """The last digit becomes another: the file reads as well as before."""
    place = next(i for i in reversed(range(len(content))) if content[i : i + 1].isdigit())
    return content[:place] + (b"1" if content[place : place + 1] != b"1" else b"2") + content[place + 1 :]


def gone(content):
    return None


DAMAGES = [cut, emptied, garbled, one_digit, gone]


def harm(path, damage):
    content = damage(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@pytest.fixture(scope="module")
def made(tiny_folder, tmp_path_factory):
    """Settings, a run that was stopped after step 5 of 8, with what a preference method keeps too, and the same run finished."""
    folder = tmp_path_factory.mktemp("damage")
    rows = [{"prompt": f"who sat by tree {i}?", "chosen": f"cat {i}", "rejected": "the dog"} for i in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def config(out):
        return resolve({
            "model": str(tiny_folder), "data.path": [str(folder / "rows.jsonl")], "out": str(out), "train.batch": 4,
            "train.tokens": 128, "train.checkpoint": 2, "train.keep": 3, "data.holdout": 0.2, "eval.max_new_tokens": 4,
            "method": "dpo", "lora.rank": 2, "threads": 1, "device": "cpu", "dtype": "float32", "eval.every": 2,
            "eval.forgetting": False, "eval.samples": 0,
        })  # fmt: skip

    run_until(5, config(folder / "part"))
    shutil.copytree(folder / "part", folder / "whole")
    run(config(folder / "whole"))
    return config, folder


@pytest.fixture
def part(made, tmp_path):
    """A copy of the stopped run, and its settings."""
    config, folder = made
    shutil.copytree(folder / "part", tmp_path / "run")
    return tmp_path / "run", config(tmp_path / "run")


@pytest.fixture
def whole(made, tmp_path):
    """A copy of the finished run, and its settings."""
    config, folder = made
    shutil.copytree(folder / "whole", tmp_path / "run")
    return tmp_path / "run", config(tmp_path / "run")


@pytest.fixture
def no_step(monkeypatch):
    """No model is loaded: what is damaged is told before."""
    monkeypatch.setattr(app_train, "load_model", lambda *_: pytest.fail("the model was loaded"))


READ_LATER = ["run.yaml", "lineage.json", "sums", "evals/before.jsonl", "evals/reference-*.jsonl", "metrics.jsonl",
              "losses.jsonl"]  # fmt: skip


@pytest.mark.medium
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READ_LATER)
def test_what_a_run_reads_later_is_checked_before_it_goes_on(part, no_step, name, damage):
    folder, config = part
    (path, *_) = folder.glob(name)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    harm(path, damage)
    with pytest.raises(InputError) as told:
        run(config)
    assert path.name in str(told.value) and "; " in str(told.value)
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert {p for p in before if p != path} <= set(after)
    written = {path, folder / "run.yaml", folder / "sums"}  # the copy's --out is another
    assert all(after[p] == before[p] for p in before.keys() - written)


@pytest.mark.medium
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_finished_run_is_not_handed_out_with_a_damaged_file(whole, damage):
    folder, config = whole
    for name in ("result.json", "evals/after.jsonl", "metrics.jsonl", "adapter/adapter_model.safetensors"):
        content = (folder / name).read_bytes()
        harm(folder / name, damage)
        uses = [lambda: run(config), lambda: resume(folder)]
        uses += (
            [lambda: resolve_model(str(folder))] if name.startswith("adapter/") else [lambda: write_report([folder])]
        )
        for use in uses:
            with pytest.raises(
                InputError, match=sentence("file gone" if damage is gone else "file changed", where=name)
            ):
                use()
        (folder / name).write_bytes(content)
    assert run(config)["steps"] == 8


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_page_is_made_of_whole_files_only(whole, damage):
    folder, _ = whole
    for name in ("run.yaml", "lineage.json", "sums", "data.json", "evals/before.jsonl"):
        content = (folder / name).read_bytes()
        harm(folder / name, damage)
        with pytest.raises(InputError, match=name):
            write_report([folder])
        (folder / name).write_bytes(content)
    assert write_report([folder]).is_file()


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.medium
@pytest.mark.parametrize("damage", [cut, emptied, flipped, gone])
def test_a_damaged_checkpoint_is_set_aside_and_the_bits_are_the_same(made, part, capsys, damage):
    """The newest is damaged in one of its files; new ones are kept as they are saved."""
    folder, config = part
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    file = {cut: "weights.safetensors", emptied: "manifest.json", flipped: "optimizer.safetensors", gone: "state.json"}[
        damage
    ]
    harm(newest / file, damage)
    run(config)
    told = [line for line in capsys.readouterr().err.splitlines() if "set aside" in line]
    assert len(told) == 1 and str(newest) in told[0] and f"damaged-{newest.name}" in told[0]
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    kept = [f"step-{step:08d}" for step in (4, 6, 8)]
    assert names == sorted(["best", f"damaged-{newest.name}", *kept])
    assert same(bits(folder), bits(made[1] / "whole"))
    run(config)
    assert "set aside" not in capsys.readouterr().err


@pytest.mark.medium
def test_all_checkpoints_damaged_begin_with_the_first_step_and_end_alike(made, part, capsys):
    folder, config = part
    for path in (folder / "checkpoints").glob("step-*"):
        harm(path / "weights.safetensors", flipped)
    run(config)
    assert "training begins with its first step" in capsys.readouterr().err
    assert same(bits(folder), bits(made[1] / "whole"))


def test_damaged_ones_never_make_new_ones_go(tmp_path):
    """Whole ones of later steps than the new one, as an older version left them, do not count before it either."""
    import torch

    def save(step):
        return checkpoint.save(tmp_path, step, {"w": torch.ones(2)}, {}, {}, keep=2)

    for step in (8, 9):
        harm(save(step) / "weights.safetensors", flipped)
    assert checkpoint.newest(tmp_path) is None
    for step in (1, 2, 3):
        assert save(step).is_dir()
    save(9)
    harm(tmp_path / "step-00000009" / "manifest.json", lambda content: b"[]")
    assert checkpoint.newest(tmp_path).name == "step-00000003"
    names = ["damaged-step-00000008", "damaged-step-00000009", "damaged-step-00000009-1", "step-00000003"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.parametrize("damage", [cut, emptied, flipped, gone, "folder"])
@pytest.mark.medium
def test_a_missing_or_damaged_best_checkpoint_is_refused_at_once(part, no_step, damage):
    folder, config = part
    best = folder / "checkpoints" / "best"
    if damage == "folder":
        shutil.rmtree(best)
    else:
        harm(best / "weights.safetensors", damage)
    says = sentence("checkpoint unusable", where="checkpoints/best")
    with pytest.raises(InputError, match=says):
        run(config)


@pytest.mark.medium
def test_a_best_checkpoint_that_goes_while_training_is_not_replaced_by_the_last(part, monkeypatch):
    folder, config = part
    original = app_learn.best_checkpoint
    monkeypatch.setattr(
        app_learn, "best_checkpoint", lambda *args: shutil.rmtree(folder / "checkpoints" / "best") or original(*args)
    )
    with pytest.raises(InputError, match=sentence("checkpoint unusable", fault="it is gone")):
        run(config)
    assert not (folder / "adapter").exists()


@pytest.mark.medium
def test_checkpoints_that_were_removed_begin_with_the_first_step(made, part):
    """The way out that the messages name."""
    folder, config = part
    harm(folder / "metrics.jsonl", one_digit)
    shutil.rmtree(folder / "checkpoints")
    run(config)
    assert same(bits(folder), bits(made[1] / "whole"))


@pytest.mark.medium
def test_a_moved_run_and_a_link_to_it_go_on(made, part, tmp_path):
    folder, config = part
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    run(config)
    assert same(bits(folder), bits(made[1] / "whole"))
    write_report([tmp_path / "moved"])


@pytest.mark.medium
def test_runs_of_older_versions_have_no_sums_and_go_on(made, part):
    folder, config = part
    (folder / "sums").unlink()
    lineage = json.loads((folder / "lineage.json").read_text())
    del lineage["sums"]
    (folder / "lineage.json").write_text(json.dumps(lineage))
    run(config)
    assert same(bits(folder), bits(made[1] / "whole"))


def test_a_run_whose_settings_were_edited_in_its_folder_is_refused(part):
    """`luthier train RUN/run.yaml` would compare the changed settings with themselves."""
    folder, config = part
    path = folder / "run.yaml"
    path.write_text(path.read_text().replace("rank: 2", "rank: 4"))
    changed = config.model_copy(update={"lora": config.lora.model_copy(update={"rank": 4})})
    with pytest.raises(InputError, match=sentence("file changed", where="run.yaml")):
        run(changed)


@pytest.mark.medium
def test_a_run_that_has_made_nothing_yet_takes_what_is_there_now(made, tmp_path, monkeypatch):
    config, folder = made
    rows = tmp_path / "rows.jsonl"
    rows.write_text((folder / "rows.jsonl").read_text())
    mine = config(tmp_path / "run")
    mine = mine.model_copy(update={"data": mine.data.model_copy(update={"path": (str(rows),)})})
    with monkeypatch.context() as stopping:
        stopping.setattr(app_train, "resume_point", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(mine)
    rows.write_text(rows.read_text() + '{"prompt": "a?", "chosen": "b", "rejected": "c"}\n')
    assert run(mine)["data"]["rows"] + run(mine)["data"]["held_out"] == 41
