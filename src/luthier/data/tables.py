"""CSV and TSV -> rows: separators, headers, quotes, and cells that stand for nothing."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.types.examples import Origin
from luthier.data.cell_values import MISSING_VALUES, as_whole, became_floats, note_whole_numbers, structured
from luthier.data.decode import text_lines
from luthier.data.rows import SKIP_HINT, Report, Row, is_usual_column, listed, look_ahead, report_fault
from luthier.data.size_limits import MAX_ROW_BYTES, refuse_wide
from luthier.data.table_records import Record, tab_records
from luthier.data.table_records import records as parsed

SAMPLED_RECORDS = 200  # records that are looked at to tell a header from a record, and what cells stand for nothing
MAX_NAME_WORDS = 6  # a name of a column has no more


def table(
    handle: IO[bytes], file: str, skipped: Report | None, longest: int = MAX_ROW_BYTES, separator: str = ""
) -> Iterator[Row]:
    """One record a row, under a header or without one. Unless `separator` says it, a comma, semicolon or tab, whichever the
    header holds most of, a bar between plain names, or what a line `sep=;` names.

    Raises InputError with file and line for quotes that do not pair, and for records that are too long or too wide.
    """
    lines = enumerate(text_lines(handle, file, longest), start=1)
    number, first = next(((number, line) for number, line in lines if line.strip()), (1, ""))
    if named := re.fullmatch(r'"?sep=(.)"?\s*', first):
        separator = named[1]
        number, first = next(lines, (number + 1, ""))
    if not separator or separator not in first:
        separator = max((separator or ",", *",;\t"), key=first.count)
        if separator not in first and re.fullmatch(r"\w+(\|\w+)+\s*", first):
            separator = "|"
    rest = itertools.chain([(number, first)], lines)
    records = tab_records(rest, file, longest) if separator == "\t" else parsed(rest, file, separator, longest)
    yield from _rows(_narrow(records, file), file, skipped)


def _narrow(records: Iterator[Record], file: str) -> Iterator[Record]:
    for line, cells in records:
        refuse_wide(len(cells), Origin(file, line))
        yield line, cells


@dataclass(frozen=True)
class _Columns:
    """The names of a table's columns; which hold whole numbers that became floats, and in which 'None' is Python's."""

    names: list[str]
    whole: frozenset[str]
    nothing: frozenset[str]

    def fields(self, cells: Sequence[str], file: str) -> dict[str, str | None]:
        """The values of a record. A cell that was written for nothing is null, which is told."""
        out: dict[str, str | None] = {}
        for name, cell in zip(self.names, cells, strict=True):
            if cell in MISSING_VALUES or (cell == "None" and name in self.nothing):
                log.once(f"{file}: cells that hold only {cell!r} are read as missing values")
                out[name] = None
            else:
                out[name] = as_whole(cell) if name in self.whole else cell
        return out


def _rows(records: Iterator[Record], file: str, skipped: Report | None) -> Iterator[Row]:
    """Records -> rows by the names of the header. Empty columns at the right end, as spreadsheets leave them, are cut."""
    seen, records = look_ahead(
        (record for record in records if any(record[1])), SAMPLED_RECORDS, lambda record: sum(map(len, record[1]))
    )
    if not seen:
        next(records, None)  # raises what stopped the look ahead
        return
    first = _trimmed(seen[0][1])
    others = [cells for _, cells in seen[1:]]
    names = _names(first, [cells for cells in others if _trimmed(cells) != first])
    header = names is not None
    if names is None:
        names = _made_up(first, others)
        log.once(f"{file}: no header: its first row is a record; the columns are called {listed(names)}")
    else:
        next(records)
    columns = _columns(names, others, file)
    for line, cells in records:
        cells = cells if len(cells) <= len(names) else [*cells[: len(names)], *_trimmed(cells[len(names) :])]
        if len(cells) != len(names):
            what = f"{len(cells)} cells, but the first row has {len(names)}"
            fix = f"put cells that hold a separator or a line end in quotes, {SKIP_HINT}"
            report_fault(InputError(what, fix=fix), Origin(file, line), skipped)
        elif header and cells == first:
            log.once(
                f"{file}: the header is repeated between the rows, as in concatenated files, and is not read as a row"
            )
        else:
            yield Row(columns.fields(cells, file), Origin(file, line))


def _columns(names: list[str], rows: Sequence[Sequence[str]], file: str) -> _Columns:
    held = {name: [cells[i] for cells in rows if i < len(cells)] for i, name in enumerate(names)}
    whole = [
        name for name, cells in held.items() if became_floats("" if cell in MISSING_VALUES else cell for cell in cells)
    ]
    note_whole_numbers(whole, file)
    nothing = [name for name, cells in held.items() if _prints_none(cells, name, file)]
    return _Columns(names, frozenset(whole), frozenset(nothing))


def _prints_none(column: Sequence[str], name: str, file: str) -> bool:
    """Whether 'None' in a column is Python's: all other cells spell numbers, truth values or lists. Among words it is one,
    which is told."""
    others = [cell for cell in column if cell not in MISSING_VALUES | {"", "None"}]
    if "None" not in column:
        return False
    if all(_literal(cell) for cell in others):
        return True
    log.once(f"{file}: 'None' in column '{name}' is read as that word; leave the cell empty if nothing is meant")
    return False


def _literal(cell: str) -> bool:
    try:
        return not isinstance(structured(cell), str)
    except ValueError:
        return False


def _trimmed(cells: Sequence[str]) -> list[str]:
    """The cells without the empty ones at the right end."""
    filled = max((i for i, cell in enumerate(cells, start=1) if cell.strip()), default=0)
    return list(cells[:filled])


def _names(cells: list[str], others: Sequence[Sequence[str]]) -> list[str] | None:
    """The column names, or None when the first row is a record. Names are short, distinct, neither numbers nor sentences, and
    do not come again as values in their own column, unless they are usual. A first name may be empty, as that of a
    data frame's index is; another empty one is called by its place."""
    names = [cell.strip() or ("index" if i == 0 else f"column{i + 1}") for i, cell in enumerate(cells)]
    if len(set(names)) < len(names) or any(len(name) > 60 or name[-1] in ".?!" or _number(name) for name in names):
        return None
    for i, name in enumerate(names):
        if not is_usual_column(name) and any(i < len(row) and row[i].strip() == name for row in others):
            return None
    if any(map(is_usual_column, names)):
        return names
    sentence = any(re.search(r"[.?!][\s\"')]", name) or len(name.split()) > MAX_NAME_WORDS for name in names)
    return None if sentence else names


def _made_up(cells: list[str], others: Sequence[Sequence[str]]) -> list[str]:
    """Names for a table without any. Two texts and a number are the sentence pairs of STS-B, a question, four choices and a
    letter the questions of MMLU."""
    if len(cells) == 3 and _number(cells[2]):
        return ["sentence1", "sentence2", "score"]
    if len(cells) == 6 and all(row[-1].strip() in ("A", "B", "C", "D") for row in (cells, *others) if len(row) == 6):
        return ["question", "A", "B", "C", "D", "answer"]
    return [f"column{i + 1}" for i in range(len(cells))]


def _number(cell: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d+([.,]\d+)?\s*", cell) is not None
