"""General rows mixed in: their share of every step, their numbers, and resume to the same bits."""

from __future__ import annotations

import json
import random

import pytest

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.core.storage.files import sha256
from luthier.core.types.trees import Node, TokenTree
from luthier.text.loss_weights import RULES
from luthier.training.steps import OfflineSteps, Packing
from luthier.tune import train as app_train
from luthier.tune.train import run
from luthier.tune.verify import resume
from sentences import sentence
from whole_runs import WORDS, bits, run_until, same


def steps(own=20, replay=7, share=0.3, batch=8, total=200):
    trees = [TokenTree((Node((1, 2, i), (False, True, True)),), row=i) for i in range(own + replay)]
    return OfflineSteps(trees, batch, total, RULES["token"], Packing(64), 3, replay, share)


def taken(source):
    return [[row for batch in source.step(i).micro for row in batch.rows] for i in range(len(source))]


def test_every_stretch_has_its_share_and_the_data_its_own_order():
    mixed = steps()
    rows = [mixed.examples_at(i, i + 1)[0] for i in range(200)]
    assert [sorted(step) for step in taken(mixed)] == [sorted(rows[i : i + 8]) for i in range(0, 200, 8)]
    for end in range(1, 201):
        assert abs(sum(row >= 20 for row in rows[:end]) - 0.3 * end) <= 2
    alone = steps(replay=0, share=0.0)
    own = [row for row in rows if row < 20]
    assert own == alone.examples_at(0, len(own))
    replayed = [row for row in rows if row >= 20]
    assert all(sorted(replayed[i : i + 7]) == list(range(20, 27)) for i in range(0, len(replayed) - 7, 7))


def test_the_trees_that_are_used_are_those_of_the_steps():
    few = steps(own=50, replay=40, total=30)
    assert few.used() == sorted({row for step in taken(few) for row in step})
    assert len(few.used()) == 30
    assert steps().used() == list(range(27))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path):
    """Data of a task, and general rows, in three kinds."""
    draw = random.Random(0)
    found = {}
    for part, count in (("data", 40), ("general", 12)):
        words = [" ".join(draw.choice(WORDS) for _ in range(draw.randint(2, 6))) for _ in range(count)]
        asked = [f"{text} {part} {i}?" for i, text in enumerate(words)]
        chats = [{"prompt": q, "completion": q.split()[0]} for q in asked]
        if part == "general":  # another layout than the data's
            chats = [{"instruction": row["prompt"], "input": "", "output": row["completion"]} for row in chats]
        found["chat", part] = write(tmp_path / f"{part}-chat.jsonl", chats)
        pairs = [{"prompt": q, "chosen": q.split()[0], "rejected": f"no {i}"} for i, q in enumerate(asked)]
        found["pairs", part] = write(tmp_path / f"{part}-pairs.jsonl", pairs)
        found["text", part] = write(tmp_path / f"{part}-text.jsonl", [{"text": f"{q} {q}"} for q in asked])
        labelled = [{"prompt": q, "completion": q.split()[0], "label": i % 2 == 0} for i, q in enumerate(asked)]
        found["labels", part] = write(tmp_path / f"{part}-labels.jsonl", labelled)
    return found


@pytest.fixture
def settings(tiny_folder, files, tmp_path):
    def make(kind="chat", **changes):
        base = {
            "model": str(tiny_folder), "data.path": [str(files[kind, "data"])], "out": str(tmp_path / "run"),
            "data.replay": [str(files[kind, "general"])], "data.replay_share": 0.25, "train.batch": 4, "train.tokens": 128,
            "train.checkpoint": 2, "train.keep": 9, "data.holdout": 0.2, "eval.samples": 0, "eval.forgetting": False,
            "lora.rank": 2, "threads": 1, "device": "cpu", "dtype": "float32", "train.lr": 1e-2,
        }  # fmt: skip
        return base | {key.replace("__", "."): value for key, value in changes.items()}

    return make


def rows_of(folder):
    lines = (folder / "losses.jsonl").read_text().splitlines()
    return [[row for row, _, _ in json.loads(line)["rows"]] for line in lines]


METHODS = {"sft": "chat", "cpt": "text", "dpo": "pairs", "orpo": "pairs", "kto": "labels", "reward": "pairs"}


@pytest.mark.medium
@pytest.mark.parametrize("method", METHODS)
def test_general_rows_are_learned_beside_the_data(settings, files, tmp_path, method):
    kind = METHODS[method]
    result = run(resolve(settings(kind, method=method)))
    data = result["data"]
    assert data["replay"] == 12
    assert data["rows"] + data["held_out"] == 40
    taken = rows_of(tmp_path / "run")
    own = [row for step in taken for row in step if row < data["rows"]]
    assert abs(len(own) - data["rows"]) <= 1  # one epoch of the data, whatever is mixed in
    assert set().union(*taken) <= set(range(data["rows"] + 12))
    for step in taken[:-1]:
        assert len(step) == 4 and 0 <= sum(row >= data["rows"] for row in step) <= 2
    every = [row for step in taken for row in step]
    assert sum(row >= data["rows"] for row in every) == pytest.approx(0.25 * len(every), abs=1)
    inputs = json.loads((tmp_path / "run" / "lineage.json").read_text())["inputs"]
    general = files[kind, "general"]
    assert inputs["replay"] == {str(general): sha256(general)}
    assert str(general) not in inputs["data"]


@pytest.mark.medium
def test_stopped_and_gone_on_equals_uninterrupted(settings, tmp_path, monkeypatch):
    changes = {"train__epochs": 2, "lora__dropout": 0.1}
    run(resolve(settings(out=str(tmp_path / "whole"), **changes)))
    config = resolve(settings(out=str(tmp_path / "parts"), **changes))
    for stop_at in (3, 8):
        run_until(stop_at, config)
    run(config)
    assert same(bits(tmp_path / "whole"), bits(tmp_path / "parts"))
    assert (tmp_path / "whole" / "losses.jsonl").read_text() == (tmp_path / "parts" / "losses.jsonl").read_text()
    assert resume(tmp_path / "parts")["same_bits"]


@pytest.mark.medium
def test_a_changed_replay_file_cannot_go_on(settings, files, tmp_path, monkeypatch):
    monkeypatch.setattr(app_train.export, "write", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(resolve(settings()))
    monkeypatch.undo()
    path = files["chat", "general"]
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match=sentence("inputs changed", name="replay")):
        run(resolve(settings()))


@pytest.mark.medium
def test_held_out_rows_are_not_replayed(settings, files, tmp_path, capsys):
    """The data given as its own replay: what is held out of it stays so."""
    data = run(resolve(settings(data__replay=[str(files["chat", "data"])])))["data"]
    assert data["held_out"] > 0
    assert data["replay"] == data["rows"]
    assert f"{data['held_out']} of 40 replay rows are left out: their prompts are held out" in capsys.readouterr().err


def refused(config, said):
    with pytest.raises(InputError, match=said) as caught:
        run(config)
    assert "\n" not in str(caught.value)


@pytest.mark.medium
def test_what_cannot_be_mixed_is_refused_in_one_line(settings, files):
    text = [str(files["text", "general"])]
    refused(resolve(settings(data__replay=text)), sentence("method and rows", wanted="chat"))
    refused(resolve(settings(data__stream=True, train__steps=3)), sentence("stream and replay", where="--data.replay"))
    refused(
        resolve(settings(method="grpo", reward__use=["exact"])),
        sentence(
            "method learns from its own answers", method="grpo", fix="--policy.kl keeps it near the starting model"
        ),
    )
    refused(
        resolve(settings(method="ppo", reward__use=["exact"])),
        sentence("method learns from its own answers", fix="give these files to --policy.pretrain"),
    )
    same = {"data__path": [str(files["chat", "data"])], "data__eval": [str(files["chat", "general"])]}
    refused(resolve(settings(**same)), sentence("every replay row held out"))
