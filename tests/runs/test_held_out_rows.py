"""A held-out row is one record: joined from what each stage wrote, read by whoever looks at a run's answers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from luthier.core.errors import InputError
from luthier.core.types.findings import Finding
from luthier.runs import held_out_rows
from luthier.runs.folder import RunFolder
from luthier.runs.held_out_rows import ERRORS, AskedAgain, HeldOutRow, MeasuredRow, RowErrors, stage_file
from sentences import sentence

BEFORE = MeasuredRow(
    3, 1.5, 2, {"accuracy": 1.0}, "who?", "me", "you", "stop", (-0.5, -1.0), {"reward": 0.5}, AskedAgain(("I",))
)
AFTER = replace(BEFORE, loss=0.5, answer="me", ended="length", again=None)
FOUND = RowErrors(
    (Finding("too_long", "9 words", (0, 3)),), (), True, False, "wrong answer", "rows.jsonl", 7, {"label": "me"}
)
NOT_ASKED = MeasuredRow(5, 0.25, 4)


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path)
    for stage, row in (("before", BEFORE), ("after", AFTER)):
        folder.write_records(
            stage_file(stage), [row.as_record(), NOT_ASKED.as_record(), {"text": 0, "loss": 1.0, "units": 2}]
        )
    return folder


def test_both_stages_and_what_was_found_are_one_row(folder):
    assert held_out_rows.read(folder) == [HeldOutRow(BEFORE, AFTER)]
    held_out_rows.write_errors(folder, [HeldOutRow(BEFORE, AFTER, FOUND)])
    (row,) = held_out_rows.read(folder)
    assert row == HeldOutRow(BEFORE, AFTER, FOUND)
    assert (row.row, row.prompt, row.reference, row.answers()) == (3, "who?", "me", ("you", "me"))


def test_a_line_says_what_was_measured_and_no_more():
    assert NOT_ASKED.as_record() == {"row": 5, "loss": 0.25, "units": 4}
    assert json.loads(json.dumps(BEFORE.as_record())) == {
        "row": 3, "loss": 1.5, "units": 2, "items": {"accuracy": 1.0}, "prompt": "who?", "reference": "me", "answer": "you",
        "ended": "stop", "logps": [-0.5, -1.0], "rewards": {"reward": 0.5},
        "again": {"samples": ["I"], "paraphrases": [], "answers": []},
    }  # fmt: skip
    assert MeasuredRow.from_record(json.loads(json.dumps(BEFORE.as_record()))) == BEFORE


def test_lines_of_earlier_versions_are_read(folder):
    """Without how answers ended and how likely they were; errors without what counts as bad."""
    old = {"row": 3, "prompt": "who?", "reference": "me", "answer": "me"}
    for stage in ("before", "after"):
        folder.write_records(stage_file(stage), [old])
    found = {
        "row": 3,
        "prompt": "who?",
        "reference": "me",
        "before": "me",
        "after": "me",
        "before_findings": [],
        "after_findings": [],
    }
    folder.write_records(ERRORS, [found])
    (row,) = held_out_rows.read(folder)
    assert row.after == MeasuredRow(3, prompt="who?", reference="me", answer="me")
    assert row.errors == RowErrors((), ())
    assert row.after.as_record() == old


def test_stages_of_other_rows_are_refused(folder):
    folder.write_records(stage_file("after"), [replace(AFTER, row=4).as_record()])
    with pytest.raises(InputError, match=sentence("before and after of other rows", where="evals")):
        held_out_rows.read(folder)
