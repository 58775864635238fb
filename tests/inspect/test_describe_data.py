"""The card of a data set, and the files written from it."""

from __future__ import annotations

import json

import pytest

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.data.clean import CleanSettings
from luthier.inspect.describe_data import describe, rewrite
from sentences import sentence


@pytest.fixture
def config(tmp_path, tiny_folder):
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": f"who is number {i}", "completion": f"number {i}", "source": "s"} for i in range(30)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]))

    def make(**changes):
        base = {"model": str(tiny_folder), "data.path": [str(path)]}
        return resolve(base, {key.replace("__", "."): value for key, value in changes.items()})

    return make


def test_without_a_model_at_hand_lengths_are_characters(config, monkeypatch, capsys):
    def unreachable(name):
        raise InputError("cannot fetch it", where=name)

    monkeypatch.setattr("luthier.inspect.describe_data.sources.resolve", unreachable)
    card = describe(config(model="smollm2-135m")).as_dict()
    assert (card["tokens"]["unit"], card["over_limit"]) == ("characters", None)
    assert "because there is no tokenizer: smollm2-135m: cannot fetch it" in capsys.readouterr().err
    with pytest.raises(InputError, match=sentence("injected cannot fetch")):
        describe(config(model="some/other"))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tokens_are_the_models(config, tiny_tokenizer):
    card = describe(config()).as_dict()
    answers = [len(tiny_tokenizer(f"number {i}")["input_ids"]) for i in range(30)]
    assert (card["tokens"]["unit"], card["answers"]["min"], card["answers"]["max"]) == (
        "tokens",
        min(answers),
        max(answers),
    )
    assert card["tokens"]["max"] > card["answers"]["max"]


def test_a_stream_is_the_same_card(config):
    whole, streamed = describe(config()), describe(config(data__stream=True))
    assert whole.as_dict() == streamed.as_dict()
    assert streamed.loaded is None


def test_new_files_keep_every_field_of_the_rows(config, tmp_path):
    described = describe(config())
    written = rewrite(described.loaded, tmp_path / "new", config(), CleanSettings(near=0), True)
    assert all(row["source"] == "s" for row in read(tmp_path / "new" / "clean.jsonl"))
    assert [row["origin"] for row in read(tmp_path / "new" / "dropped.jsonl")] == [f"{tmp_path / 'rows.jsonl'}:31"]
    assert written["dropped"]["why"] == {"duplicate": 1}
    assert written["train"]["rows"] + written["test"]["rows"] == written["clean"]["rows"] == 30


def test_what_reading_left_out_is_among_the_dropped_rows(config, tmp_path):
    path = tmp_path / "pairs.jsonl"
    pairs = [{"instruction": f"q{i}", "output_1": f"a{i}", "output_2": f"b{i}", "preference": 1} for i in range(9)]
    tie = pairs[0] | {"preference": 1.5}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*pairs, tie]) + "{broken\n" * 1200)
    settings = config(data__path=[str(path)], data__skip_bad=True)
    described = describe(settings)
    assert sum(described.as_dict()["dropped"].values()) == 1201, "more than the first thousand"
    written = rewrite(described.loaded, tmp_path / "new", settings, CleanSettings(near=0), False)
    assert written["dropped"]["why"] == {"bad row": 1200, "no example": 1}
    dropped = read(tmp_path / "new" / "dropped.jsonl")
    assert len(dropped) == written["dropped"]["rows"] == 1201
    assert [row["origin"] for row in dropped] == [f"{path}:{line}" for line in (*range(11, 1211), 10)]
    assert "broken JSON" in dropped[1199]["reason"]
    assert "tie" in dropped[1200]["reason"]


def test_a_split_alone_keeps_duplicates_together(config, tmp_path):
    settings = config(data__holdout=0.4)
    rewrite(describe(settings).loaded, tmp_path, settings, None, True)
    train, test = read(tmp_path / "train.jsonl"), read(tmp_path / "test.jsonl")
    assert len(train) + len(test) == 31
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in test}
    assert not (tmp_path / "clean.jsonl").exists()


def test_no_data(config):
    with pytest.raises(InputError, match=sentence("no data given")):
        describe(config(data__path=[]))
