"""Keys are never shown: not when a server sends one back, whole, in pieces or encoded, and not in an address."""

from __future__ import annotations

import base64
import binascii
import html
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from urllib.parse import unquote

HIDDEN, ALL_HIDDEN = "[hidden]", "[not shown: there is a key in it]"
PIECE = 8  # letters and digits of a key in a row that are hidden; servers show the first and the last few
NAMED = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD)$", re.IGNORECASE)  # variables that hold keys
CREDENTIALS = re.compile(r"(?<=://)[^/\s@'\"]+@")  # of http://user:password@host
ARGUMENT = re.compile(r"([?&][\w.-]*(?:key|token|secret|passw|signature|auth)[\w.-]*=)[^&\s'\"]+", re.IGNORECASE)

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){4,}")
_BASE32 = re.compile(r"[A-Z2-7]{13,}", re.IGNORECASE)
_CODES = re.compile(r"\d{2,3}(?:[^\w\\]+\d{2,3}){7,}")
_OCTAL = re.compile(r"\\([0-7]{3})")
_ESCAPE = re.compile(r"\\(?:u|x|U)\{?([0-9a-fA-F]{2,8})\}?")
_APART = re.compile(r"[\W_]+")
KNOWN: set[str] = set()


def keep(secret: str) -> None:
    """Never show this one from now on; one that is too short to be a key is a word like others."""
    if len(secret) >= PIECE:
        KNOWN.add(secret)


def hide(text: str) -> str:
    """The text without keys that were kept, without the values of the environment's keys, and without those in addresses."""
    text = ARGUMENT.sub(rf"\g<1>{HIDDEN}", CREDENTIALS.sub(f"{HIDDEN}@", text))
    for secret in _of_environment():
        text = text.replace(secret, HIDDEN)
    return without(text, KNOWN)


def said_by_server(text: str) -> str:
    """What a server said, without any key that we may have sent there, in whatever form it comes back."""
    return hide(without(text, (*KNOWN, *_of_environment())))


def without(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets and their pieces. Where it holds one encoded, nothing of it is shown."""
    for secret in secrets:
        text = _covered(text, secret)
    if any(_holds(view, secret) for secret in secrets for view in _views(text)):
        return ALL_HIDDEN
    return text


def _of_environment() -> list[str]:
    named = (value for name, value in os.environ.items() if len(value) >= PIECE and NAMED.search(name))
    return [value for value in named if not value.startswith(("/", "~", "."))]  # where a key is, not what it is


def _bare(text: str) -> str:
    return _APART.sub("", text).casefold()


@cache
def _pieces(secret: str) -> frozenset[str]:
    """Every PIECE letters and digits of a secret in a row."""
    bare = _bare(secret)
    return frozenset(bare[i : i + PIECE] for i in range(len(bare) - PIECE + 1))


def _holds(text: str, secret: str) -> bool:
    bare = _bare(text)
    return any(piece in bare for piece in _pieces(secret))


def _covered(text: str, secret: str) -> str:
    """The text with all that stands in a secret hidden, also where something is put between its letters."""
    if not _pieces(secret):  # such as EMPTY: a word of its own
        return re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    if not _holds(text, secret):
        return text
    places = [(letter, i) for i, character in enumerate(text) for letter in _bare(character)]
    bare = "".join(letter for letter, _ in places)
    hidden: set[int] = set()
    for piece in _pieces(secret):
        at = bare.find(piece)
        while at >= 0:
            hidden.update(range(places[at][1], places[at + PIECE - 1][1] + 1))
            at = bare.find(piece, at + 1)
    out = "".join("\0" if i in hidden else character for i, character in enumerate(text))
    return re.sub("\0+", HIDDEN, out)


def _views(text: str, depth: int = 2) -> Iterator[str]:
    """What the text may be read as: percent signs, entities, escapes, numbers of letters, base64, base32, hexadecimal, wide
    letters, backwards; one within the other."""
    readings = {
        unquote(text), html.unescape(text), text[::-1], _ESCAPE.sub(_character, text), unicodedata.normalize("NFKC", text),
        _OCTAL.sub(lambda found: chr(int(found[1], 8)), text),
        *("".join(chr(int(code)) for code in re.findall(r"\d+", run)) for run in _CODES.findall(text)),
        *_decoded("".join(text.split())),
    } - {text}  # fmt: skip
    for reading in readings:
        yield reading
        if depth > 1 and len(reading) <= 10_000:
            yield from _views(reading, depth - 1)


def _character(found: re.Match[str]) -> str:
    code = int(found[1], 16)
    return chr(code) if code < 0x110000 else found[0]


def _decoded(text: str) -> Iterator[str]:
    for run in _BASE64.findall(text):
        plain = run.replace("-", "+").replace("_", "/")
        for start in range(4):
            part = plain[start : start + (len(plain) - start) // 4 * 4]
            yield base64.b64decode(part).decode("latin-1")
    for run in _BASE32.findall(text):
        for start in range(8):
            part = run[start : start + (len(run) - start) // 8 * 8]
            yield base64.b32decode(part, casefold=True).decode("latin-1")
    for run in _HEX.findall(re.sub(r"0x|\\x|[\W_]", "", text)):
        for start in range(2):
            part = run[start : start + (len(run) - start) // 2 * 2]
            yield binascii.unhexlify(part).decode("latin-1")
