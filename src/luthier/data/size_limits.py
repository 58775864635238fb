"""How much a row and a file may hold, so that none takes all memory or never ends. What holds more is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from luthier.config.data import DataConfig
from luthier.core.errors import InputError
from luthier.core.log import size
from luthier.core.storage.opening import regular

MAX_ROW_BYTES = DataConfig().max_row * 1_000_000  # bytes of a row, characters of a JSON value
WHOLE_FILE_FACTOR = 64  # so many times as much may be one JSON object that holds all rows
MAX_COLUMNS = 10_000  # columns of a row
MAX_HELD_BYTES = 64_000_000  # of rows that are looked at before the first is given on
MAX_GROWTH = 500  # times that a file may become larger when it is read
ALLOWED_BYTES = 32_000_000  # bytes that it may become in any case
MAX_LOADED_BYTES = 1 << 30  # bytes of a parquet or Arrow file that is not read in place


def too_long(longest: int, what: str = "a row", fix: str = "") -> InputError:
    """The error for what is longer than `--data.max_row` lets it be."""
    return InputError(
        f"{what} of more than {size(longest)}", fix=f"{fix or 'cut it'}, or raise --data.max_row, which is in MB"
    )


def refuse_wide(columns: int, where: object = None) -> None:
    """Raise InputError for a row of too many columns."""
    if columns > MAX_COLUMNS:
        what, fix = (
            f"{columns:,} columns, of which at most {MAX_COLUMNS:,} are read",
            "leave out the columns that are not needed",
        )
        raise InputError(what, where=where, fix=fix)


def weight(value: Any) -> int:
    """About how many characters a value has: those of its texts, and some for each of its other parts."""
    total, left = 0, [value]
    while left:
        part = left.pop()
        if isinstance(part, (str, bytes)):
            total += len(part)
        elif isinstance(part, dict):
            left += [*part.keys(), *part.values()]
        elif isinstance(part, (list, tuple)):
            left += part
        else:
            total += 8
    return total


def description(path: Path) -> Any:
    """The JSON of a file that describes data. Raises OSError, ValueError, also for a file that is too large for one, and
    RecursionError."""
    with open(path, "rb", opener=regular) as handle:
        text = handle.read(MAX_HELD_BYTES + 1)
    if len(text) > MAX_HELD_BYTES:
        raise ValueError("too large for a description")
    return json.loads(text)


class Growth:
    """What came out of a file so far, held against what went in: a small file that becomes a huge one is a trap."""

    def __init__(self, file: str) -> None:
        self.file, self.out = file, 0

    def add(self, out: int, taken: int) -> None:
        """So many bytes more came out of `taken` bytes. Raises InputError when that is out of all proportion."""
        self.out += out
        if self.out > ALLOWED_BYTES and self.out > MAX_GROWTH * max(taken, 1):
            raise InputError(
                f"{size(taken)} of it become more than {size(self.out)}: more than {MAX_GROWTH} times as much", where=self.file,
                fix="if that is meant, unpack it, or write it as JSON Lines, and give that",
            )  # fmt: skip
