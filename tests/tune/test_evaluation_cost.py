"""How much is measured beside a short training, and how long it is said to take."""

from __future__ import annotations

import json
import math

import pytest

from luthier.config.resolve import resolve
from luthier.core.types.trees import Node, TokenTree
from luthier.tune.evaluation_cost import EvaluationCost, announce
from luthier.tune.held_out import HeldOut
from luthier.tune.train import run


def test_a_long_training_is_measured_in_full_and_what_was_asked_is_done() -> None:
    long = EvaluationCost(training=3e6, row=100, answer=500)
    assert long.sizes(None, None) == (200, 64)
    short = EvaluationCost(training=10.0, row=100, answer=500)
    assert short.sizes(50, 40) == (50, 40), "asked for"
    assert short.sizes(None, 0) == (32, 0)
    assert EvaluationCost(math.inf, 100, 500).sizes(None, None) == (200, 64), "methods that sample while they train"


def test_measuring_before_and_after_takes_half_of_a_short_training_at_most() -> None:
    # 60,000 to train: 15,000 for each measurement, half of it for the loss of rows, the rest for answers
    assert EvaluationCost(60_000, row=100, answer=400).sizes(None, None) == (75, (15_000 - 7_500) // 400)
    assert EvaluationCost(60_000, row=100, answer=400).sizes(20, None) == (20, (15_000 - 2_000) // 400)
    for training in (1e2, 1e4, 5e4, 1e5, 3e5, 1e6):
        work = EvaluationCost(training, row=100, answer=400)
        rows, samples = work.sizes(None, None)
        spent = 2 * (rows * work.row + samples * work.answer)
        assert spent <= max(training / 2, 2 * (rows * work.row if samples == 16 else 0) + 2 * 16 * work.answer)


def test_the_time_of_each_part_is_said(capsys) -> None:
    trees = [TokenTree((Node((1,) * 100, (False,) + (True,) * 99),))] * 3
    config = resolve({"eval.max_new_tokens": 10, "eval.forgetting": False})
    held_out = HeldOut(trees, (0, 1), ("a", "b"), ((1,) * 20, (1,) * 20), ("", ""))
    announce(EvaluationCost(1000, 100, 50), held_out, config, 0.5)
    # 300 tokens of rows and 2 x (20 + 3 x 10) of answers; 1000 of training
    assert (
        capsys.readouterr().err
        == "about 3:20 to measure 2 answers and the loss, 8:20 to train, 3:20 to measure again\n"
    )


@pytest.fixture
def settings(tiny_folder, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"the cat {i}?", "completion": "yes"}) + "\n" for i in range(120)))
    return {
        "model": str(tiny_folder), "data.path": [str(path)], "data.holdout": 0.5, "out": str(tmp_path / "run"), "train.steps": 1,
        "train.batch": 2, "train.tokens": 512, "lora.rank": 2, "threads": 1, "device": "cpu", "dtype": "float32",
        "eval.max_new_tokens": 2, "eval.forgetting": False,
    }  # fmt: skip


@pytest.mark.medium
def test_a_run_says_what_it_measures_less_of_and_how_long_it_takes(settings, tmp_path, capsys) -> None:
    run(resolve(settings))
    told = capsys.readouterr().err
    assert (
        "the loss of 32 held-out rows instead of 63 (--eval.rows) and 16 answers instead of 63 (--eval.samples)" in told
    )
    assert told.count("to train") == 1 and told.index("to train") < told.index("training 2,048 weights")
    records = [json.loads(line) for line in (tmp_path / "run" / "evals" / "before.jsonl").read_text().splitlines()]
    assert (sum("loss" in record for record in records), sum("answer" in record for record in records)) == (32, 16)
    run(resolve(settings | {"out": str(tmp_path / "asked"), "eval.rows": 50, "eval.samples": 20}))
    assert "instead of" not in capsys.readouterr().err
    records = [json.loads(line) for line in (tmp_path / "asked" / "evals" / "after.jsonl").read_text().splitlines()]
    assert (sum("loss" in record for record in records), sum("answer" in record for record in records)) == (50, 20)
