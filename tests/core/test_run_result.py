"""What a run comes to has one type, from the run to its page, the command and `luthier.train`."""

from __future__ import annotations

from typing import get_type_hints

import pytest

import luthier.api
from luthier.core.errors import InputError
from luthier.core.foreign.forms import require_form
from luthier.core.types.run_result import ON_A_PAGE, RunResult, require_page
from luthier.report.page.run_report import RunReport
from luthier.runs.folder import RunFolder
from luthier.tune import quickstart, train
from sentences import sentence

METRIC = {"before": 1.5, "after": 1.0, "difference": -0.5, "low": -0.6, "high": -0.4, "n": 32, "verdict": "better"}
RESULT = {
    "run": "runs/a", "seconds": 1.5, "steps": 4, "tokens": 100, "peak_memory_bytes": 1, "trainable": 10, "parameters": 20,
    "kept": {"step": 4, "why": "last"}, "metrics": {"loss": METRIC}, "forgetting": None,
}  # fmt: skip


def test_one_type_all_the_way():
    for function in (train.run, quickstart.quickstart):
        assert get_type_hints(function)["return"] is RunResult
    assert get_type_hints(RunFolder.result.fget)["return"] == RunResult | None
    assert get_type_hints(luthier.api.TrainingRun)["result"] is RunResult
    assert get_type_hints(RunReport)["result"] is RunResult


def test_a_result_is_held_to_its_type():
    assert require_form(RunResult, RESULT, where="r", fix="f") is RESULT
    for change, told in [
        ({"steps": "4"}, "'steps' should be a valid integer"),
        ({"metrics": {"loss": {**METRIC, "low": "x"}}}, "'metrics.loss.low' should be a valid number"),
        ({"findings": [{"name": "same_answer"}]}, "'findings.0.text' is missing"),
    ]:
        with pytest.raises(InputError, match=told):
            require_form(RunResult, RESULT | change, where="r", fix="f")


@pytest.mark.parametrize("name", ON_A_PAGE)
def test_a_page_needs_more_than_an_earlier_version_may_have_written(name):
    require_page(RESULT, "r", "f")
    with pytest.raises(InputError, match=sentence("record lacks", where="r", key=name, fix="f")):
        require_page({key: value for key, value in RESULT.items() if key != name}, "r", "f")
