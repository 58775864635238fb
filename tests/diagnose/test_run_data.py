"""The data of a finished run, read again: only what it learned from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.config.resolve import resolve
from luthier.core.errors import InputError
from luthier.core.storage.files import sha256
from luthier.diagnose.run_data import require_files, rows_after_limit
from sentences import sentence


def test_settings_that_name_other_files_than_the_lineage_are_refused(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    known = {str(rows): sha256(rows)}
    require_files(known, resolve({"data.path": [str(rows)]}), Path("runs/r"))
    with pytest.raises(InputError, match=sentence("files not of the run", run="runs/r")):
        require_files(known, resolve({}), Path("runs/r"))
    with pytest.raises(InputError, match=sentence("data of the run gone")):
        require_files({"examples": "ab"}, resolve({"data.path": [str(rows)]}), Path("runs/r"))


def test_rows_beyond_the_limit_may_be_as_long_as_the_run_let_them_be(tmp_path, monkeypatch):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": "a", "completion": "b" * size}) + "\n" for size in (1, 1_500_000)))
    settings = {"data.path": [str(rows)], "data.limit": 1}
    (beyond,), left_out = rows_after_limit(resolve({**settings, "data.max_row": 2}))
    assert (len(beyond.fields["completion"]), left_out) == (1_500_000, 0)
    with pytest.raises(InputError, match=sentence("row too large", where="rows.jsonl:2", most=1)):
        rows_after_limit(resolve({**settings, "data.max_row": 1}))
