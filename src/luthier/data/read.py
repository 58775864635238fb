"""Files -> rows that remember where they stand. Nothing is held but the row at hand.

| ending | rows |
|---|---|
| .jsonl .ndjson | one JSON object a line |
| .json | an array of objects, one object, or objects one after the other |
| .csv .tsv | one record a row, under a header |
| .parquet | one record a row |
| .txt .md .rst | the whole file is one row {"text": ...}; a long one comes in pieces (see PIECE) |

Each may be compressed (.gz .bz2 .zst). '-' is standard input, whose format is recognised.
"""

from __future__ import annotations

import csv
import glob
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from luthier.core.errors import InputError, nearest
from luthier.core.types import Origin
from luthier.data.decode import BOM, WRAPPERS, decoded, opened, raw_lines, text_lines, text_pieces
from luthier.data.json_rows import TOO_MANY_DIGITS, JsonReader, half_character, reason_of

# A document of more characters is cut at an empty line (else at a line's end), so that a file of any size can be
# streamed, and a single file can be split into training and held-out parts.
PIECE = 100_000

Report = Callable[[Origin, str], None]
SKIP = "or leave such rows out with --data.skip_bad"


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it stands in its file."""

    fields: dict[str, Any]
    origin: Origin


def read_rows(paths: Sequence[str], *, skipped: Report | None = None) -> Iterator[Row]:
    """The rows of files, folders (all readable files below, sorted by path) and globs, in that order.

    In a folder, text files are read only where no data files are: the others are its read-me files.
    With `skipped`, a row that cannot be read is reported there and left out. Raises InputError, with
    file and line, for a bad row otherwise, and always for a file that cannot be read, an ending that
    is not known, and when there is no row at all.
    """
    empty = True
    for file in files_of(paths):
        for row in _rows(file, skipped):
            empty = False
            yield row
    if empty:
        raise InputError("no rows", where=", ".join(paths), mend="give a file with at least one sound row")


def files_of(paths: Sequence[str]) -> list[str]:
    """The files that `paths` name. Raises InputError for a path with nothing to read."""
    found: list[str] = []
    for path in paths:
        if path == "-" or Path(path).is_file():
            found.append(path)
        elif Path(path).is_dir():
            found += _in_folder(Path(path))
        elif glob.has_magic(path):
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                raise InputError("no file matches", where=path, mend="quote the pattern and check the folder")
            found += [name for match in matches for name in files_of([match])]
        elif Path(path).exists():  # a pipe or a device
            found.append(path)
        else:
            raise _missing(path)
    return found


def _in_folder(folder: Path) -> list[str]:
    seen = [path for path in sorted(folder.rglob("*")) if _endings(path.name)[0] in READERS and path.is_file()]
    known = [path for path in seen if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    data = [path for path in known if READERS[_endings(path.name)[0]] is not _text]
    if not known:
        raise InputError("the folder holds no file to read", where=folder, mend=f"known endings: {' '.join(READERS)}")
    return [str(path) for path in data or known]


def _missing(path: str) -> InputError:
    folder = Path(path).parent
    guess = nearest(Path(path).name, [entry.name for entry in folder.iterdir()]) if folder.is_dir() else None
    mend = f"did you mean '{folder / guess}'?" if guess else "check the path"
    return InputError("no such file or folder", where=path, mend=mend)


def _endings(name: str) -> tuple[str, str]:
    """(format, compression) by the file's name, such as ('.jsonl', '.gz')."""
    path = Path(name.lower())
    if path.suffix in WRAPPERS:
        return Path(path.stem).suffix, path.suffix
    return path.suffix, ""


def _rows(file: str, skipped: Report | None) -> Iterator[Row]:
    ending, wrapper = _endings(file)
    if file != "-" and ending not in READERS:
        about = " (XML is not read)" if ending == ".xml" else ""
        raise InputError(
            f"unknown file ending '{ending}'{about}",
            where=file,
            mend=f"known: {' '.join(READERS)}, each also with {' '.join(WRAPPERS)}",
        )
    with opened(file, wrapper) as handle:
        name = "<stdin>" if file == "-" else file
        reader = READERS[ending] if file != "-" else _recognised(handle)
        yield from reader(handle, name, skipped)


def _recognised(handle: IO[bytes]) -> Reader:
    """The reader for standard input, by how it begins: what starts with a brace is taken for JSON Lines when its
    first line is a whole object; a line of two or more bare column names for CSV or TSV; the rest for text."""
    start = handle.peek(8192).removeprefix(BOM)  # type: ignore[attr-defined]
    if start.startswith(b"PAR1"):
        return _parquet
    first = start.lstrip().split(b"\n", 1)[0].strip()
    if first.startswith((b"[", b"{")):
        return _jsonl if first.startswith(b"{") and first.endswith(b"}") else _json
    for mark in (b",", b"\t"):
        cells = first.split(mark)
        if len(cells) > 1 and all(re.fullmatch(rb"\w+", cell) for cell in cells):
            return _csv if mark == b"," else _tsv
    return _text


def _fault(error: InputError, origin: Origin, skipped: Report | None) -> None:
    """Report the fault of a row, or raise it."""
    if skipped is None:
        raise InputError(error.what, where=origin, mend=error.mend)
    skipped(origin, error.what)


def _object(value: Any, text: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number or a truth value")
        raise InputError(f"a row must be a JSON object, this is {kind}", mend=f'write it as {{"text": ...}}, {SKIP}')
    if half_character(text):
        raise InputError("half of a character: a lone \\ud... escape", mend=f"write the character whole, {SKIP}")
    return value


def _jsonl(handle: IO[bytes], file: str, skipped: Report | None) -> Iterator[Row]:
    for number, raw in raw_lines(handle):
        if not raw.strip():
            continue
        origin = Origin(file, number)
        try:
            line = decoded(raw, file, number)
            fields = _object(_one_value(line), line)
        except InputError as error:
            _fault(error, origin, skipped)
            continue
        yield Row(fields, origin)


def _one_value(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"broken JSON: {reason_of(error)} at column {error.colno}",
            mend=f"a .jsonl file holds one whole JSON object a line; mend the line, {SKIP}",
        ) from None
    except RecursionError:
        raise InputError("broken JSON: nested too deeply", mend=f"mend the line, {SKIP}") from None
    except ValueError:
        raise InputError(f"broken JSON: {TOO_MANY_DIGITS}", mend=f"mend the line, {SKIP}") from None


def _json(handle: IO[bytes], file: str, skipped: Report | None) -> Iterator[Row]:
    for line, value, text in JsonReader(text_pieces(handle, file), file):
        origin = Origin(file, line)
        try:
            fields = _object(value, text)
        except InputError as error:
            _fault(error, origin, skipped)
            continue
        yield Row(fields, origin)


def _tsv(handle: IO[bytes], file: str, skipped: Report | None) -> Iterator[Row]:
    yield from _table(text_lines(handle, file), file, "\t", skipped)


def _csv(handle: IO[bytes], file: str, skipped: Report | None) -> Iterator[Row]:
    """A comma, or a semicolon where the first line holds more of these."""
    lines = text_lines(handle, file)
    first = next(lines, "")
    separator = max(",;\t", key=first.count)
    yield from _table(_chained(first, lines), file, separator, skipped)


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _table(lines: Iterator[str], file: str, separator: str, skipped: Report | None) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            mend = "put a cell with a quote in quotes and double the quote inside it"
            raise InputError(f"broken quoting: {error}", where=f"{file}:{line}", mend=mend) from None
        if cells is None:
            return
        if not any(cells):
            continue
        if not header:
            names = _names(cells)
            header = names or _made_up(cells)
            if names:
                continue
        if len(cells) != len(header):
            what = f"{len(cells)} cells, but the first row has {len(header)}"
            mend = f"put cells that hold a separator or a line end in quotes, {SKIP}"
            _fault(InputError(what, mend=mend), Origin(file, line), skipped)
            continue
        yield Row(dict(zip(header, cells, strict=True)), Origin(file, line))


def _names(cells: list[str]) -> list[str] | None:
    """The column names, or None when the first row is a record: names are short, distinct, neither numbers nor
    sentences. A first name may be empty, as that of a data frame's index is."""
    names = [cells[0].strip() or "index", *(cell.strip() for cell in cells[1:])]
    plain = all(name and len(name) <= 60 and name[-1] not in ".?!" and not _number(name) for name in names)
    return names if plain and len(set(names)) == len(names) else None


def _made_up(cells: list[str]) -> list[str]:
    """Names for a table without any. Two texts and a number are the sentence pairs of STS-B."""
    if len(cells) == 3 and _number(cells[2]):
        return ["sentence1", "sentence2", "score"]
    return [f"column{i + 1}" for i in range(len(cells))]


def _number(cell: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d+([.,]\d+)?\s*", cell) is not None


def _parquet(handle: IO[bytes], file: str, skipped: Report | None) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    # A file on disk is read in place; a compressed one, or a pipe, has to be held to jump about in it.
    source = file if _endings(file) == (".parquet", "") and Path(file).is_file() else pa.BufferReader(handle.read())
    number = 0
    try:
        for batch in parquet.ParquetFile(source).iter_batches(batch_size=256):
            for fields in batch.to_pylist():
                number += 1
                yield Row(fields, Origin(file, number))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        mend = "the file is truncated or no parquet: fetch it again"
        raise InputError(f"cannot read the parquet file: {reason}", where=f"{file}:{number + 1}", mend=mend) from None


def _text(handle: IO[bytes], file: str, skipped: Report | None) -> Iterator[Row]:
    held: list[str] = []
    length, start = 0, 1
    for number, line in enumerate(text_lines(handle, file), start=1):
        held.append(line)
        length += len(line)
        if length >= PIECE and (not line.strip() or length >= PIECE * 5 // 4):
            yield from _document(held, file, start)
            held, length, start = [], 0, number + 1
    yield from _document(held, file, start)


def _document(lines: list[str], file: str, start: int) -> Iterator[Row]:
    text = "".join(lines).replace("\r\n", "\n")
    if text.strip():
        yield Row({"text": text}, Origin(file, start))


Reader = Callable[[IO[bytes], str, Report | None], Iterator[Row]]

READERS: dict[str, Reader] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".txt": _text,
    ".md": _text,
    ".rst": _text,
}
