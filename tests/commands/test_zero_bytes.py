"""Names that no file can have, as a run file can write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.cli import run


def test_a_zero_byte_in_a_name_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "rows\0.jsonl"]) == 2
    assert capsys.readouterr().err.startswith("luthier: the name of a file or folder holds a zero byte")
