"""The data of a finished run, read again: only what it learned from."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.app.run_data import _check_files
from luthier.core.config import resolve
from luthier.core.errors import InputError
from luthier.core.files import sha256


def test_settings_that_name_other_files_than_the_lineage_are_refused(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    known = {str(rows): sha256(rows)}
    _check_files(known, resolve({"data.path": [str(rows)]}), Path("runs/r"))
    with pytest.raises(InputError, match="other files than when runs/r was trained"):
        _check_files(known, resolve({}), Path("runs/r"))
    with pytest.raises(InputError, match="gone"):
        _check_files({"examples": "ab"}, resolve({"data.path": [str(rows)]}), Path("runs/r"))
