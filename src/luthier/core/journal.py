"""A file that lines of JSON are added to as they come: the same command goes on with it after a kill at any moment.

    {"prompt": 0, "answers": ["yes"], "sum": "41c9a6..."}    a line, with the sum of all else in it where the journal has sums
    {"prompt": 1, "answe                                     what a kill or a power cut left: cut off before anything is added

A line is with the system when `add` returns, so the death of the process loses none; it is on the disk after `sync`. Lines that
were changed since are refused with their place. Where two processes must not add at once, they hold the file (`opening.holding`);
of ranks that work together the first one writes, and the others know that it does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from typing_extensions import TypedDict

from luthier.core.errors import InputError
from luthier.core.foreign.forms import read_line, require_form
from luthier.core.ranks import here
from luthier.core.storage.files import fsync_folder
from luthier.core.storage.opening import appending, regular, telling
from luthier.core.storage.sums import checked, with_sum

T = TypeVar("T")
BLOCK = 1 << 20


class Mark(TypedDict):
    """How long a journal was, in bytes, and the sha256 of all that was in it."""

    bytes: int
    sha256: str


class Journal:
    """The journal at `path`. `fix` is what is asked for where it cannot be trusted; with `sums` each line has its sum.

    Every method that writes raises InputError for a link, for what is no regular file and where nothing can be written; DiskFull.
    """

    def __init__(self, path: Path, fix: str, *, sums: bool = True) -> None:
        self.path, self._fix, self._sums = path, fix, sums
        self._running: Any = None  # the sha256 of all that is in it, from the first mark on

    def add(self, *records: Mapping[str, Any]) -> None:
        """Add a line for each record."""
        if not here().first:
            return
        lines = (json.dumps(with_sum(one) if self._sums else one, ensure_ascii=False) for one in records)
        content = b"".join(
            line.encode(errors="backslashreplace") + b"\n" for line in lines
        )  # half surrogates: JSON escapes
        with telling(self.path):
            made = not self.path.exists()
            with appending(self.path) as handle:
                handle.write(content)
            if made:
                fsync_folder(self.path.parent)
        if self._running:
            self._running.update(content)

    def sync(self) -> None:
        """Flush it to the disk."""
        if not here().first:
            return
        with telling(self.path), appending(self.path) as handle:
            os.fsync(handle.fileno())

    def read(self, form: type[T], *, first: type[Any] | None = None, fragments: bool = False) -> list[T]:
        """The record of every line, each of the form, the first one of a form of its own where `first` names it; nothing where
        there is no file. The end is made whole (`end`).

        Raises InputError for a line that was changed, or is none of the form. With `fragments`, lines that begin as one and are
        no JSON are passed over: earlier versions left them.
        """
        if not self.path.is_file():
            return []
        found: list[T] = []
        with open(self.path, "rb", opener=regular) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip() and not ((fragments or not line.endswith(b"\n")) and _torn(line)):
                    found.append(self._record(form if found else first or form, line, f"{self.path}:{number}"))
        self.end()
        return found

    def end(self) -> None:
        """Make the end whole: a last line without its end gets it where it is whole, as some editors leave it, and is cut off
        where it is torn. Raises InputError where it is neither."""
        if not here().first:
            return
        with telling(self.path), appending(self.path) as handle:
            handle.seek(0)
            size = lines = 0
            line = b"\n"
            for line in handle:
                size, lines = size + len(line), lines + 1
            if line.endswith(b"\n"):
                return
            if _torn(line):
                handle.truncate(size - len(line))
            else:
                self._record(dict, line, f"{self.path}:{lines}")
                handle.write(b"\n")

    def mark(self) -> Mark | None:
        """What is in it now, flushed to the disk; None where there is no file. `cut` comes back to it."""
        if not self.path.is_file() or not here().first:
            return None
        with telling(self.path), appending(self.path) as handle:
            os.fsync(handle.fileno())
            if self._running is None:
                handle.seek(0)
                self._running = _digest(handle)
            return {"bytes": handle.seek(0, os.SEEK_END), "sha256": self._running.hexdigest()}

    def require(self, mark: Mark | int) -> None:
        """Raise InputError unless it begins as it was when the mark was made; earlier versions noted the length alone."""
        size, digest = (mark, None) if isinstance(mark, int) else (mark["bytes"], mark["sha256"])
        if not self.path.is_file():
            raise InputError("it is gone", where=self.path, fix=self._fix)
        with open(self.path, "rb", opener=regular) as handle:
            found = _digest(handle, size) if self.path.stat().st_size >= size else None
        if found is None or digest not in (None, found.hexdigest()):
            raise InputError("it has changed since it was written", where=self.path, fix=self._fix)

    def cut(self, mark: Mark | int = 0) -> None:
        """Cut it back to its mark, or empty it."""
        self._running = None
        self._cut(mark if isinstance(mark, int) else mark["bytes"])

    def _cut(self, size: int) -> None:
        if not here().first:
            return
        with telling(self.path), appending(self.path) as handle:
            handle.truncate(size)

    def _record(self, form: type[T], line: bytes, where: str) -> T:
        found = read_line(line, where=where, fix=self._fix)
        if isinstance(found, dict):
            found = checked(found, where, self._fix)
        return require_form(form, cast(Any, found), where=where, fix=self._fix)


def _torn(line: bytes) -> bool:
    """Whether this is the beginning of a record alone, or what a file holds that grew before its content came to the disk."""
    if not line.startswith(b"{"):
        return not line.strip(b"\0")
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _digest(handle: IO[bytes], size: int | None = None) -> Any:
    """The running sha256 of a file, or of its first `size` bytes."""
    out, left = hashlib.sha256(), size
    while block := handle.read(BLOCK if left is None else min(BLOCK, left)):
        out.update(block)
        left = None if left is None else left - len(block)
    return out
