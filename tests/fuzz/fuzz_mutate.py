"""Small valid files -> damaged and hostile ones, by a seeded `random.Random`: the same seed makes the same file.

of bytes       cut, bits turned, bytes repeated, moved, taken out, numbers in headers changed, odd bytes put in
of structure   a JSON value in which a value is of another type, size or depth, or a key is gone, renamed or there twice
"""

from __future__ import annotations

import json
import random
import re
import struct
from typing import Any

# JSON texts that stand where another value was: of other types, sizes, depths and signs, and what leads elsewhere.
DEEP = 2000
STRANGE = (
    *("null", "true", "false", "-1", "0", "1", "7", "0.5", "1e308", "-1e308", "1e400", "NaN", "Infinity", "-Infinity"),
    *("1" + "0" * 30, "-1" + "0" * 30, str(2**31), str(2**63), str(2**64), "9" * 5000),
    *('""', '" "', '"0"', '"x"', '"null"', '"\\u001b[31mred\\u001b]0;title\\u0007"', '"a\\nb\\r\\u2028c"', '"\\u202e\\u0000"'),
    *('"' + "long " * 20_000 + '"', '"\\ud800"', '"\\udfff tail"', '"%s %n {0} {x}"', '"{{ 7 * 7 }}"', '"<script>alert(1)</script>"'),
    *('"../outside.bin"', '"outside.bin"', '"/dev/zero"', '"../../../../etc/passwd"', '"~"', '"file:///etc/passwd"', '"-"', '"--help"'),
    *('"http://127.0.0.1:9/x"', '"adapter_model.bin"', '"nobody/nothing"', '"python:x.py:f"', '"(a+)+$"', '"["'),
    *("[]", "{}", "[null]", "[[]]", "[{}]", '{"": null}', '{"a": null}', '{"__class__": "os.system"}', "[1, 2, 3]", '["a", "b"]'),
    *("[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "[" + "0," * 100_000 + "0]", "[" + "{}," * 20_000 + "{}]"),
    *("{" + ",".join(f'"k{i}":{i}' for i in range(20_000)) + "}", '"' + "a" * 300 + '"'),
)  # fmt: skip
NAMES = (
    "",
    "x",
    "type",
    "__proto__",
    "\x1b[31m",
    "key with space",
    "k" * 5000,
    "transformers_weights",
    "auto_map",
    "\ud800",
)
ODD_BYTES = (
    b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\x80", b"\xed\xa0\x80", b"\x1b[31m", b"\r", b"\n", b"\n\n", b'"', b"{", b"}",
    b"[" * 3000, b'{"a":' * 3000, b",", b"\t", b"&a [*a, *a]", b"!!python/object/apply:os.system [id]", b"<<: *x", b"%", b"- " * 500,
    b"{{", b"{% for i in range(10**9) %}", b"version https://git-lfs.github.com/spec/v1\n", b"\xe2\x80\xae", b"0" * 5000,
)  # fmt: skip
_MARK = "\ue000mark{}\ue000"  # stands for a raw JSON text until the value is written


def damage(data: bytes, draw: random.Random) -> bytes:
    """The bytes with one to three changes."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = draw.choice(_DAMAGES)(data, draw)
    return data


def _place(data: bytes, draw: random.Random) -> int:
    """Somewhere in it, as often near its beginning, where headers are."""
    return draw.randrange(min(len(data), 64) if draw.random() < 0.3 else len(data)) if data else 0


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: _place(data, draw)] if draw.random() < 0.7 else data[_place(data, draw) :]


def _turned(data: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 4, 32)) if out else 0):
        out[_place(data, draw)] ^= 1 << draw.randrange(8)
    return bytes(out)


def _overwritten(data: bytes, draw: random.Random) -> bytes:
    """A number of four or eight bytes in its place: as headers hold counts, lengths and offsets."""
    value = draw.choice((0, 1, -1, 255, 2**15, 2**31 - 1, -(2**31), len(data), len(data) + 1))
    raw = struct.pack("<q", draw.choice((value, 2**62, -(2**62)))) if draw.random() < 0.5 else struct.pack("<i", value)
    place = _place(data, draw)
    return data[:place] + raw + data[place + len(raw) :]


def _repeated(data: bytes, draw: random.Random) -> bytes:
    start, length = _place(data, draw), draw.choice((1, 4, 16, 64, 1024))
    return data[:start] + data[start : start + length] * draw.choice((2, 3, 100)) + data[start + length :]


def _moved(data: bytes, draw: random.Random) -> bytes:
    one, two = sorted((_place(data, draw), _place(data, draw)))
    return data[one:two] + data[:one] + data[two:]


def _taken_out(data: bytes, draw: random.Random) -> bytes:
    start = _place(data, draw)
    return data[:start] + data[start + draw.choice((1, 1, 2, 8, 100)) :]


def _put_in(data: bytes, draw: random.Random) -> bytes:
    start = _place(data, draw)
    return data[:start] + draw.choice(ODD_BYTES) + data[start:]


def _digits(data: bytes, draw: random.Random) -> bytes:
    """A number that is written in digits, changed."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data[:200_000]))
    if not found:
        return _turned(data, draw)
    number = draw.choice(found)
    other = draw.choice((b"-1", b"0", b"1e308", b"NaN", b"1" + b"0" * 30, b"2147483648", b"0.5", b"null", b"", b'"7"'))
    return data[: number.start()] + other + data[number.end() :]


_DAMAGES = (_cut, _turned, _turned, _overwritten, _repeated, _moved, _taken_out, _put_in, _put_in, _digits, _digits)


def other_json(value: Any, draw: random.Random) -> str:
    """The value as JSON text, with one to three changes of its structure."""
    value, raw = json.loads(json.dumps(value)), list[tuple[str, str]]()
    for _ in range(draw.choice((1, 1, 1, 1, 2, 3))):
        value = _changed(value, draw, raw)
    text = json.dumps(value)
    for mark, meant in raw:
        text = text.replace(json.dumps(mark), meant).replace(json.dumps(mark)[1:-1], "twice")
    return text


def strange(draw: random.Random) -> str:
    """A JSON text that nobody expects."""
    return draw.choice(STRANGE)


def strange_value(draw: random.Random) -> Any:
    """A value that nobody expects, as Python's JSON reads it; not so deep that it could not."""
    return json.loads(
        draw.choice([text for text in STRANGE if len(text) < 4300 and not text.startswith(("[[[", '{"a":{'))])
    )


def _changed(value: Any, draw: random.Random, raw: list[tuple[str, str]]) -> Any:
    """The value with one change, at a place as deep as chance has it."""
    inside = isinstance(value, (dict, list)) and value
    if not inside or draw.random() < 0.04:
        return _stands_for(strange(draw), raw)
    key = draw.choice(list(value) if isinstance(value, dict) else range(min(len(value), 1000)))
    if draw.random() < (0.75 if isinstance(value[key], (dict, list)) and value[key] else 0.0):
        value[key] = _changed(value[key], draw, raw)
        return value
    if draw.random() < 0.6:
        value[key] = _stands_for(strange(draw), raw)
    elif isinstance(value, list):
        draw.choice(
            (lambda: value.pop(key), lambda: value.insert(key, value[key]), lambda: value.extend(value[:500]))
        )()
    else:
        _rekeyed(value, key, draw, raw)
    return value


def _rekeyed(value: dict[str, Any], key: str, draw: random.Random, raw: list[tuple[str, str]]) -> None:
    """A key gone, called otherwise, there twice, beside a new one, or with another's value."""
    match draw.randrange(5):
        case 0:
            del value[key]
        case 1:
            value[draw.choice(NAMES)] = value.pop(key)
        case 2:
            mark = _MARK.format(len(raw))
            raw.append((mark, json.dumps(key)))
            value[mark] = draw.choice(list(value.values()))
        case 3:
            value[draw.choice(NAMES)] = _stands_for(strange(draw), raw)
        case 4:
            value[key] = value[draw.choice(list(value))]


def _stands_for(text: str, raw: list[tuple[str, str]]) -> str:
    mark = _MARK.format(len(raw))
    raw.append((mark, text))
    return mark
