"""Whole runs on a tiny model: results, resume to the same bits, kills at any point, bad input."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from luthier.cli import run as cli
from luthier.config.resolve import resolve
from luthier.config.training import TrainConfig
from luthier.core.errors import InputError
from luthier.core.storage.files import sha256
from luthier.model import memory
from luthier.tune import train as app_train
from luthier.tune import training_steps as app_learn
from luthier.tune.train import run
from luthier.tune.training_steps import LastSave
from luthier.tune.verify import resume
from sentences import sentence
from whole_runs import bits, questions, run_until, same

pytestmark = pytest.mark.medium


@pytest.fixture
def rows(tmp_path):
    return questions(tmp_path / "rows.jsonl")


@pytest.fixture
def settings(tiny_folder, rows, tmp_path):
    def make(**changes):
        base = {
            "model": str(tiny_folder), "data.path": [str(rows)], "out": str(tmp_path / "run"), "train.batch": 4,
            "train.tokens": 128, "train.checkpoint": 2, "train.keep": 9, "data.holdout": 0.2, "eval.max_new_tokens": 8,
            "lora.rank": 2, "threads": 1, "device": "cpu", "dtype": "float32", "train.lr": 1e-2, "eval.forgetting": False,
        }  # fmt: skip
        return base | {key.replace("__", "."): value for key, value in changes.items()}

    return make


def started(values):
    """`luthier train` with these settings in a process of its own."""
    arguments = [sys.executable, "-m", "luthier", "train", *values["data.path"], "--json"]
    for key in values.keys() - {"data.path"}:
        flag = isinstance(values[key], bool)
        arguments += [f"--{'' if values[key] else 'no-'}{key}"] if flag else [f"--{key}", str(values[key])]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


KINDS = ["lora", "full", "head", "last:1", "layers:*.mlp.*", "qlora"]


@pytest.mark.parametrize("tune", KINDS)
def test_a_run_learns_and_says_what_it_did(settings, tmp_path, tune):
    result = run(resolve(settings(tune=tune, train__epochs=3, eval__forgetting=tune == "lora")))
    folder = tmp_path / "run"
    assert set(result) >= {
        "run", "seconds", "steps", "tokens", "tokens_per_second", "peak_memory_bytes",
        "estimated_memory_bytes", "trainable", "parameters", "loss", "metrics",
    }  # fmt: skip
    assert set(result["loss"]) == {"first", "last", "eval"}
    row = {"before", "after", "difference", "low", "high", "n", "p", "corrected", "verdict"}
    assert set(result["metrics"]["loss"]) == row
    assert result["loss"]["last"] < result["loss"]["first"]
    assert result["metrics"]["loss"]["after"] < result["metrics"]["loss"]["before"]
    assert result == json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, result["steps"] + 1))
    losses = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    count = len({row for line in losses for row, _, _ in line["rows"]})
    assert count == result["data"]["rows"]
    assert sum(line["tokens_per_second"] > 0 for line in lines) == len(lines)
    for name in ("run.yaml", "lineage.json", "evals/before.jsonl", "evals/after.jsonl", "loss.svg", "table.svg"):
        assert (folder / name).stat().st_size > 0
    assert not [p for p in folder.rglob("*") if p.suffix in (".pt", ".bin", ".pkl", ".tmp")]


def test_the_same_command_twice_gives_the_same_bits(settings, tmp_path):
    """LLaMA-Factory#5588 #5446, unsloth#617, trl#1014: same seed, other result."""
    for name in ("one", "two"):
        run(resolve(settings(out=str(tmp_path / name), lora__dropout=0.1)))
    run(resolve(settings(out=str(tmp_path / "three"), lora__dropout=0.1, seed=1)))
    one, two, three = (bits(tmp_path / name) for name in ("one", "two", "three"))
    assert same(one, two)
    assert not same(one, three)


@pytest.mark.parametrize(
    ("tune", "extra"),
    [(tune, {}) for tune in KINDS]
    + [("full", {"train__optimizer": "adamw8bit"}), ("lora", {"train__optimizer": "adamw8bit"})]
    + [("lora", {"lora__dora": True}), ("lora", {"lora__init": "pissa"}), ("qlora", {"quant__kind": "int8"})]
    + [(tune, {"dtype": "bfloat16"}) for tune in ("lora", "full")],
    ids=lambda value: str(value),
)
def test_stopped_and_gone_on_equals_uninterrupted(settings, tmp_path, tune, extra, monkeypatch):
    """ms-swift#10050, accelerate#4071, transformers#40691, verl#3457, h2o-llmstudio#571."""
    changes = {"tune": tune, "train__epochs": 2, "lora__dropout": 0.1, "eval__every": 3, "eval__samples": 2, **extra}
    changes["eval__forgetting"] = tune == "lora" and not extra  # what is measured of it is the same whatever learned
    whole = run(resolve(settings(out=str(tmp_path / "whole"), **changes)))
    config = resolve(settings(out=str(tmp_path / "parts"), **changes))
    for step, number in ((3, signal.SIGINT), (4, signal.SIGTERM), (9, signal.SIGINT)):
        run_until(step, config, number)
    parts = run(config)
    assert same(bits(tmp_path / "whole"), bits(tmp_path / "parts"))
    for name in ("loss", "metrics", "steps", "tokens", "kept", "forgetting"):
        assert parts[name] == whole[name]
    for name in ("losses.jsonl", "samples.jsonl"):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "parts" / name).read_text()
    for left, right in zip(*(
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()] for name in ("whole", "parts")
    ), strict=True):  # fmt: skip
        drop = {"tokens_per_second", "memory_bytes"}
        assert {k: v for k, v in left.items() if k not in drop} == {k: v for k, v in right.items() if k not in drop}


@pytest.mark.slow
def test_kill_minus_nine_at_random_moments(settings, tmp_path):
    """Killed anywhere, also while saving: the next start goes on, and the end has the same bits."""
    changes = {"train__epochs": 12, "train__checkpoint": 1, "eval__every": 8, "eval__forgetting": True}
    run(resolve(settings(out=str(tmp_path / "whole"), **changes)))
    values = settings(out=str(tmp_path / "killed"), **changes)
    draw, kills = random.Random(5), 0
    for attempt in range(40):
        process = started(values)
        try:
            process.communicate(timeout=draw.uniform(4.5, 7) if attempt < 12 else 300)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0
        break
    assert kills >= 2
    assert same(bits(tmp_path / "whole"), bits(tmp_path / "killed"))


def test_killed_in_mid_training_loses_nothing(settings, tmp_path):
    """One kill -9 for every `make test`; the slow test above takes many moments."""
    quick = {"train__epochs": 6, "eval__samples": 0, "eval__forgetting": False, "data__holdout": 0.0}
    run(resolve(settings(out=str(tmp_path / "whole"), **quick)))
    values, parts = settings(out=str(tmp_path / "parts"), **quick), tmp_path / "parts"
    process, until = started(values), time.monotonic() + 120
    while not list(parts.glob("checkpoints/step-*/manifest.json")):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said
    assert not (parts / "adapter").exists(), "it had ended before the signal"
    run(resolve(values))
    assert same(bits(tmp_path / "whole"), bits(parts))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", ["tokens of", "before:", "training", "after:"])
def test_a_signal_in_every_phase_saves_and_leaves(settings, phase, number):
    """goodfire-ai/spd#677: a flag polled only between steps missed every other phase."""
    process = started(settings(train__epochs=40, eval__forgetting=True))
    for line in process.stderr:
        if phase in line:
            process.send_signal(number)
            break
    began = time.monotonic()
    rest = process.stderr.read()
    assert process.wait(60) == 130, rest
    assert "run the same command again" in rest
    assert "Traceback" not in rest
    assert time.monotonic() - began < 30


def test_verify_takes_steps_again_and_sees_a_changed_bit(settings, tmp_path):
    import torch
    from safetensors.torch import save_file

    from luthier.core.storage.files import sha256, write_json

    run(resolve(settings(tune="lora", lora__dropout=0.1)))
    found = resume(tmp_path / "run")
    assert found["same_bits"] is True
    assert found["to"] - found["from"] == 2 or found["to"] % 2
    newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1]
    weights = load_file(newest / "weights.safetensors")
    name = next(iter(weights))
    weights[name].view(-1)[0] = torch.nextafter(weights[name].view(-1)[0], torch.tensor(9.0))
    save_file(weights, newest / "weights.safetensors")
    manifest = json.loads((newest / "manifest.json").read_text())
    write_json(newest / "manifest.json", manifest | {"weights.safetensors": sha256(newest / "weights.safetensors")})
    assert resume(tmp_path / "run")["same_bits"] is False


def test_checkpoints_are_also_due_by_the_clock(settings, tmp_path, monkeypatch):
    """Slow steps: 50 of them may take hours. Two steps of a minute each are saved when three minutes are over."""
    now, note = [0.0], app_learn.log_step

    def slow(*arguments):
        now[0] += 100
        note(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(app_learn, "time", SimpleNamespace(monotonic=lambda: now[0]))
        patched.setattr(app_learn, "log_step", slow)
        run_until(5, resolve(settings(train__checkpoint=1000, train__steps=6)))
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000004", "step-00000005"]
    run(resolve(settings(train__checkpoint=1000, train__steps=6)))
    other = settings(train__steps=6, train__checkpoint_minutes=0, train__checkpoint=1000, out=str(tmp_path / "whole"))
    run(resolve(other))
    assert [path.name for path in (tmp_path / "whole" / "checkpoints").iterdir()] == ["step-00000006"]
    assert same(bits(tmp_path / "run"), bits(tmp_path / "whole"))


def test_saving_takes_a_small_share_of_the_time(monkeypatch):
    config = TrainConfig(checkpoint=1000, checkpoint_minutes=1)
    monkeypatch.setattr(app_learn, "time", SimpleNamespace(monotonic=lambda: 300.0))
    assert LastSave(at=200.0, seconds=1.0).due(config, 7)
    assert not LastSave(at=200.0, seconds=30.0).due(config, 7), "half a minute each: not again before ten minutes"
    assert LastSave(at=200.0, seconds=30.0).due(config, 1000)


def test_a_run_goes_on_with_other_threads_and_says_so(settings, tmp_path, monkeypatch, capsys):
    """On a machine that got busy: what was learned is not lost for a number of threads."""
    run_until(3, resolve(settings(train__steps=5)))
    capsys.readouterr()
    run(resolve(settings(train__steps=5, threads=2)))
    assert "threads (1, now 2) changed since this run began: its last bits may differ" in capsys.readouterr().err
    told = json.loads((tmp_path / "run" / "lineage.json").read_text())
    assert told["environment"]["threads"] == 1
    assert [start["environment"]["threads"] for start in told["later_starts"]] == [2]
    same_as_then = resume(tmp_path / "run")  # on two threads, as its last steps were taken
    assert (same_as_then["same_bits"], same_as_then["changed_since"]) == (True, [])
    assert resume(tmp_path / "run", threads=1)["changed_since"] == ["threads"]


def test_what_cannot_fit_in_memory_is_refused_unless_forced(settings, tmp_path, monkeypatch):
    """axolotl#848, litgpt#920: will it fit?"""
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    with pytest.raises(InputError, match=sentence("not enough memory", where="--tune lora", free="1 kB")):
        run(resolve(settings()))
    assert not (tmp_path / "run" / "evals" / "before.jsonl").exists(), "refused before any work"
    assert run(resolve(settings(force=True)))["steps"] > 0


def test_seconds_are_those_of_the_whole_start(settings, monkeypatch):
    now, read = [0.0], app_train.read_examples

    def slow(*arguments):
        now[0] += 1000
        return read(*arguments)

    monkeypatch.setattr(app_train, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(app_train, "read_examples", slow)
    assert run(resolve(settings()))["seconds"] == 1000


def test_patience_without_held_out_rows_is_refused(settings):
    with pytest.raises(InputError, match=sentence("no row to decide when to stop", where="--eval.patience")):
        run(resolve(settings(eval__every=2, eval__patience=1, data__holdout=0.0)))


def test_patience_without_evaluations_is_refused(settings):
    with pytest.raises(InputError, match=sentence("patience needs evaluations", where="--eval.patience")):
        run(resolve(settings(eval__patience=2)))


@pytest.mark.parametrize("count", [0, 3])
def test_rows_that_spell_out_a_control_token_are_counted(settings, rows, capsys, count):
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    for line in lines[:count]:
        line["completion"] = "say <|im_end|> aloud"
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(resolve(settings(data__holdout=0.0, train__steps=1)))
    assert ("3 of 40 rows contain a control token" in capsys.readouterr().err) == bool(count)


def test_a_finished_run_is_not_done_again(settings, capsys):
    first = run(resolve(settings()))
    assert run(resolve(settings())) == first
    assert "this run is finished" in capsys.readouterr().err


def test_a_folder_with_another_run_is_refused(settings):
    run(resolve(settings()))
    with pytest.raises(InputError, match=sentence("another run", name="train.lr", there="0.01", here="0.02")):
        run(resolve(settings(train__lr=0.02)))


def test_a_folder_with_something_else_is_refused_and_left_alone(settings, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=sentence("folder holds something else")):
        run(resolve(settings()))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_changed_data_cannot_go_on(settings, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(app_train.export, "write", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(resolve(settings()))
    monkeypatch.undo()
    rows.write_text(rows.read_text() + '{"prompt": "new", "completion": "row"}\n')
    with pytest.raises(InputError, match=sentence("inputs changed", name="data")):
        run(resolve(settings()))


def test_a_loss_that_is_not_finite_stops_before_the_update(settings, tmp_path, monkeypatch, capsys):
    import torch

    from luthier.methods.likelihood import likelihood
    from luthier.training import method_table

    calls = 0

    def broken(batch, output):
        nonlocal calls
        calls += output.logp.requires_grad  # not while measuring
        return replace(likelihood(batch, output), total=output.logp.sum() * (float("nan") if calls > 3 else -0.01))

    row = method_table.METHODS["sft"]
    monkeypatch.setitem(method_table.METHODS, "sft", type(row)(row.example, broken, row.summary))
    values = settings(train__checkpoint=1, train__tokens=4096)
    arguments = ["train", *values.pop("data.path"), *(x for k, v in values.items() for x in (f"--{k}", str(v)))]
    assert cli(arguments) == 1
    assert "nothing was changed by it" in capsys.readouterr().err
    newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1]
    assert newest.name == "step-00000003"
    assert all(torch.isfinite(t).all() for t in load_file(newest / "weights.safetensors").values())


def test_the_best_checkpoint_is_kept_and_a_run_stops_early(settings, tmp_path):
    changes = {"train__epochs": 30, "train__lr": 0.3, "eval__every": 2, "eval__patience": 2, "eval__samples": 2}
    result = run(resolve(settings(**changes)))
    assert result["steps"] < 30 * 8
    evals = [
        json.loads(line)
        for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        if "eval_loss" in line
    ]
    best = min(evals, key=lambda line: line["eval_loss"])
    assert result["kept"] == {"step": best["step"], "why": "best held-out loss"}
    assert result["loss"]["eval"] == pytest.approx(best["eval_loss"], rel=1e-4)
    name = next(name for name in result["metrics"] if name != "loss")
    assert all(math.isfinite(line[name]) for line in evals)
    shown = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert {line["step"] for line in shown} == {line["step"] for line in evals}


def test_a_best_checkpoint_that_was_damaged_is_refused(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(app_train.export, "write", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    config = resolve(settings(eval__every=2))
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.undo()
    best = tmp_path / "run" / "checkpoints" / "best"
    whole = (best / "weights.safetensors").read_bytes()
    (best / "weights.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(
        InputError, match=sentence("checkpoint unusable", fault="weights.safetensors is not what was saved")
    ):
        run(config)


def test_lora_plus_moves_b_by_its_own_rate(settings, tmp_path):
    def largest(ratio):
        run(
            resolve(
                settings(out=str(tmp_path / str(ratio)), lora__lr_ratio=ratio, eval__samples=0, eval__forgetting=False)
            )
        )
        return max(float(t.abs().max()) for name, t in bits(tmp_path / str(ratio)).items() if "lora_B" in name)

    assert largest(0.001) < 0.01 * largest(1.0)


def test_cpt_learns_raw_text(settings, tmp_path):
    text = tmp_path / "texts"
    text.mkdir()
    for i in range(12):
        (text / f"{i}.txt").write_text(f"the cat sat on the mat by tree {i}. " * 12)
    result = run(
        resolve(settings(method="cpt", data__path=[str(text)], tune="full", train__epochs=4, text__max_length=64))
    )
    assert result["metrics"]["loss"]["after"] < result["metrics"]["loss"]["before"]
    assert result["metrics"].keys() == {"loss"}


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_stream_is_read_as_it_goes_and_resumes(settings, rows, tmp_path, monkeypatch, interrupt):
    changes = {"data__stream": True, "train__steps": 25, "data__eval": [str(rows)]}
    whole = run(resolve(settings(out=str(tmp_path / "whole"), **changes)))
    assert whole["steps"] == 25
    assert whole["data"]["rows"] == 40
    lines = [json.loads(line) for line in (tmp_path / "whole" / "losses.jsonl").read_text().splitlines()]
    order = [row for line in lines for row, _, _ in line["rows"]]
    assert [sorted(order[i : i + 4]) for i in (0, 4, 36)] == [[0, 1, 2, 3], [4, 5, 6, 7], [36, 37, 38, 39]]
    assert sorted(order[40:44]) == [0, 1, 2, 3]
    if interrupt:
        config = resolve(settings(out=str(tmp_path / "parts"), **changes))
        run_until(13, config)
        run(config)
        assert same(bits(tmp_path / "whole"), bits(tmp_path / "parts"))


@pytest.fixture
def broken_off(settings, monkeypatch):
    """A run of a stream that was stopped after 3 of 5 steps of 4 rows."""
    changes = {"data__stream": True, "train__steps": 5, "eval__samples": 0, "eval__forgetting": False}
    config = resolve(settings(**changes))
    run_until(3, config)
    return config


def test_a_stream_may_grow(broken_off, rows):
    rows.write_text(rows.read_text() + '{"prompt": "new", "completion": "row"}\n')
    assert run(broken_off)["steps"] == 5


def test_a_stream_of_other_rows_cannot_go_on(broken_off, rows):
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([*lines[1:], lines[0]]))
    for _ in range(2):  # once refused, it once took what it had read for what it had learned
        with pytest.raises(InputError, match=sentence("first examples changed", count=12)):
            run(broken_off)
    rows.write_text("\n".join(lines))
    assert run(broken_off)["steps"] == 5


def test_a_bad_row_among_those_passed_over_is_told(broken_off, rows):
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([lines[0], "{", *lines[2:]]))
    with pytest.raises(InputError, match=sentence("broken json line", where="rows.jsonl:2")):
        run(broken_off)


def test_verify_tells_rows_of_a_stream_that_changed(settings, tmp_path, rows):
    changes = {"data__stream": True, "train__steps": 4, "eval__samples": 0, "eval__forgetting": False}
    run(resolve(settings(**changes)))
    assert resume(tmp_path / "run")["same_bits"]
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([*lines[:13], *reversed(lines[13:])]))
    with pytest.raises(InputError, match=sentence("rows of stream changed")):
        resume(tmp_path / "run")


def test_a_stream_of_an_older_start_is_not_taken_for_changed(broken_off, rows):
    """Their lineage has the file's hash, their checkpoints no mark, and nothing has sums."""
    folder = Path(broken_off.out)
    made = json.loads((folder / "lineage.json").read_text())
    made["inputs"]["data"] = {str(rows): "0" * 64}
    del made["sums"]
    (folder / "sums").unlink()
    (folder / "lineage.json").write_text(json.dumps(made))
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    state, manifest = (json.loads((last / name).read_text()) for name in ("state.json", "manifest.json"))
    del state["stream"]
    state["journals"] = {name: mark["bytes"] for name, mark in state["journals"].items()}
    (last / "state.json").write_text(json.dumps(state))
    manifest["state.json"] = sha256(last / "state.json")
    (last / "manifest.json").write_text(json.dumps(manifest))
    assert run(broken_off)["steps"] == 5


@pytest.mark.parametrize("interrupt", [False, True])
def test_what_a_stream_lost_is_counted(settings, tmp_path, capsys, monkeypatch, interrupt):
    good = [{"prompt": f"who {i}?", "completion": "cat"} for i in range(20)]
    lines = [json.dumps(row) for row in good]
    lines[2:2] = ['{"prompt": ', json.dumps({"prompt": "who? " * 60, "completion": "cat " * 60})]
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(lines))
    changes = {"data__stream": True, "train__steps": 4, "data__path": [str(path)], "data__skip_bad": True}
    changes |= {"text__max_length": 64, "eval__samples": 0, "eval__forgetting": False}
    config = resolve(settings(**changes))
    if interrupt:  # after the last step: nothing is read any more
        monkeypatch.setattr(app_train.export, "write", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(config)
        monkeypatch.undo()
    data = run(config)["data"]
    assert (data["rows"], data["skipped"], data["cut"] + sum(data["dropped"].values())) == (21, 1, 1)
    said = " ".join(capsys.readouterr().err.split())
    assert "1 rows of the stream skipped: they cannot be read" in said
    assert "1 of 21 rows of the stream" in said


def test_a_stream_of_mixed_rows_teaches_no_unwanted_answer(settings, tmp_path):
    path = tmp_path / "mixed.jsonl"
    wanted = [{"prompt": f"who {i}?", "completion": "cat"} for i in range(12)]
    unwanted = [{"prompt": "who?", "completion": "bad", "label": False}] * 12
    path.write_text("".join(json.dumps(row) + "\n" for row in wanted + unwanted))
    changes = {"data__stream": True, "train__steps": 6, "data__path": [str(path)], "data__layout": "mixed"}
    with pytest.raises(InputError, match=sentence("method and rows", where="mixed.jsonl:13", name="sft")):
        run(resolve(settings(**changes)))


def test_the_screen_says_how_many_rows_are_left(settings, rows):
    rows.write_text(rows.read_text() + json.dumps({"prompt": "who?", "completion": "cat " * 100}) + "\n")
    said = {}
    changes = {"text__max_length": 64, "text__too_long": "drop", "data__holdout": 0.0, "eval__samples": 0}
    run(resolve(settings(**changes)), lambda name, value: said.update({name: value}))
    assert said["ready"]["data"] == "40 of 41 rows to learn from, 0 held out (prompt_completion)"


def test_held_out_rows_that_are_cut_are_told(settings, tmp_path, capsys):
    path = tmp_path / "test.jsonl"
    rows = [{"prompt": "who?", "completion": "cat " * (2 + 100 * (i % 2))} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"data__eval": [str(path)], "text__max_length": 64, "eval__samples": 0, "eval__forgetting": False}
    data = run(resolve(settings(**changes)))["data"]
    assert (data["held_out"], data["held_out_cut"], data["held_out_dropped"], data["cut"]) == (6, 3, {}, 0)
    assert "3 of 6 held-out rows were longer than --text.max_length 64" in " ".join(capsys.readouterr().err.split())


def test_a_stream_without_a_length_is_refused(settings):
    with pytest.raises(InputError, match=sentence("stream has no length")):
        run(resolve(settings(data__stream=True)))
    with pytest.raises(InputError, match=sentence("stream has no length")):
        run(resolve(settings(data__stream=True, data__path=["-"])))


def test_the_wrong_method_for_the_data_says_which(settings, tmp_path):
    (tmp_path / "a.txt").write_text("plain text")
    with pytest.raises(InputError, match=sentence("method and rows", fix="use --method cpt or orpo")):
        run(resolve(settings(data__path=[str(tmp_path / "a.txt")])))
    with pytest.raises(InputError, match=sentence("method and rows", fix="use --method sft or orpo or ppo or grpo")):
        run(resolve(settings(method="cpt")))


def test_a_full_model_loads_in_transformers_with_its_template(settings, tmp_path, tiny_tokenizer):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from luthier.runs.open import open_model

    run(resolve(settings(tune="full")))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    ids = torch.tensor([tokenizer("the cat sat")["input_ids"]])
    opened = open_model(str(tmp_path / "run"), device="cpu", dtype="float32")
    from luthier.runs.open import log_probabilities

    ours = log_probabilities(opened, ["the cat sat"])
    logp = theirs(ids).logits[0].log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None])[:, 0]
    torch.testing.assert_close(ours, logp.detach(), atol=1e-5, rtol=1e-5)
    assert tokenizer.chat_template == tiny_tokenizer.chat_template


@pytest.mark.parametrize("tune", ["full", "head", "last:1", "layers:*.mlp.*"])
def test_a_whole_model_is_read_back_as_it_was_measured(settings, tmp_path, tune):
    """unsloth#9331, LLaMA-Factory#6749: a head that was untied, and weights that were left out of the file."""
    from luthier.model.forward import forward
    from luthier.runs.method import chosen_method
    from luthier.runs.open import open_model
    from luthier.runs.rows import read_examples
    from luthier.text.encode import encode
    from luthier.training import annotate
    from luthier.training.steps import Packing

    config = resolve(settings(tune=tune, eval__samples=0, eval__forgetting=False))
    result = run(config)
    opened = open_model(str(tmp_path / "run"), device="cpu", dtype="float32")
    trees = encode(
        read_examples(config, chosen_method(config).example).test, opened.template, opened.tokenizer, config.text
    ).trees
    found = annotate.answer_logps(
        forward, opened.model, trees, Packing(4096), next(opened.model.parameters()).device, "", bool
    )
    loss = -sum(sum(values) for values in found) / sum(tree.trained for tree in trees)
    assert loss == pytest.approx(result["loss"]["eval"], rel=1e-4)
    assert result["metrics"]["loss"]["before"] - loss > 1e-3


def test_the_best_step_is_chosen_by_other_rows_than_those_reported(settings, tmp_path, capsys):
    """What is chosen by the rows it is reported on looks better than it is."""
    changes = {"data__holdout": 0.4, "eval__every": 2, "eval__samples": 3, "train__steps": 4}
    result = run(resolve(settings(**changes, eval__rows=5)))
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    seen = [line["eval_loss"] for line in steps if "eval_loss" in line]
    assert "look a little better" not in capsys.readouterr().err
    assert min(abs(result["loss"]["eval"] - value) for value in seen) > 1e-3, "other rows, another loss"
    same = run(resolve(settings(**changes, eval__rows=200, out=str(tmp_path / "same"))))
    steps = [json.loads(line) for line in (tmp_path / "same" / "metrics.jsonl").read_text().splitlines()]
    assert "look a little better" in capsys.readouterr().err
    assert same["loss"]["eval"] == pytest.approx(min(s["eval_loss"] for s in steps if "eval_loss" in s), rel=1e-4)
