"""`luthier data --role test`: whether a file is good to test a model by, and what it can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luthier.config.run import RunConfig
from luthier.core.errors import InputError
from luthier.data import load as data_load
from luthier.data.columns_read import ColumnsRead
from luthier.data.evaluation_set import DoubtfulRow, TestRows, examine, faults
from luthier.data.warnings import warnings_of
from luthier.evals.stats.significance import difference_shown, rows_needed

HOPED_DIFFERENCES = (0.05, 0.1)  # differences in the share of right answers
CHANGED_SHARES = (0.1, 0.2, 0.4)  # shares of the rows that one model gets right and the other does not
USUAL_CHANGED_SHARE = 0.2  # of these, the one that the verdict goes by
MIN_SHOWN_DIFFERENCE = 0.2  # a file that does not show a difference of 20 points shows hardly anything


@dataclass(frozen=True)
class TestFile:
    """What was found, how the rows were read, and what of it deserves a word."""

    found: TestRows
    reading: ColumnsRead
    layout: str
    warnings: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether nothing is to be corrected."""
        return not self.warnings

    @property
    def doubts(self) -> Sequence[DoubtfulRow]:
        return self.found.doubts

    def as_dict(self) -> dict[str, Any]:
        """The keys of `luthier data --role test --json`."""
        shown = {str(changed): difference_shown(self.found.rows, changed) for changed in CHANGED_SHARES}
        needed = {
            f"{100 * hoped:g}": {str(changed): rows_needed(hoped, changed) for changed in CHANGED_SHARES}
            for hoped in HOPED_DIFFERENCES
        }
        return {
            "role": "test", "good": self.good, "layout": self.layout, **self.found.as_dict(),
            "shown": shown, "needed": needed, "warnings": list(self.warnings), **self.reading.as_dict(),
        }  # fmt: skip


def describe_test(config: RunConfig, training: Sequence[str]) -> TestFile:
    """Look at the rows of `data.path` as rows to test by, beside those of the files `training`. Raises InputError for settings
    that are about rows to learn from."""
    data = config.data
    if not data.path:
        raise InputError("no data given", fix="luthier data --role test PATH")
    if data.eval:
        raise InputError(
            "PATH itself is the test",
            where="--data.eval",
            fix="leave it out; --training names the training rows",
        )
    if data.stream:
        raise InputError("a test is read as a whole", where="--data.stream", fix="leave it out")
    loaded = data_load.load(data.path, data, held_out=True)
    learned = data_load.load(training, data.model_copy(update={"limit": None})).examples if training else None
    found = examine(loaded.examples, learned)
    warnings = (*faults(found), *_size(found.rows), *warnings_of(loaded.examples, loaded.reading))
    if left := loaded.skipped.count:
        warnings += (f"rows that cannot be read: {left}",)
    return TestFile(found, loaded.reading, loaded.layout.name, warnings)


def _size(rows: int) -> Sequence[str]:
    least = difference_shown(rows, USUAL_CHANGED_SHARE)
    if least is None or least > MIN_SHOWN_DIFFERENCE:
        need = rows_needed(0.1, USUAL_CHANGED_SHARE)
        return (
            f"{rows} rows do not show a difference of {100 * MIN_SHOWN_DIFFERENCE:.0f} points in right answers; {need} show 10 points",
        )
    return ()
