"""The map in docs/architecture.md is true: the files that it names are those that a row goes through."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import luthier
from luthier.cli import run

SOURCE = Path(luthier.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def files_of_the_way():
    """The files of the row's way: a name without a folder is in that of the name before it."""
    (listed,) = re.findall(r"The path of one row .*?:\n\n(.*?)\n\n", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    folder, found = "", []
    for line in listed.splitlines():
        for name in re.split(r"  +(?=\S)", line.strip()):
            if re.fullmatch(r"[a-z_/]+", name):
                folder, _, last = name.rpartition("/") if "/" in name else (folder, "", name)
                if (SOURCE / folder / f"{last}.py").is_file():
                    found.append(f"{folder}/{last}.py")
    return found


@pytest.mark.medium
def test_a_row_goes_through_the_files_that_the_map_names(tiny_folder, tmp_path):
    way = files_of_the_way()
    assert len(set(way)) == len(way) == 30
    rows = tmp_path / "rows.jsonl"
    words = ("cat", "dog", "mat", "sat") * 4
    rows.write_text(
        "".join(json.dumps({"prompt": f"who {i}?", "completion": f"the {w}"}) + "\n" for i, w in enumerate(words))
    )
    entered = set()

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_name != "<module>":
            entered.add(frame.f_code.co_filename)

    arguments = ["train", str(rows), "--model", str(tiny_folder), "--out", str(tmp_path / "run"), "--train.steps", "1"]
    arguments += [
        "--train.batch",
        "2",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--eval.rows",
        "2",
        "--eval.samples",
        "0",
    ]
    sys.setprofile(note)
    try:
        assert run([*arguments, "--no-eval.forgetting", "--threads", "1"]) == 0
    finally:
        sys.setprofile(None)
    assert {str(SOURCE / name) for name in way} <= entered


def test_every_file_that_the_page_names_is_there():
    names = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)[`:]", PAGE.read_text(encoding="utf-8")))
    assert len(names) > 20
    root = PAGE.parents[1]
    assert [name for name in sorted(names) if not ((SOURCE / name).is_file() or (root / name).is_file())] == []
