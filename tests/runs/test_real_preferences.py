"""Every method of preferences on every real file that fits it: a tiny model takes two steps and is measured."""

from __future__ import annotations

import math

import pytest

from luthier.config.resolve import resolve
from luthier.tune.train import run

pytestmark = pytest.mark.medium

PAIRS = [
    "rasbt_instruct/instruction-data-with-preference.json",
    "alpaca_eval_pref/alpaca_eval_pref_test.jsonl.gz",
    "hh_rlhf_harmless/test.jsonl.gz",
    "llamafactory_demo/dpo_en_demo.json.gz",
]
UNPAIRED = "llamafactory_demo/kto_en_demo.json.gz"
RUNS = [
    *((method, file, {}) for method in ("reward", "dpo", "orpo", "simpo", "kto", "response") for file in PAIRS),
    ("kto", UNPAIRED, {}),
    ("reward", PAIRS[1], {"ranking.loss": "plackett-luce"}),
]


@pytest.mark.parametrize(("method", "file", "more"), RUNS, ids=lambda value: str(value).rpartition("/")[2])
def test_two_steps_on_real_rows(shared, tiny_folder, tmp_path, method, file, more):
    settings = {
        "model": str(tiny_folder), "data.path": [str(shared / file)], "out": str(tmp_path / "run"), "method": method,
        "data.limit": 24, "data.holdout": 0.2, "text.max_length": 512, "train.steps": 2, "train.batch": 2,
        "eval.rows": 4, "eval.samples": 0, "eval.forgetting": False, "threads": 1, "device": "cpu", **more,
    }  # fmt: skip
    result = run(resolve(settings))
    assert result["steps"] == 2
    assert math.isfinite(result["loss"]["last"]) and math.isfinite(result["loss"]["eval"])
    assert result["data"]["rows"] + result["data"]["held_out"] + sum(result["data"]["dropped"].values()) > 0
    if method != "kto":
        assert "accuracy" in result["metrics"]
