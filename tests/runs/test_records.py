"""Files of a run that are whole, but are not what a run writes there: refused where they are read, with file, line and field."""

from __future__ import annotations

import json

import pytest

from luthier.core.errors import InputError
from luthier.runs.folder import RunFolder
from luthier.tune.write_report import write_report
from sentences import sentence

ROW = {
    "row": 0,
    "loss": 1.5,
    "units": 3,
    "prompt": "who?",
    "reference": "cat",
    "answer": "dog",
    "ended": "stop",
    "logps": [-1.0],
}
OWN = {"own": [1], "prompt_ids": [2], "said": "x", "ended": "stop"}
FOUND = {
    "row": 0,
    "prompt": "",
    "reference": "",
    "before": "",
    "after": "",
    "before_findings": [],
    "after_findings": [],
}


def without(record, key):
    return {name: value for name, value in record.items() if name != key}


@pytest.mark.parametrize(
    ("file", "record", "told"),
    [
        ("evals/after.jsonl", ROW | {"row": [0]}, "'row' should be a valid integer, not a list"),
        ("evals/after.jsonl", without(ROW, "units"), "'units' is missing"),
        ("evals/after.jsonl", without(ROW, "reference"), "'reference' is missing"),
        ("evals/after.jsonl", ROW | {"answer": None}, "'answer' should be a valid string, not null"),
        ("evals/after.jsonl", ROW | {"logps": ["a"]}, "'logps.0' should be a valid number"),
        ("evals/before.jsonl", ROW | {"loss": float("inf")}, "'loss' should be"),
        ("evals/before.jsonl", without(OWN, "said"), "'said' is missing"),
        ("evals/before.jsonl", {"text": 0, "loss": 1.0}, "'units' is missing"),
        ("evals/before.jsonl", {"other": 0}, "'row' is missing"),
        ("metrics.jsonl", {"step": "1", "loss": 1.0}, "'step' should be a valid integer"),
        ("samples.jsonl", {"step": 1, "prompt": "a?"}, "'answer' is missing"),
        (
            "samples.jsonl",
            {"rollout": 0, "answer": "a", "reward": 1, "among": "middling"},
            "'among' should be 'best' or 'worst'",
        ),
        ("losses.jsonl", {"step": 1, "rows": [[1, 2.0]]}, "'rows.0' should have at least 3 items"),
        (
            "errors/records.jsonl",
            FOUND | {"after_findings": [{"category": 1, "why": "", "span": None}]},
            "'after_findings.0.category'",
        ),
    ],
)
def test_a_record_that_is_none(tmp_path, file, record, told):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    good = {
        "losses.jsonl": {"step": 1, "rows": []},
        "metrics.jsonl": {"step": 1},
        "samples.jsonl": {"answer": "a"},
        "errors/records.jsonl": FOUND,
    }.get(file, ROW)
    path.write_text(json.dumps(good) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path).records(file)
    assert str(caught.value).startswith(f"{path}:2: ") and told in str(caught.value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], sentence("record of another form", wanted="a valid dictionary")),
        ({"run": 1}, sentence("record of another form", key="'run'", wanted="a valid string")),
        ({"metrics": {"loss": {"before": 1.0}}}, sentence("record lacks", key="metrics.loss.after")),
    ],
)
def test_a_result_that_is_none(tmp_path, value, told):
    (tmp_path / "result.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=told):
        _ = RunFolder(tmp_path).result


@pytest.mark.parametrize(
    "made", [[], {"inputs": []}, {"inputs": {"data": []}}, {"later_starts": [3]}, {"environment": "x"}]
)
def test_a_lineage_that_is_none(tmp_path, made):
    (tmp_path / "lineage.json").write_text(json.dumps(made))
    with pytest.raises(
        InputError, match=sentence("record of another form", where="lineage.json", wanted="a valid dictionary")
    ):
        _ = RunFolder(tmp_path).lineage


def test_a_page_needs_more_of_a_result(tmp_path):
    (tmp_path / "run.yaml").write_text("model: x\n")
    (tmp_path / "result.json").write_text(json.dumps({"run": "x"}))
    with pytest.raises(InputError, match=sentence("record lacks", where="result.json", key="seconds")):
        write_report([tmp_path])
