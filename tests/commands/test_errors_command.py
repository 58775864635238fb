"""`luthier errors` on a run that a tiny model was trained in: the loop train, errors, fix, apply, train, against."""

from __future__ import annotations

import json
import random

import pytest

from luthier.cli import run as cli
from luthier.config.resolve import resolve
from luthier.tune.train import run as train


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    """A run of a few steps; half of its answers contradict each other."""
    folder = tmp_path_factory.mktemp("errors")
    draw = random.Random(0)
    with open(folder / "rows.jsonl", "w") as handle:
        for i in range(60):
            asked = " ".join(draw.choice(["cat", "dog", "tree", "mat"]) for _ in range(3)) + f" {i % 40}"
            handle.write(
                json.dumps({"prompt": f"what is {asked}", "completion": f"it is {draw.choice(['red', 'blue'])}"}) + "\n"
            )
        for answer in ("yes it is", "no it is not"):
            handle.write(json.dumps({"prompt": "is it so", "completion": answer}) + "\n")
    values = {
        "model": str(tiny_folder), "data.path": [str(folder / "rows.jsonl")], "out": str(folder / "run"), "train.batch": 8,
        "train.steps": 4, "train.tokens": 128, "data.holdout": 0.3, "eval.max_new_tokens": 6, "eval.samples": 10, "lora.rank": 2,
        "threads": 1, "device": "cpu", "dtype": "float32", "eval.forgetting": False,
    }  # fmt: skip
    train(resolve(values))
    return folder


def test_records_keep_how_answers_ended_and_how_likely_they_were(trained):
    lines = [json.loads(line) for line in (trained / "run" / "evals" / "after.jsonl").read_text().splitlines()]
    answered = [line for line in lines if "answer" in line]
    assert len(answered) == 10
    for line in answered:
        assert line["ended"] in ("stop", "length") and 0 < len(line["logps"]) <= 6
        assert all(value <= 0 and value == round(value, 4) for value in line["logps"])


def test_the_screen_and_the_object(trained, capsys):
    assert cli(["errors", str(trained / "run")]) == 0
    out = capsys.readouterr().out
    assert "held-out answers" in out and "back to the training rows" in out and "--fix fixes.jsonl" in out
    assert len(out.splitlines()) <= 45
    assert cli(["errors", str(trained / "run"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["answers"] == 10 and result["rows"][0]["name"] == "sound" and result["notes"] == []
    assert (trained / "run" / "errors" / "records.jsonl").is_file()


@pytest.mark.medium
def test_from_errors_to_data_to_a_run_and_back(trained, capsys):
    run, fixes, new = trained / "run", trained / "fixes.jsonl", trained / "rows2.jsonl"
    assert cli(["errors", str(run), "--fix", str(fixes)]) == 0
    assert "where you agree" in capsys.readouterr().out
    lines = [json.loads(line) for line in fixes.read_text().splitlines()]
    clash = [line for line in lines if line["category"] == "conflict"]
    if not clash:  # both rows were held out: the split is by the hash of the prompt, so this cannot change by itself
        pytest.fail("the contradiction was held out: choose another prompt")
    assert clash[0]["action"] == "drop" and clash[0]["line"] == 62
    fixes.write_text("".join(json.dumps(line | {"accept": line is clash[0] or None}) + "\n" for line in lines))
    assert cli(["errors", str(run), "--apply", str(fixes), "--out", str(new), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accepted"] == {"drop": 1}
    assert len(new.read_text().splitlines()) == 61
    arguments = ["train", str(run / "run.yaml"), str(new), "--out", str(trained / "again"), "--json"]
    assert cli(arguments) == 0
    capsys.readouterr()
    assert cli(["errors", str(trained / "again"), "--compare", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["paired"]  # the fixes moved no row to the other side


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fix", "a.jsonl", "--category", "x"], "--category and --fix cannot both be given; give one of them"),
        (["--apply", "a.jsonl"], "--apply and --out go together"),
        (["--out", "a.jsonl"], "--apply and --out go together"),
        (["--category", "repetishun"], "--category: unknown category"),
    ],
)
def test_what_does_not_go_together_is_refused(trained, capsys, arguments, message):
    assert cli(["errors", str(trained / "run"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_help_shows_the_way(capsys):
    assert cli(["errors", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--apply fixes.jsonl --out" in out and "--compare" in out
