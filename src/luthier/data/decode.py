"""Bytes of a file, compressed or not, -> UTF-8 text, with the line and byte of whatever is wrong."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.storage.files import refuse_pointer
from luthier.core.storage.opening import regular
from luthier.data.size_limits import MAX_ROW_BYTES, Growth, too_long

CHUNK = 1 << 20
ZSTD_PIECE_BYTES = 1 << 10  # bytes that are handed to zstd at once: each may become 32,768
MAX_LAYERS = 2  # layers of compression that are taken off
WRAPPERS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}
MAGIC = {rb"\x1f\x8b\x08": ".gz", rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)": ".bz2", rb"\x28\xb5\x2f\xfd": ".zst"}
BOM = b"\xef\xbb\xbf"

# How files begin that hold no rows, whatever they are called: what they are, and what to do.
FOREIGN_FORMATS = (
    (
        rb"PK\x03\x04.{26,60}(\[Content_Types\]|_rels/|xl/|mimetypeapplication/vnd\.oasis)",
        "a spreadsheet",
        "save it as CSV",
    ),
    (rb"PK\x03\x04", "a zip archive", "unpack it and give what is in it"),
    (rb"\xd0\xcf\x11\xe0", "an old spreadsheet or office document", "save it as CSV"),
    (rb"\xfd7zXZ\x00", "compressed with xz", "unpack it with `xz -d`"),
    (rb"7z\xbc\xaf|Rar!", "an archive", "unpack it and give what is in it"),
    (rb".{257}ustar", "a tar archive", "unpack it and give the folder"),
    (rb"%PDF-", "a PDF", "save its text as .txt"),
    (rb"SQLite format 3", "a database of SQLite", "export the table as CSV"),
)


@contextmanager
def opened(file: str, wrapper: str = "") -> Iterator[IO[bytes]]:
    """The bytes of `file` after decompression; '-' is standard input. How it is compressed is seen in its first bytes; where
    these say something else than `wrapper`, its ending, that is told.

    Raises InputError when the file cannot be opened, ends or breaks in the middle of a compressed stream, or is no file
    of rows: a Git LFS pointer, an archive, a spreadsheet.
    """
    try:
        with _bytes_of(file) as raw:
            found, handle = _unwrapped(raw, file)
            if file != "-" and found != wrapper:
                name = WRAPPERS[found or wrapper]
                log.once(
                    f"{file}: {f'compressed with {name}' if found else f'not compressed with {name}'} despite its name"
                )
            wrapper = found
            yield io.BufferedReader(_BoundedReader(handle, raw, file), CHUNK) if found else handle
    except EOFError:
        kind = WRAPPERS.get(wrapper, "compressed")
        raise InputError(
            f"the {kind} stream ends too early", where=file, fix="the file is truncated: fetch it again"
        ) from None
    except (OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot read it: {reason}", where=file, fix="check the path, its permissions, its ending"
        ) from None


@contextmanager
def _bytes_of(file: str) -> Iterator[Any]:
    if inherited(file):
        with open(file, "rb", buffering=0) as opened_by_shell:
            yield _Stdin(opened_by_shell)
        return
    if file != "-":
        with open(file, "rb", opener=regular) as handle:
            yield handle
        return
    stdin = _Stdin(cast(io.RawIOBase, sys.stdin.buffer))
    try:
        yield stdin
    finally:
        stdin.detach()  # standard input stays open for others


def inherited(file: str) -> bool:
    """Whether a path means what the shell has opened already, as `<(command)` does."""
    return re.fullmatch(r"/dev/(fd/\d+|stdin)|/proc/self/fd/\d+", file) is not None


class _Stdin(io.BufferedReader):
    """Standard input, of which is known how much was read."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data

    def read1(self, size: int = -1, /) -> bytes:
        data = super().read1(size)
        self.taken += len(data)
        return data

    def tell(self) -> int:
        return self.taken


class _BoundedReader(io.RawIOBase):
    """What comes out of a compressed file, as long as it is in proportion to the file."""

    def __init__(self, inner: IO[bytes], raw: Any, file: str) -> None:
        self.inner, self.raw, self.growth = inner, raw, Growth(file)

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        data = self.inner.read(len(target))
        target[: len(data)] = data
        self.growth.add(len(data), self.raw.tell())
        return len(data)


def _unwrapped(raw: Any, file: str) -> tuple[str, IO[bytes]]:
    """(the ending of how it is compressed, the bytes inside). What was compressed twice, as servers do with files that
    were compressed already, is unpacked twice; more often, it is a trap."""
    outer, layers = "", 0
    while True:
        start = raw.peek(512)
        found = next((ending for magic, ending in MAGIC.items() if re.match(magic, start)), "")
        if not found:
            _refuse_foreign(start, file)
            return outer, raw
        outer, layers = outer or found, layers + 1
        if layers > MAX_LAYERS:
            raise InputError("compressed more than twice", where=file, fix="unpack it and give what is in it")
        if found == ".gz":
            raw = gzip.GzipFile(fileobj=raw, mode="rb")
        else:
            raw = bz2.BZ2File(raw) if found == ".bz2" else io.BufferedReader(_Zstandard(raw), CHUNK)


def _refuse_foreign(start: bytes, file: str) -> None:
    refuse_pointer(start, file)
    for magic, kind, fix in FOREIGN_FORMATS:
        if re.match(magic, start, re.DOTALL):
            raise InputError(f"this is {kind}", where=file, fix=fix)


class _Zstandard(io.RawIOBase):
    """Decompressed zstd. The library's own reader takes a truncated frame for its end; this one raises EOFError."""

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self.raw, self.library = raw, zstandard
        self.frame: Any = None
        self.ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self.ready:
            # What follows a finished frame is the start of the next one.
            rest = self.frame.unused_data if self.frame is not None and self.frame.eof else b""
            data = rest or self.raw.read(ZSTD_PIECE_BYTES)
            if not data:
                if self.frame is not None and not self.frame.eof:
                    raise EOFError
                return 0
            if self.frame is None or self.frame.eof:
                self.frame = self.library.ZstdDecompressor().decompressobj()
            try:
                self.ready = self.frame.decompress(data)
            except self.library.ZstdError as error:
                raise OSError(str(error)) from None
        size = min(len(target), len(self.ready))
        target[:size], self.ready = self.ready[:size], self.ready[size:]
        return size


def text_lines(handle: IO[bytes], file: str, longest: int = MAX_ROW_BYTES) -> Iterator[str]:
    """The lines of a UTF-8 file, endings kept. Raises InputError with line and byte where it is not UTF-8, and for a line of
    more than `longest` bytes."""
    for number, line in raw_lines(handle, longest):
        if len(line) > longest:
            error = too_long(longest, "a line", "break it")
            raise InputError(error.what, where=f"{file}:{number}", fix=error.fix)
        yield decoded(line, file, number)


def raw_lines(handle: IO[bytes], longest: int = MAX_ROW_BYTES) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes of the line). A byte order mark is dropped wherever a line begins with one, as it does in
    the middle of files that were joined. Where only carriage returns end the lines, they come as line ends.

    Of a line of more than `longest` bytes a few more than these come, so that whoever takes it sees that it is too long.
    """
    start = handle.peek(CHUNK)  # type: ignore[attr-defined]
    most = longest + len(BOM) + 1
    lines = _returned(handle, most) if b"\r" in start and b"\n" not in start else _ended(handle, most)
    for number, line in enumerate(lines, start=1):
        yield number, line.removeprefix(BOM)


def _ended(handle: IO[bytes], most: int) -> Iterator[bytes]:
    """Lines, of each the first bytes."""
    while line := handle.readline(most):
        yield line
        while len(line) == most and not line.endswith(b"\n"):
            line = handle.readline(most)  # the rest of it is read over


def _returned(handle: IO[bytes], most: int) -> Iterator[bytes]:
    """Lines that carriage returns end, of each the first bytes."""
    rest, over = b"", False
    while data := handle.read(CHUNK):
        *lines, rest = re.split(rb"\r\n?|\n", rest + data)
        for line in lines:
            if not over:
                yield line[:most] + b"\n"
            over = False
        if len(rest) > most:
            if not over:
                yield rest[:most]
            rest, over = b"", True
    if rest and not over:
        yield rest


def decoded(line: bytes, file: str, number: int) -> str:
    """One line as text. Raises InputError when it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        guess = "UTF-16" if line[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in line[:64] else "WINDOWS-1252"
        raise InputError(
            f"not UTF-8: byte {error.start + 1} of the line is 0x{line[error.start]:02x}",
            where=f"{file}:{number}",
            fix=f"convert the file, perhaps with `iconv -f {guess} -t UTF-8`",
        ) from None


def text_pieces(handle: IO[bytes], file: str) -> Iterator[str]:
    """The text of a UTF-8 file about a megabyte at a time, wherever its lines end. Raises InputError as above."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    line = 1
    while True:
        data = handle.read(CHUNK)
        held = decoder.getstate()[0]  # the start of a character that the last piece cut
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError:
            for number, part in enumerate((held + data).split(b"\n"), start=line):
                decoded(part, file, number)
            raise
        if text:
            yield text
        if not data:
            return
        line += data.count(b"\n")
