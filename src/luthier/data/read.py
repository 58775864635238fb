"""Files -> rows that remember where they stand. Nothing is held but the row at hand, and the first ones of a file.

| ending | rows | module |
|---|---|---|
| .jsonl .ndjson .json | objects | json_files, json_objects |
| .csv .tsv | one record a row, under a header | tables, quotes |
| .parquet .arrow .feather | one record a row | arrow |
| .txt .md .rst | documents | documents |

Each may be compressed. What a file is, is seen in its first bytes where its ending says something else or nothing, as on
standard input ('-'); how it was read is then told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO

from luthier.core import log
from luthier.core.errors import InputError
from luthier.data.arrow import arrow, parquet
from luthier.data.decode import BOM, WRAPPERS, opened
from luthier.data.json_files import json_values, jsonl
from luthier.data.paths import KNOWN, REFUSED, ending_of, is_description
from luthier.data.paths import files_of as files_of
from luthier.data.rows import Report as Report
from luthier.data.rows import Row as Row
from luthier.data.size_limits import MAX_ROW_BYTES
from luthier.data.tables import table
from luthier.data.text_files import text

Reader = Callable[[IO[bytes], str, Report | None, int], Iterator[Row]]


def tsv(handle: IO[bytes], file: str, skipped: Report | None, longest: int = MAX_ROW_BYTES) -> Iterator[Row]:
    """A table with tabs."""
    yield from table(handle, file, skipped, longest, "\t")


READERS: dict[str, Reader] = {
    ".json": json_values, ".jsonl": jsonl, ".ndjson": jsonl, ".csv": table, ".tsv": tsv,
    ".parquet": parquet, ".arrow": arrow, ".feather": arrow, ".txt": text, ".md": text, ".rst": text,
}  # fmt: skip
NAMES: dict[Reader, str] = {
    json_values: "JSON",
    jsonl: "JSON Lines",
    table: "CSV",
    tsv: "a table with tabs",
    parquet: "parquet",
    arrow: "Arrow",
    text: "text",
}
assert set(READERS) == set(KNOWN)


def read_rows(
    paths: Sequence[str], *, skipped: Report | None = None, held_out: bool = False, longest: int = MAX_ROW_BYTES
) -> Iterator[Row]:
    """The rows of files, folders (all readable files below, sorted by path) and globs, in that order.

    In a folder, text files are read only where no data files are: the others are its read-me files. Of splits, in a
    folder or in a JSON file, the one to learn from is read, or one that is `held_out`. With `skipped`, a row that cannot
    be read, or is one of more than `longest` bytes, is reported there and left out. Raises InputError, with file and line,
    for a bad row otherwise, and always for a file that cannot be read, an ending that is not known, and when there is no
    row at all.
    """
    files = files_of(paths, held_out)
    total = 0
    for file in files:
        count = 0
        for count, row in enumerate(_rows(file, skipped, held_out, longest), start=1):  # noqa: B007  counts what was read
            yield row
        total += count
        if not count and len(files) > 1:
            log.once(f"{file}: it has no rows")
    if not total:
        raise InputError("no rows", where=", ".join(paths), fix="give a file with at least one valid row")


def _rows(file: str, skipped: Report | None, held_out: bool, longest: int) -> Iterator[Row]:
    ending, wrapper = ending_of(file)
    if ending in REFUSED:
        kind, fix = REFUSED[ending]
        raise InputError(f"this is {kind}", where=file, fix=fix)
    if file != "-" and ending not in READERS and (ending or wrapper):
        fix = f"known: {' '.join(READERS)}, each also with {' '.join(WRAPPERS)}"
        raise InputError(f"unknown file extension '{ending}'", where=file, fix=fix)
    if is_description(file):
        raise InputError("this describes a data set and holds no rows", where=file, fix="give its folder")
    with opened(file, wrapper) as handle:
        name = "<stdin>" if file == "-" else file
        reader = READERS.get(ending) if file != "-" else None
        start = handle.peek(8192).removeprefix(BOM)  # type: ignore[attr-defined]
        seen = _seen(start, reader, name)
        if reader and seen is not reader:
            log.once(f"{name}: read as {NAMES[seen]} despite its name")
        elif not reader and file != "-":
            log.once(f"{name}: read as {NAMES[seen]}, judging by its first bytes")
        reader = partial(json_values, held_out=held_out) if seen is json_values else seen
        yield from reader(handle, name, skipped, longest)


def _seen(start: bytes, named: Reader | None, file: str) -> Reader:
    """The reader of a file by how it begins, `named` by its ending: that one unless it cannot be.

    What starts with a brace is taken for JSON Lines when its first line is a whole object; a line of two or more bare
    column names for CSV or TSV; the rest for text.
    """
    for magic, kind in ((b"PAR1", parquet), (b"ARROW1", arrow), (b"\xff\xff\xff\xff", arrow)):
        if start.startswith(magic):
            return kind
    lines = [line.strip() for line in start.lstrip().split(b"\n")]
    first = lines[0]
    if named in (parquet, arrow) or (named is text and not _objects(lines)):
        return named
    if re.match(rb"<(!doctype|html|\?xml)\b", first, re.IGNORECASE):
        if named is None:
            return text
        raise InputError(
            "this is a web page or XML, as after a failed download", where=file, fix="fetch the file again"
        )
    if first.startswith((b"[", b"{")):
        if named is jsonl:
            return json_values if first in (b"[", b"{") or first.startswith((b"[{", b"[ {")) else jsonl
        if named is json_values:
            return json_values
        if _objects(lines):
            return jsonl
        if named is None:
            return jsonl if first.startswith(b"{") and first.endswith(b"}") else json_values
    if named is not None:
        return named
    for mark, kind in ((b",", table), (b"\t", tsv)):
        cells = first.split(mark)
        if len(cells) > 1 and all(re.fullmatch(rb"\w+", cell) for cell in cells):
            return kind
    return text


def _objects(lines: Sequence[bytes]) -> bool:
    """Whether the first two lines are whole JSON objects, the second one perhaps only as far as it was seen."""
    filled = [line for line in lines if line][:2]
    if not filled or not filled[0].startswith(b"{") or any(not line.startswith(b"{") for line in filled):
        return False
    try:
        return isinstance(json.loads(filled[0]), dict)
    except (ValueError, RecursionError):
        return False
