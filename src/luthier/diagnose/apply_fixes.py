"""Accepted fixes -> a new version of the data set, and a record of where it came from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier import __version__
from luthier.core.errors import InputError, unknown
from luthier.core.storage.files import sha256, together, write_json
from luthier.core.types.examples import Example
from luthier.data.example_text import identity
from luthier.data.read import Row, read_rows
from luthier.data.replace_answer import with_answer
from luthier.data.write import write_jsonl
from luthier.diagnose.fixes import ACTIONS, check_free, check_new
from luthier.diagnose.run_data import DataFiles, read_answers, read_files, rows_after_limit


@dataclass(frozen=True)
class AcceptedFix:
    """What a person accepted: the new answer of a row, or None to drop it."""

    example: Example
    action: str
    answer: str | None


def apply(run: Path, fixes_path: Path, to: Path) -> dict[str, Any]:
    """Write the run's data set with every accepted fix to `to`, rows in order and their other fields as they were, and
    where it came from beside it (NAME.lineage.json, which is also what is returned).

    All rows of the data are written, held-out ones too where the run held some back (the same prompts are held back
    again), and those after `data.limit`. Raises InputError for an existing file, a value that JSON cannot hold, a line that
    is no fix, an unknown action, a row that is not the one the fix was made for, two accepted fixes of a row, and an
    accepted text that nobody wrote.
    """
    lineage = to.with_suffix(".lineage.json")
    check_new(to)
    check_free(lineage)
    answers = read_answers(run)
    files = read_files(answers)
    accepted, counts = _accepted_fixes(fixes_path, files)
    if not accepted:
        raise InputError(
            "no fix is accepted", where=fixes_path, fix='write "accept": true into the lines that you want'
        )
    loaded, columns = files.loaded, answers.config.data.mapping
    rows: list[Row] = []
    for row, example in zip(loaded.rows, loaded.examples, strict=True):
        fix = accepted.get(id(example))
        if fix is None:
            rows.append(row)
        elif fix.answer is not None:
            rows.append(with_answer(row, example, fix.answer, loaded.layout, columns))
    after_limit, left_out = rows_after_limit(answers.config)
    rows += after_limit
    if not rows:
        raise InputError("no row would be left", where=fixes_path, fix="accept fewer drops")
    for row in rows:
        _check_json(row)
    paths = list(dict.fromkeys(row.origin.file for row in (*loaded.rows, *after_limit)))
    with together(to, lineage):
        write_jsonl(rows, to)
        record = {
            "file": str(to), "sha256": sha256(to), "rows": len(rows),
            "from": {path: sha256(Path(path)) for path in paths}, "from_rows": len(loaded.rows) + len(after_limit),
            "skipped": loaded.skipped.count + left_out,
            "run": str(run), "fixes": {"file": str(fixes_path), "sha256": sha256(fixes_path)}, **counts, "luthier": __version__,
        }  # fmt: skip
        write_json(lineage, record)
    return record | {"lineage": str(lineage)}


def _accepted_fixes(path: Path, files: DataFiles) -> tuple[dict[int, AcceptedFix], dict[str, Any]]:
    """The accepted fixes by the id of their example, and how many of each action were, and how many were not."""
    accepted: dict[int, AcceptedFix] = {}
    not_accepted: Counter[str] = Counter()
    for row in read_rows([str(path)]):
        fields, where = row.fields, str(row.origin)
        missing = next((key for key in ("row", "sha", "action", "after", "accept") if key not in fields), None)
        if missing:
            raise InputError(
                f"this is not a fix: it has no '{missing}'", where=where, fix="give a file that --fix wrote"
            )
        if fields["action"] not in ACTIONS:
            raise unknown("action", str(fields["action"]), ACTIONS, where=where)
        if fields["accept"] not in (True, False, None):
            raise InputError(f"accept is {fields['accept']!r}", where=where, fix="write true, false or null")
        if not fields["accept"]:
            not_accepted["rejected" if fields["accept"] is False else "undecided"] += 1
            continue
        example = _example(files.train, fields, where)
        if id(example) in accepted:
            raise InputError("a second accepted fix of the same row", where=where, fix="accept one of them")
        accepted[id(example)] = AcceptedFix(example, fields["action"], _text(fields, where))
    actions = Counter(fix.action for fix in accepted.values())
    return accepted, {
        "accepted": dict(actions),
        "rejected": not_accepted["rejected"],
        "undecided": not_accepted["undecided"],
    }


def _check_json(row: Row) -> None:
    """Refuse a value that could only be written as something else, such as bytes or a time of a parquet file."""
    for name, value in row.fields.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise InputError(
                f"field '{name}' holds a value that JSON cannot represent: {error}", where=row.origin,
                fix="write the column as text or numbers into a file, and train on that",
            ) from None  # fmt: skip


def _example(rows: Sequence[Example], fields: dict[str, Any], where: str) -> Example:
    number = fields["row"]
    if isinstance(number, int) and 0 <= number < len(rows) and identity(rows[number]).hex() == fields["sha"]:
        return rows[number]
    raise InputError("the row is not the one that this fix was made for", where=where, fix="run --fix again")


def _text(fields: dict[str, Any], where: str) -> str | None:
    """The new answer; None for a row that is dropped."""
    if fields["action"] == "drop":
        return None
    if not isinstance(fields["after"], str) or not fields["after"].strip():
        raise InputError(
            f"an accepted {fields['action']} without a text", where=where, fix='write the answer into "after"'
        )
    return fields["after"]
