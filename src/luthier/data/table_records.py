"""Lines of a table -> records; in tables with tabs, whether a quotation mark encloses a cell or is a letter like any other.

Programs that quote (pandas, spreadsheets) do so by a rule, in all cells alike; corpora (GLUE, Common Voice, Tatoeba)
publish cells as they are. So a file is quoted when one of the rules of STYLES, written out again, gives exactly its text.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterator, Sequence

from luthier.core import log
from luthier.core.errors import InputError
from luthier.data.rows import look_ahead
from luthier.data.size_limits import MAX_HELD_BYTES, MAX_ROW_BYTES, too_long

Record = tuple[int, list[str]]

LOOKAHEAD_LINES = 400  # lines that are looked at from the first quotation mark on


def _special(cell: str) -> bool:
    return any(mark in cell for mark in '"\t\n\r')


# Which cells a program quotes: where it must; where it must or there is a comma, as spreadsheets; all texts; all.
STYLES: tuple[Callable[[str], bool], ...] = (
    _special,
    lambda cell: _special(cell) or "," in cell,
    lambda cell: re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", cell) is None,
    lambda cell: True,
)


def records(
    lines: Iterator[tuple[int, str]], file: str, separator: str, longest: int = MAX_ROW_BYTES
) -> Iterator[Record]:
    """(line, cells) of each record, cells with a separator, a quote or a line end in quotes. Raises InputError with file and
    line for quotes that do not pair, and for a record of more than `longest` characters."""
    csv.field_size_limit(1 << 30)
    place = first = held = 0  # the last line that was taken; of a record: its first line, and its characters so far

    def taken() -> Iterator[str]:
        nonlocal place, first, held
        for number, line in lines:
            place, first, held = number, first or number, held + len(line)
            if held > longest:
                error = too_long(longest, "a record", "close its quote")
                raise InputError(error.what, where=f"{file}:{first}", fix=error.fix)
            yield line

    reader = csv.reader(taken(), delimiter=separator, strict=True)
    while True:
        before, first, held = reader.line_num, 0, 0
        try:
            cells = next(reader, None)
        except csv.Error as error:
            fix = "put a cell with a quote in quotes and double the quote inside it"
            start = place - max(reader.line_num - before, 1) + 1
            raise InputError(f"broken quoting: {error}", where=f"{file}:{start}", fix=fix) from None
        if cells is None:
            return
        yield place - (reader.line_num - before) + 1, cells


def tab_records(lines: Iterator[tuple[int, str]], file: str, longest: int = MAX_ROW_BYTES) -> Iterator[Record]:
    """(line, cells) of each record of a table with tabs. Where quotation marks are letters, each line is a record."""
    bare = False  # whether a quotation mark stood in a cell that is not in quotes
    for number, line in lines:
        if not re.search(r'(^|\t)"', line):
            bare = bare or '"' in line
            yield number, _cells(line)
            continue
        look, rest = look_ahead(itertools.chain([(number, line)], lines), LOOKAHEAD_LINES, lambda taken: len(taken[1]))
        whole = len(look) < LOOKAHEAD_LINES and sum(len(text) for _, text in look) <= MAX_HELD_BYTES
        if not bare and _quoted([text for _, text in look], whole=whole):
            yield from records(rest, file, "\t", longest)
        else:
            log.once(
                f"{file}:{number}: quotation marks are read as ordinary characters, because some cells that contain one are not quoted"
            )
            yield from ((place, _cells(text)) for place, text in rest)
        return


def _quoted(lines: Sequence[str], whole: bool) -> bool:
    """Whether one of STYLES explains every record of `lines`, which are `whole` or the first of more."""
    reader = csv.reader(lines, delimiter="\t", strict=True)
    styles = list(STYLES)
    while True:
        start = reader.line_num
        try:
            cells = next(reader, None)
        except csv.Error:
            # The last record may go on beyond these lines, unless they look like records of their own.
            return (
                not whole and reader.line_num == len(lines) and len({len(_cells(line)) for line in lines[start:]}) > 1
            )
        if cells is None:
            return True
        taken = lines[start : reader.line_num]
        if len(taken) > 1 and all(len(_cells(line)) == len(cells) for line in taken):
            return False  # every line of it is a record of its own: a quote would swallow them
        text = "".join(taken).rstrip("\r\n")
        styles = [style for style in styles if cells == [] or text == _written(cells, style)]
        if not styles:
            return False


def _written(cells: Sequence[str], style: Callable[[str], bool]) -> str:
    return "\t".join('"' + cell.replace('"', '""') + '"' if style(cell) else cell for cell in cells)


def _cells(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t")
