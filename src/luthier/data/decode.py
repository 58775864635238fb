"""Bytes of a file, compressed or not, -> UTF-8 text, with the line and byte of whatever is wrong."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from luthier.core.errors import InputError

CHUNK = 1 << 20
WRAPPERS = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}
MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\x28\xb5\x2f\xfd": ".zst"}
BOM = b"\xef\xbb\xbf"


@contextmanager
def opened(file: str, wrapper: str = "") -> Iterator[IO[bytes]]:
    """The bytes of `file` after decompression; '-' is standard input, whose compression is recognised.

    Raises InputError when the file cannot be opened, or ends or breaks in the middle of a compressed stream.
    """
    try:
        with _bytes_of(file) as raw:
            if file == "-":
                wrapper = next((end for magic, end in MAGIC.items() if raw.peek(4).startswith(magic)), "")
            yield _unwrapped(raw, wrapper)
    except EOFError:
        raise InputError(
            f"the {WRAPPERS[wrapper]} stream ends too early", where=file, mend="the file is truncated: fetch it again"
        ) from None
    except (OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot read it: {reason}", where=file, mend="check the path, its rights, its ending"
        ) from None


@contextmanager
def _bytes_of(file: str) -> Iterator[Any]:
    if file != "-":
        with open(file, "rb") as handle:
            yield handle
        return
    stdin = io.BufferedReader(cast(io.RawIOBase, sys.stdin.buffer))
    try:
        yield stdin
    finally:
        stdin.detach()  # standard input stays open for others


def _unwrapped(raw: io.BufferedReader, wrapper: str) -> IO[bytes]:
    if wrapper == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if wrapper == ".bz2":
        return bz2.BZ2File(raw)
    return io.BufferedReader(_Zstandard(raw), CHUNK) if wrapper == ".zst" else raw


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
            data = rest or self.raw.read(CHUNK // 8)
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


def text_lines(handle: IO[bytes], file: str) -> Iterator[str]:
    """The lines of a UTF-8 file, endings kept. Raises InputError with line and byte where it is not UTF-8."""
    for number, line in raw_lines(handle):
        yield decoded(line, file, number)


def raw_lines(handle: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes of the line); a byte order mark at the start is dropped."""
    for number, line in enumerate(handle, start=1):
        yield number, line.removeprefix(BOM) if number == 1 else line


def decoded(line: bytes, file: str, number: int) -> str:
    """One line as text. Raises InputError when it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        guess = "UTF-16" if line[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in line[:64] else "WINDOWS-1252"
        raise InputError(
            f"not UTF-8: byte {error.start + 1} of the line is 0x{line[error.start]:02x}",
            where=f"{file}:{number}",
            mend=f"convert the file, perhaps with `iconv -f {guess} -t UTF-8`",
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
