"""Text files -> documents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from luthier.core.types.examples import Origin
from luthier.data.decode import text_lines
from luthier.data.rows import Report, Row
from luthier.data.size_limits import MAX_ROW_BYTES

# A document of more characters is cut at an empty line (else at a line's end), so that a file of any size can be
# streamed, and a single file can be split into training and held-out parts.
MAX_DOCUMENT = 100_000


def text(handle: IO[bytes], file: str, skipped: Report | None, longest: int = MAX_ROW_BYTES) -> Iterator[Row]:
    """The whole file is one row {"text": ...}; a long one comes in pieces (see PIECE)."""
    held: list[str] = []
    length, start = 0, 1
    for number, line in enumerate(text_lines(handle, file, longest), start=1):
        held.append(line)
        length += len(line)
        if length >= MAX_DOCUMENT and (not line.strip() or length >= MAX_DOCUMENT * 5 // 4):
            yield from _document(held, file, start)
            held, length, start = [], 0, number + 1
    yield from _document(held, file, start)


def _document(lines: list[str], file: str, start: int) -> Iterator[Row]:
    content = "".join(lines).replace("\r\n", "\n")
    if content.strip():
        yield Row({"text": content}, Origin(file, start))
