"""The records of one task on disk: a line each as they are measured, and a card that says what they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from typing_extensions import TypedDict

from luthier.core import log
from luthier.core.foreign.forms import Whole
from luthier.core.journal import Journal
from luthier.core.storage.files import sha256, write_json
from luthier.core.storage.sums import with_sum
from luthier.evals.benchmarks import files
from luthier.evals.benchmarks.measure import Record


class _Form(TypedDict):
    doc: Whole


class TaskRecords:
    """The records of one task; beside them `.json` says what was measured, and the scores at the end.

    Records of an unfinished measurement of the same thing are kept, those of another are replaced. Raises InputError for
    files there that `luthier eval` did not write.
    """

    def __init__(self, path: Path, about: dict[str, Any], model: str) -> None:
        self.path, self._about, self._model = path, about, model
        self._card, self._journal = path.with_suffix(".json"), Journal(path, files.MEASURE_ANEW)
        self.found: dict[int, Record] = {}
        if self._same(files.card_of(path)):
            self.found = {record["doc"]: cast(Record, record) for record in self._journal.read(_Form)}
        else:
            self._journal.cut()
        write_json(self._card, self._said({}))

    def add(self, record: Record) -> None:
        """Keep one record; it is on its way to the disk when this returns."""
        self.found[record["doc"]] = record
        self._journal.add(record)

    def close(self, scores: dict[str, Any]) -> None:
        """Flush, and write the scores."""
        self._journal.sync()
        write_json(self._card, self._said({**scores, files.RECORDS_SUM: sha256(self.path)}))

    def _said(self, scores: dict[str, Any]) -> dict[str, Any]:
        return with_sum({"model": self._model, **self._about, **scores})

    def _same(self, before: dict[str, Any] | None) -> bool:
        if before is None:
            return False
        files.require_records(self.path, before)
        if not self.path.is_file():
            return False
        now = json.loads(json.dumps(self._about))  # what an older version did not note is taken as the same
        changed = [name for name, value in now.items() if before.get(name, value) != value]
        if changed:
            log.warn(f"{self.path} was measured with other {', '.join(changed)}: it is measured again")
        return not changed
