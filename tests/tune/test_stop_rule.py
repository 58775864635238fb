"""`stop.forgetting`: training ends when too much is lost, and the best weights within the limit are kept."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.tune import train as app_train
from luthier.tune.checkpoint_selection import Progress, selected_step
from luthier.tune.train import run
from sentences import sentence
from whole_runs import questions, run_until

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def make_settings(tiny_folder, tmp_path_factory):
    path = questions(tmp_path_factory.mktemp("data") / "rows.jsonl")

    def make(**changes):
        base = {
            "model": str(tiny_folder), "data.path": [str(path)], "train.batch": 4,
            "train.tokens": 1024, "train.checkpoint": 3, "train.keep": 9, "data.holdout": 0.2, "eval.samples": 0,
            "eval.every": 2, "train.epochs": 2, "lora.rank": 2, "threads": 1, "device": "cpu", "dtype": "float32",
            "train.lr": 1e-2,
        }  # fmt: skip
        return base | {key.replace("__", "."): value for key, value in changes.items()}

    return make


@pytest.fixture
def settings(make_settings, tmp_path):
    return lambda **changes: make_settings(**{"out": str(tmp_path / "run"), **changes})


def measured(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if "forgetting" in record]


@pytest.fixture(scope="module")
def free(make_settings, tmp_path_factory):
    """A run without a limit."""
    folder = tmp_path_factory.mktemp("runs") / "free"
    result = run(resolve(make_settings(out=str(folder))))
    assert [record["step"] for record in measured(folder)] == [2, 4, 6, 8, 10, 12, 14, 15] and result["steps"] == 15
    assert result["kept"]["why"] == "best held-out loss"
    return folder


def test_the_drift_of_an_evaluation_is_that_of_the_result(settings, tmp_path):
    result = run(resolve(settings(train__epochs=1, eval__every=1)))
    by_step = {record["step"]: record["forgetting"] for record in measured(tmp_path / "run")}
    assert result["forgetting"]["drift"] == pytest.approx(by_step[result["kept"]["step"]], abs=1e-4)
    assert result["forgetting"]["drift"] > 0


def test_training_ends_over_the_limit_and_the_best_within_it_is_kept(settings, free, tmp_path):
    free = measured(free)
    lost = [record["forgetting"] for record in free]
    over = next(i for i in range(2, len(lost)) if lost[i] > max(lost[:i]))
    limit = (max(lost[:over]) + lost[over]) / 2
    result = run(resolve(settings(stop__forgetting=limit)))
    seen = measured(tmp_path / "run")
    drop = {"tokens_per_second", "memory_bytes"}
    assert [{k: v for k, v in r.items() if k not in drop} for r in seen] == free[: over + 1]
    assert result["steps"] == free[over]["step"]
    best = min(free[:over], key=lambda record: record["eval_loss"])
    until = free[over - 1]["step"]
    assert result["kept"] == {
        "step": best["step"], "why": f"best held-out loss; forgetting stayed under {limit:g} until step {until}",
    }  # fmt: skip
    assert result["forgetting"]["drift"] == pytest.approx(best["forgetting"], abs=1e-4)
    assert result["forgetting"]["drift"] < limit
    assert result["loss"]["eval"] == pytest.approx(best["eval_loss"], abs=1e-4)


def test_without_held_out_rows_the_last_within_the_limit_is_kept(settings, tmp_path):
    run(resolve(settings(out=str(tmp_path / "free"), data__holdout=0, train__epochs=1)))
    lost = [record["forgetting"] for record in measured(tmp_path / "free")]
    over = next(i for i in range(2, len(lost)) if lost[i] > max(lost[:i]))
    limit = (max(lost[:over]) + lost[over]) / 2
    result = run(resolve(settings(stop__forgetting=limit, data__holdout=0, train__epochs=1)))
    assert result["kept"] == {"step": 2 * over, "why": f"last; forgetting stayed under {limit:g} until step {2 * over}"}
    assert result["forgetting"]["drift"] == pytest.approx(lost[over - 1], abs=1e-4)


def test_when_the_first_evaluation_is_over_the_start_is_kept(settings, tmp_path):
    result = run(resolve(settings(stop__forgetting=1e-6, train__lr=0.1)))
    assert result["steps"] == 2
    assert result["kept"] == {"step": 0, "why": "the start: forgetting was over 1e-06 at step 2"}
    weights = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert all(not tensor.any() for name, tensor in weights.items() if "lora_B" in name)
    assert result["forgetting"]["drift"] == pytest.approx(0, abs=1e-5)


def test_a_limit_that_is_never_reached_changes_nothing_but_the_words(settings, free, tmp_path):
    result = run(resolve(settings(stop__forgetting=50.0)))
    best = min(measured(free), key=lambda record: record["eval_loss"])
    assert result["kept"] == {"step": best["step"], "why": "best held-out loss; forgetting stayed under 50"}
    left, right = (load_file(f / "adapter" / "adapter_model.safetensors") for f in (free, tmp_path / "run"))
    assert all(bool((left[name] == right[name]).all()) for name in left)


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_stopped_and_gone_on_equals_uninterrupted(settings, tmp_path, tune, monkeypatch):
    """Also when it is killed between the evaluation that ends it and the end."""
    changes = {
        "tune": tune,
        "stop__forgetting": 0.8 if tune == "lora" else 0.25,
        "train__epochs": 2,
        "train__lr": 1e-2 if tune == "lora" else 3e-3,
    }
    whole = run(resolve(settings(out=str(tmp_path / "whole"), **changes)))
    assert "until step" in whole["kept"]["why"]
    last = whole["steps"]
    config = resolve(settings(out=str(tmp_path / "parts"), **changes))
    for stop_at in (1, last - 1, last):
        run_until(stop_at, config)
    monkeypatch.setattr(app_train.export, "write", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.undo()
    parts = run(config)
    for name in ("loss", "metrics", "steps", "tokens", "kept", "forgetting"):
        assert parts[name] == whole[name], name
    left, right = (next((tmp_path / name).glob("[am]*/*model.safetensors")) for name in ("whole", "parts"))
    left, right = load_file(left), load_file(right)
    assert all(bool((left[name] == right[name]).all()) for name in left)
    assert measured(tmp_path / "whole") == measured(tmp_path / "parts")


def test_what_cannot_stop_a_run_is_refused_in_one_line(settings):
    for changes, said in (
        ({"eval__every": 0}, sentence("forgetting needs evaluations", where="--stop.forgetting")),
        ({"eval__forgetting": False}, sentence("forgetting turned off", where="--stop.forgetting")),
        ({"method": "reward"}, sentence("method writes no text", where="--stop.forgetting", method="reward")),
    ):
        with pytest.raises(InputError, match=said) as caught:
            run(resolve(settings(stop__forgetting=0.1, **changes)))
        assert "\n" not in str(caught.value)


def test_what_is_kept_in_words():
    config = resolve({"stop.forgetting": 0.1, "eval.every": 5})
    budget = Progress(evaluated=20, within=20)
    assert (
        selected_step(config, budget, 20, online=True)["why"] == "the start: no step stayed within --policy.kl_budget"
    )
    best = Progress(best=-0.5, best_step=10, within=15, over=True, evaluated=20)
    assert selected_step(config, best, 20, online=True) == {
        "step": 10, "why": "best held-out reward; forgetting stayed under 0.1 until step 15",
    }  # fmt: skip
    alone = resolve({"policy.kl_budget": 1.0, "eval.every": 5})
    assert selected_step(alone, Progress(), 20, online=True)["step"] == 0
    assert selected_step(alone, Progress(best=-1.0, best_step=5), 20, online=True) == {
        "step": 5,
        "why": "best held-out reward",
    }
    assert selected_step(resolve(), Progress(), 7, online=False) == {"step": 7, "why": "last"}
