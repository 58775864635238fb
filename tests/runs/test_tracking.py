"""Trackers: every line of metrics.jsonl arrives once, also over stops; TensorBoard by its own files."""

from __future__ import annotations

import json
import sys
from collections import Counter
from types import ModuleType, SimpleNamespace

import pytest

from luthier.cli import run as cli
from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.runs import tracking
from luthier.tune.train import run
from sentences import sentence
from whole_runs import questions, run_until


@pytest.fixture
def settings(tiny_folder, tmp_path):
    path = questions(tmp_path / "rows.jsonl", 24)

    def make(**changes):
        base = {
            "model": str(tiny_folder), "data.path": [str(path)], "out": str(tmp_path / "run"), "train.batch": 4,
            "train.checkpoint": 3, "data.holdout": 0.25, "eval.samples": 0, "eval.every": 2, "eval.forgetting": False,
            "train.steps": 6, "lora.rank": 2, "threads": 1, "device": "cpu", "dtype": "float32", "train.lr": 1e-2,
        }  # fmt: skip
        return base | {key.replace("__", "."): value for key, value in changes.items()}

    return make


def journal(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Fake(ModuleType):
    """A tracker's client that writes down what it is told."""

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = SimpleNamespace(name=name)
        self.opened, self.logged, self.finished = [], [], 0

    def init(self, **settings):
        self.opened.append(settings)
        print("Welcome!")  # such clients talk on standard output
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture(params=["trackio", "wandb"])
def client(request, monkeypatch):
    fake = Fake(request.param)
    monkeypatch.setitem(sys.modules, request.param, fake)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return fake


@pytest.mark.medium
def test_every_line_arrives_once_over_stops(settings, tmp_path, client, monkeypatch):
    config = resolve(settings(track=client.__name__))
    run_until(2, config)  # the step is saved, its evaluation is not made
    run_until(5, config)
    result = run(config)
    *steps, (last, end) = client.logged
    assert [
        (step, tracking.named(record)) for step, record in ((r["step"], r) for r in journal(tmp_path / "run"))
    ] == steps
    assert [step for step, values in steps if "train/loss" in values] == [1, 2, 3, 4, 5, 6]
    assert [step for step, values in steps if "eval/loss" in values] == [2, 4, 6]
    loss = result["metrics"]["loss"]
    assert (last, end) == (6, {"before/loss": loss["before"], "after/loss": loss["after"]})
    assert client.finished == len(client.opened) == 3
    assert len({str(sorted(s.items(), key=str)) for s in client.opened}) == 1  # the same run each time
    opened = client.opened[0]
    assert opened["resume"] == "allow" and opened["project"] == "luthier" and opened["config"]["train"]["batch"] == 4


@pytest.mark.medium
def test_a_client_that_fails_is_left_alone_and_the_run_goes_on(settings, client, capsys, monkeypatch):
    """A full disk or a lost network is no reason to lose a run."""
    sent = []

    def log(values, step):
        if step == 3:
            raise OSError("no space left on device")
        sent.append(step)

    monkeypatch.setattr(client, "log", log)
    result = run(resolve(settings(track=client.__name__)))
    assert result["steps"] == 6
    assert max(sent) == 2
    assert capsys.readouterr().err.count("failed (no space left on device): nothing more is sent") == 1


@pytest.mark.medium
def test_lines_made_again_after_a_kill_are_not_sent_again(settings, tmp_path, client, monkeypatch):
    """Killed at step 5, a run goes on from the checkpoint of step 3."""
    config = resolve(settings(track=client.__name__))
    original = tracking.Tracker.follow

    def dying(self):
        original(self)
        if client.logged[-1][0] == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tracking.Tracker, "follow", dying)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    run(config)
    steps = [step for step, values in client.logged if "train/loss" in values]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.medium
def test_a_run_that_is_tracked_from_the_middle_on_is_tracked_from_the_start(settings, client, monkeypatch):
    run_until(4, resolve(settings()))
    run(resolve(settings(track=client.__name__)))  # the same run: where figures go changes nothing of it
    assert [step for step, values in client.logged if "train/loss" in values] == [1, 2, 3, 4, 5, 6]
    assert resolve(settings(track="wandb")).fingerprint() == resolve(settings()).fingerprint()


@pytest.mark.medium
def test_nothing_but_the_result_on_standard_output(settings, client, capsys):
    values = settings()
    options = [x for key, value in values.items() if key != "data.path" for x in option(key, value)]
    assert cli(["train", *values["data.path"], *options, "--track", client.__name__, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["steps"] == 6
    assert "Welcome!" in err


def option(key, value):
    return [f"--{key}" if value else f"--no-{key}"] if isinstance(value, bool) else [f"--{key}", str(value)]


def test_a_client_that_does_not_start_is_one_line(settings, client, monkeypatch):
    def broken(**settings):
        raise RuntimeError("no API key configured\nmore")

    monkeypatch.setattr(client, "init", broken)
    with pytest.raises(
        InputError,
        match=sentence("tracker does not start", where="--track", name=client.__name__, reason="no API key configured"),
    ) as caught:
        run(resolve(settings(track=client.__name__)))
    assert "\n" not in str(caught.value)


def test_a_tracker_that_is_not_installed_is_refused_before_anything(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=sentence("tracker not installed", where="--track", name="wandb", package="wandb")
    ):
        run(resolve(settings(track="wandb")))
    assert not (tmp_path / "run").exists()


@pytest.mark.medium
def test_tensorboard_reads_what_was_logged(settings, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = resolve(settings(track="tensorboard", eval__forgetting=True))
    run_until(5, config)
    result = run(config)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"train/loss", "train/lr", "eval/loss", "eval/forgetting", "before/loss", "after/loss"} <= tags
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert losses == [(r["step"], pytest.approx(r["loss"])) for r in journal(tmp_path / "run") if "loss" in r]
    assert max(Counter(step for step, _ in losses).values()) == 1
    (end,) = events.Scalars("after/forgetting")
    assert (end.step, end.value) == (6, pytest.approx(result["forgetting"]["drift"]))


def test_weights_and_biases_itself_without_a_network(settings, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    result = run(resolve(settings(track="wandb")))
    assert result["steps"] == 6
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_trackio_itself(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    config = resolve(settings(track="trackio"))
    run_until(3, config)
    run(config)
    assert list((tmp_path / "trackio").glob("luthier*.db"))


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"lines": 3}', '{"tracker": "x", "id": 1, "lines": 0, "finished": false}']
)
def test_a_damaged_tracking_json_is_one_line_with_the_way_out(tmp_path, damage):
    card = tmp_path / "tracking.json"
    card.write_text(damage)
    with pytest.raises(InputError, match=sentence("tracking unreadable", where="tracking.json")):
        tracking.read_state(card)
    card.unlink()
    assert tracking.read_state(card) == {}
