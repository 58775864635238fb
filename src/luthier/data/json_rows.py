"""JSON values out of a file that may be larger than memory, each with the line it begins on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.foreign.forms import MAX_DEPTH, too_deep
from luthier.data.size_limits import MAX_ROW_BYTES, WHOLE_FILE_FACTOR, too_long

TOO_MANY_DIGITS = "a whole number of more digits than can be read"
SPACE = re.compile(r"[ \t\r\n\ufeff]*")  # files that were joined have a byte order mark in the middle
# {"data": [rows]}: a list of rows that somebody wrapped in an object, which is read row by row. Other such objects are
# read as a whole (see json_tables).
WRAPPED = re.compile(r'\{\s*"(data|rows|examples|train)"\s*:\s*\[\s*(?=\{)')


class Decoder:
    """JSON text -> a value. NaN, which Python and pandas write for a number that is missing, is null. `twice` is a key that
    stood twice in an object with different values: as JSON readers do, the last is kept."""

    def __init__(self) -> None:
        self.twice: str | None = None
        self.raw_decode = json.JSONDecoder(
            object_pairs_hook=self._object, parse_constant=lambda name: None if name == "NaN" else float(name)
        ).raw_decode

    def decode(self, text: str) -> Any:
        """The one value that `text` holds. Raises json.JSONDecodeError, RecursionError, and ValueError for too many digits."""
        start = len(text) - len(text.lstrip())
        value, end = self.value(text, start)
        if text[end:].strip():
            raise json.JSONDecodeError("Extra data", text, end)
        return value

    def value(self, text: str, start: int) -> tuple[Any, int]:
        """The value that begins at a place of `text`, and where it ends. Raises as `decode`."""
        self.twice = None
        value, end = self.raw_decode(text, start)
        if text.count("[", start, end) + text.count("{", start, end) > MAX_DEPTH and too_deep(value):
            raise RecursionError
        return value, end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            self.twice = next((key for key, item in pairs if item != value[key]), self.twice)
        return value

    def tell(self, where: str) -> None:
        """Warn of a key that stood twice."""
        if self.twice is not None:
            log.warn_once(f"{where}: the key '{self.twice}' occurs twice in one object; the last value is used")


class JsonReader:
    """Reads a JSON array value by value, or JSON values that follow each other (JSON Lines among them).

    Only the value being read and one piece of text are held; a row of more than `longest` characters is refused. `pieces` are
    consecutive parts of the file. Of an object that begins with a list of rows (see WRAPPED), the rows are read; `wrapper` is
    then its key, and `beside` are its other keys, known when all is read.
    """

    def __init__(self, pieces: Iterator[str], file: str, *, unwrap: bool = True, longest: int = MAX_ROW_BYTES) -> None:
        self.pieces, self.file, self.unwrap = pieces, file, unwrap
        self.longest, self.most = (
            longest,
            longest * WHOLE_FILE_FACTOR,
        )  # characters of a row; of the value that is being read
        self.decoder = Decoder()
        self.text, self.position, self.line = "", 0, 1
        self.listed, self.wrapper, self.beside = False, "", list[str]()

    def __iter__(self) -> Iterator[tuple[int, Any, str]]:
        """(line, value, its text). Raises InputError where the JSON is broken or ends too early."""
        start = self._skip()
        if start == "":
            return
        wrapped = WRAPPED.match(self.text, self.position) if start == "{" and self.unwrap else None
        if wrapped:
            self.wrapper = wrapped[1]
            self._move(wrapped.end())
            yield from self._array()
            self._members()
            return
        if start == "[":
            self.listed = True
            self._move(self.position + 1)
            yield from self._array()
            if self._skip():
                raise self._broken("something follows the end of the array")
            return
        while self._skip():
            yield self._value()

    def _array(self) -> Iterator[tuple[int, Any, str]]:
        if self._skip() == "]":
            self._move(self.position + 1)
            return
        while True:
            self._skip()
            self.most = self.longest
            yield self._value()
            self.most = self.longest * WHOLE_FILE_FACTOR
            mark = self._skip()
            if mark == "":
                raise self._broken("the file ends in the middle of the array")
            if mark not in ",]":
                raise self._broken("expected ',' or ']' between rows")
            self._move(self.position + 1)
            if mark == "]":
                return

    def _members(self) -> None:
        """Step over the rest of an object whose list of rows was read."""
        while self._skip() == ",":
            self._move(self.position + 1)
            self._skip()
            key = self._value()[1]
            if not isinstance(key, str) or self._skip() != ":":
                raise self._broken("expected a key and a ':' after the list of rows")
            self.beside.append(key)
            self._move(self.position + 1)
            self._skip()
            self._value()
        if self._skip() != "}":
            raise self._broken("expected ',' or '}' after the list of rows")
        self._move(self.position + 1)
        if self._skip():
            raise self._broken("something follows the end of the object")

    def _value(self) -> tuple[int, Any, str]:
        while True:
            try:
                value, end = self.decoder.value(self.text, self.position)
            except json.JSONDecodeError as error:
                # A value cut by the end of the piece fails there, or in a string that runs to it.
                cut = error.pos >= len(self.text) - 16 or error.msg.startswith("Unterminated string")
                if cut and len(self.text) - self.position > self.most:
                    long = too_long(self.most, "a value", "close it where it ends, cut it")
                    raise InputError(long.what, where=f"{self.file}:{self.line}", fix=long.fix) from None
                if cut and self._more():
                    continue
                self._move(error.pos)
                raise self._broken(reason_of(error)) from None
            except RecursionError:
                raise self._broken("nested too deeply") from None
            except ValueError:
                raise self._broken(TOO_MANY_DIGITS) from None
            self.decoder.tell(f"{self.file}:{self.line}")
            found = (self.line, value, self.text[self.position : end])
            self._move(end)
            return found

    def _skip(self) -> str:
        """Step over white space; the character there, or '' at the end of the file."""
        while True:
            match = SPACE.match(self.text, self.position)
            assert match is not None
            self._move(match.end())
            if self.position < len(self.text):
                return self.text[self.position]
            if not self._more():
                return ""

    def _move(self, to: int) -> None:
        self.line += self.text.count("\n", self.position, to)
        self.position = to

    def _more(self) -> bool:
        """Drop what was read and append the next piece, at least as long as what is held: a value of n
        characters is tried about log2(n) times."""
        rest = self.text[self.position :]
        parts, length = [rest], 0
        while length <= len(rest):
            piece = next(self.pieces, "")
            if not piece:
                break
            parts.append(piece)
            length += len(piece)
        if not length:
            return False
        self.text, self.position = "".join(parts), 0
        return True

    def _broken(self, what: str) -> InputError:
        near = self.text[max(0, self.position - 20) : self.position + 20]
        return InputError(
            f"broken JSON: {what}, near {near!r}",
            where=f"{self.file}:{self.line}",
            fix="fix that place, or write one JSON object per line (.jsonl) and use --data.skip_bad",
        )


def reason_of(error: json.JSONDecodeError) -> str:
    """What the JSON library found wrong, to stand inside a sentence."""
    return f"{error.msg[0].lower()}{error.msg[1:]}".removesuffix(" starting at")


def half_character(text: str) -> bool:
    """Whether JSON text escapes half of a character (a lone surrogate), which no tokenizer can read."""
    if "\\ud" not in text and "\\uD" not in text:
        return False
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
