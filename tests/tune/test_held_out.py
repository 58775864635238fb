"""What is kept of a measurement: written and read back it is the same, and records of older versions are read."""

from __future__ import annotations

import json
from dataclasses import replace

from luthier.tune.held_out import HeldOut, Measured, from_records, is_complete, to_records

HELD_OUT = HeldOut([], (3, 7), ("p3", "p7"), ((1,), (2,)), ("r3", "r7"))
MEASURED = Measured(
    losses=((3, 1.5, 2), (5, 0.25, 4)), items=({"accuracy": 1.0}, {}), answers=("a3", "a7"), ended=("stop", "length"),
    logps=((-0.1234, -2.0), (-0.5,)), scored=({"reward": 1.0}, {"reward": 0.0}), general=((-3.0, 2),), general_ids=(((1, 2), (3, 4)),),
)  # fmt: skip


def written(measured):
    return [json.loads(json.dumps(record)) for record in to_records(HELD_OUT, measured)]


def test_a_measurement_is_read_back_as_it_was():
    records = written(MEASURED)
    assert from_records(records) == MEASURED
    by_row = {record["row"]: record for record in records if "row" in record}
    assert by_row[3]["ended"] == "stop" and by_row[3]["logps"] == [-0.1234, -2.0]
    assert "ended" not in by_row[5]  # its loss was measured, it was not asked


def test_records_without_endings_are_read():
    """Runs made before answers were kept with how they ended and how likely they were."""
    old = [
        {key: value for key, value in record.items() if key not in ("ended", "logps")} for record in written(MEASURED)
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
