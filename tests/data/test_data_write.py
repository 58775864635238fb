"""Rows written are whole, and read back."""

import datetime
import errno
import json

import pytest

from luthier.core.errors import RunError
from luthier.core.types.examples import Origin, Pair
from luthier.data.read import Row, read_rows
from luthier.data.write import write_jsonl
from sentences import sentence


def test_rows_keep_their_own_fields_and_examples_get_theirs(tmp_path):
    path = tmp_path / "new" / "out.jsonl"
    odd = {"q": "größer\n\u2028", "extra": [1, None], "day": datetime.date(2024, 5, 1)}
    assert write_jsonl([Row(odd, Origin("in.csv", 3)), Pair(("a", "b"), 0.5), {"reason": "empty"}], path) == 3
    assert [row.fields for row in read_rows([str(path)])] == [
        {**odd, "day": "2024-05-01"},
        {"anchor": "a", "positive": "b", "score": 0.5},
        {"reason": "empty"},
    ]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.jsonl"
    write_jsonl([{"a": 1}], path)

    def rows():
        yield {"a": 2}
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(RunError, match=sentence("disk full")):
        write_jsonl(rows(), path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.jsonl"]
