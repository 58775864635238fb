"""JSON values out of a file that may be larger than memory, each with the line it begins on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from luthier.core.errors import InputError

TOO_MANY_DIGITS = "a whole number of more digits than can be read"
SPACE = re.compile(r"[ \t\r\n]*")
# {"data": [rows]}: a list of rows that somebody wrapped in an object.
WRAPPED = re.compile(r'\{\s*"(data|rows|examples|train)"\s*:\s*\[')


class JsonReader:
    """Reads a JSON array value by value, or JSON values that follow each other (JSON Lines among them).

    Only the value being read and one piece of text are held. `pieces` are consecutive parts of the file.
    """

    def __init__(self, pieces: Iterator[str], file: str) -> None:
        self.pieces, self.file = pieces, file
        self.decode = json.JSONDecoder().raw_decode
        self.text, self.position, self.line = "", 0, 1

    def __iter__(self) -> Iterator[tuple[int, Any, str]]:
        """(line, value, its text). Raises InputError where the JSON is broken or ends too early."""
        start = self._skip()
        if start == "":
            return
        wrapped = WRAPPED.match(self.text, self.position) if start == "{" else None
        if wrapped:
            self._move(wrapped.end())
            yield from self._array()
            return
        if start == "[":
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
            yield self._value()
            mark = self._skip()
            if mark == "":
                raise self._broken("the file ends in the middle of the array")
            if mark not in ",]":
                raise self._broken("expected ',' or ']' between rows")
            self._move(self.position + 1)
            if mark == "]":
                return

    def _value(self) -> tuple[int, Any, str]:
        while True:
            try:
                value, end = self.decode(self.text, self.position)
            except json.JSONDecodeError as error:
                # A value cut by the end of the piece fails there, or in a string that runs to it.
                cut = error.pos >= len(self.text) - 16 or error.msg.startswith("Unterminated string")
                if cut and self._more():
                    continue
                self._move(error.pos)
                raise self._broken(reason_of(error)) from None
            except RecursionError:
                raise self._broken("nested too deeply") from None
            except ValueError:
                raise self._broken(TOO_MANY_DIGITS) from None
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
            mend="mend that place, or write one JSON object a line (.jsonl) and use --data.skip_bad",
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
