"""What is kept of a measurement: written and read back it is the same, and records of older versions are read."""

from __future__ import annotations

import json
from dataclasses import replace

from luthier.evals.forgetting import OwnAnswer
from luthier.runs.held_out_rows import MeasuredRow
from luthier.tune.held_out import HeldOut, Measured, from_records, is_complete, measured_rows, to_records
from luthier.tune.retention import MeasuredRetention

HELD_OUT = HeldOut([], (3, 7), ("p3", "p7"), ((1,), (2,)), ("r3", "r7"))
RETENTION = MeasuredRetention(
    (((1, 2), (3, 4)),), ((-3.0, 2),), (OwnAnswer((1, 2), (5,), "Hello", "stop"),), ((0, 7.5, 3),)
)
MEASURED = Measured(
    losses=((3, 1.5, 2), (5, 0.25, 4)), items=({"accuracy": 1.0}, {}), answers=("a3", "a7"), ended=("stop", "length"),
    logps=((-0.1234, -2.0), (-0.5,)), scored=({"reward": 1.0}, {"reward": 0.0}), retention=RETENTION,
)  # fmt: skip


def written(measured):
    return [json.loads(json.dumps(record)) for record in to_records(HELD_OUT, measured)]


def test_a_measurement_is_read_back_as_it_was():
    records = written(MEASURED)
    assert from_records(records) == MEASURED
    by_row = {record["row"]: record for record in records if "row" in record}
    assert by_row[3]["ended"] == "stop" and by_row[3]["logps"] == [-0.1234, -2.0]
    assert "ended" not in by_row[5]  # its loss was measured, it was not asked


def test_each_held_out_row_is_one_record_whoever_asks():
    """What compare reads of a model is what a run writes of it."""
    rows = measured_rows(HELD_OUT, MEASURED)
    assert list(rows) == [3, 5, 7]
    assert rows[5] == MeasuredRow(5, 0.25, 4)
    assert rows[7] == MeasuredRow(
        7, prompt="p7", reference="r7", answer="a7", ended="length", logps=(-0.5,), rewards={"reward": 0.0}
    )
    assert [row.as_record() for row in rows.values()] == written(MEASURED)[:3]


def test_general_answers_and_texts_are_no_held_out_rows():
    general = written(MEASURED)[3:]
    assert all("row" not in record for record in general)
    assert MeasuredRetention.from_records(general) == RETENTION


def test_records_without_endings_are_read():
    """Runs made before answers were kept with how they ended and how likely they were."""
    old = [
        {key: value for key, value in record.items() if "row" not in record or key not in ("ended", "logps")}
        for record in written(MEASURED)
    ]
    assert from_records(old) == replace(MEASURED, ended=(), logps=())
    assert written(from_records(old)) == old


def test_a_measurement_of_other_rows_does_not_fit():
    """Its lines are whole, and one is not of this run: said when it is read, not when before and after are compared."""
    held_out = HeldOut([None, None], (3, 7), ("p3", "p7"), ((1,), (2,)), ("r3", "r7"))
    assert is_complete(held_out, MEASURED)
    assert is_complete(held_out, replace(MEASURED, losses=(), items=()))
    assert not is_complete(held_out, replace(MEASURED, losses=MEASURED.losses[:1]))
    assert not is_complete(held_out, replace(MEASURED, answers=("a3",)))
    assert not is_complete(held_out, replace(MEASURED, ended=("stop",)))
