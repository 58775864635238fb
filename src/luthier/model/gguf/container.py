"""The GGUF container: its header, and its tensors expanded to float32.

No number in the file is trusted before it is checked against the file's size, so that a truncated or
hostile file is an error and nothing worse.
"""

from __future__ import annotations

import itertools
import math
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from luthier.core.errors import InputError
from luthier.core.foreign.forms import shown
from luthier.core.storage.opening import regular

DOWNLOAD_AGAIN = "download the file again, or take another model"

HEADER_BYTES, ITEMS = 256 << 20, 1 << 24  # the largest known has 16 MB, and 800,000 items
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor lies in the file. `shape` is in torch's order, `start` counts from the file's first byte."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself: `values` are its metadata, `tensors` its table of weights by name."""

    path: Path
    values: dict[str, Any]
    tensors: dict[str, TensorPlace]

    @property
    def architecture(self) -> str:
        return str(self.values["general.architecture"])

    def own(self, key: str) -> str:
        """The whole key of a value of the architecture, such as own('block_count')."""
        return f"{self.architecture}.{key}"

    def whole(self, key: str, most: int, least: int = 1, default: int | None = None) -> int:
        """A whole number from `least` to `most`. Raises InputError for another value, and for none where there is no `default`."""
        value = self.values.get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(key, f"a whole number from {least:,} to {most:,}")
        return value

    def token(self, name: str, count: int) -> int | None:
        """The id of a special token, one of `count`; None where the file names none."""
        key = f"tokenizer.ggml.{name}_token_id"
        return None if self.values.get(key) is None else self.whole(key, count - 1, 0)

    def decimal(self, key: str, default: float | None = None) -> float:
        """A positive number. Raises InputError as `whole` does."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise self.wrong(key, "a positive number")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        """A text. Raises InputError as `whole` does."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def flag(self, key: str) -> bool:
        """True or false; false where the file does not say."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def several(self, key: str, kind: type[str] | type[int]) -> list[Any]:
        """A list of texts or whole numbers, empty where there is none. Raises InputError for one of something else."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or any(type(item) is not kind for item in value):
            raise self.wrong(key, f"a list of {'texts' if kind is str else 'whole numbers'}")
        return value

    def wrong(self, key: str, wanted: str) -> InputError:
        """What to say of a value that is not what it should be."""
        said = "absent" if key not in self.values else shown(self.values[key])
        return InputError(f"'{key}' of the GGUF header is {said}, not {wanted}", where=self.path, fix=DOWNLOAD_AGAIN)


class _Cursor:
    """Reads little-endian values in order and never past the end of the file."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.place, self.items = data, path, 0, 0

    def fail(self, what: str) -> InputError:
        return InputError(f"{what} at byte {self.place}", where=self.path, fix=DOWNLOAD_AGAIN)

    def skip(self, count: int) -> int:
        """Move on by `count` bytes and return where they began."""
        start = self.place
        if count > len(self.data) - start:
            raise self.fail("the GGUF file is truncated or its header is wrong")
        self.place += count
        if self.place > HEADER_BYTES:
            raise self.fail(f"the GGUF header is longer than {HEADER_BYTES >> 20} MiB")
        return start

    def number(self, code: str) -> Any:
        return struct.unpack_from(f"<{code}", self.data, self.skip(struct.calcsize(f"<{code}")))[0]

    def count(self, least: int) -> int:
        """A number of things that take at least `least` bytes each: so many must fit in what is left."""
        found = int(self.number("Q"))
        if found * least > len(self.data) - self.place:
            raise self.fail(f"the GGUF header promises {found} entries, more than the file holds,")
        return found

    def array(self, least: int) -> int:
        """`count`, for the items of a list, of which there are not too many in all."""
        self.items += (found := self.count(least))
        if self.items > ITEMS:
            raise self.fail(f"the GGUF header has lists of more than {ITEMS:,} items")
        return found

    def text(self) -> str:
        length = self.count(1)
        start = self.skip(length)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail("the GGUF header has text that is not UTF-8") from None

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise self.fail(f"the GGUF header has a value of unknown type {kind}")
        item = self.number("I")
        if item == _STRING:
            return [self.text() for _ in range(self.array(8))]
        if item not in _NUMBERS:
            raise self.fail(f"the GGUF header has an array of type {item}")
        width = struct.calcsize(_NUMBERS[item])
        count = self.array(width)
        return list(struct.unpack_from(f"<{count}{_NUMBERS[item]}", self.data, self.skip(count * width)))


def read_header(path: Path) -> Header:
    """The metadata and the tensor table of a GGUF file (version 2 or 3, little-endian).

    Every count, length, offset and size is checked against the file before it is used, tensors may
    not overlap, and names may not repeat. Raises InputError for a file that is not whole.
    """
    try:
        with open(path, "rb", opener=regular) as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(_Cursor(data, path))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the GGUF file: {error}", where=path, fix=DOWNLOAD_AGAIN) from None


def _header(cursor: _Cursor) -> Header:
    if cursor.number("4s") != b"GGUF":
        raise InputError("not a GGUF file", where=cursor.path, fix=DOWNLOAD_AGAIN)
    version = cursor.number("I")
    if version not in (2, 3):
        raise cursor.fail(f"GGUF version {version}; this reader knows 2 and 3,")
    tensor_count, value_count = cursor.count(24), cursor.count(13)
    values: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.text()
        if key in values:
            raise cursor.fail(f"the GGUF header names '{key}' twice")
        values[key] = cursor.value(cursor.number("I"))
    named = values.get("general.architecture")
    if not isinstance(named, str) or not re.fullmatch(r"[\w-]{1,64}", named):
        raise InputError("the GGUF header names no architecture", where=cursor.path, fix=DOWNLOAD_AGAIN)
    table = [_table_entry(cursor) for _ in range(tensor_count)]
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise cursor.fail(f"the GGUF header has alignment {alignment!r}, not a power of two,")
    start = -(-cursor.place // alignment) * alignment
    return Header(cursor.path, values, _tensor_places(cursor, table, start, alignment))


def _table_entry(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.text()
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= 4:
        raise cursor.fail(f"tensor '{name}' has {dimensions} dimensions")
    shape = tuple(int(cursor.number("Q")) for _ in range(dimensions))
    return name, shape[::-1], int(cursor.number("I")), int(cursor.number("Q"))


def _tensor_places(
    cursor: _Cursor, table: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int
) -> dict[str, TensorPlace]:
    places: dict[str, TensorPlace] = {}
    for name, shape, number, offset in table:
        try:
            kind = GGMLQuantizationType(number)
            block, width = GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError):
            raise cursor.fail(f"tensor '{name}' has unknown type {number}") from None
        size = math.prod(shape) // block * width
        end = start + offset + size
        if (
            name in places
            or 0 in shape
            or max(shape) > len(cursor.data) * 8
            or shape[-1] % block
            or offset % alignment
            or end > len(cursor.data)
        ):
            raise cursor.fail(f"tensor '{name}' does not fit the file (shape {shape}, offset {offset}, ends at {end})")
        places[name] = TensorPlace(name, shape, kind, start + offset, size)
    ordered = sorted(places.values(), key=lambda place: place.start)
    for before, after in itertools.pairwise(ordered):
        if before.start + before.size > after.start:
            raise cursor.fail(f"tensors '{before.name}' and '{after.name}' overlap")
    return places


def expand(header: Header, place: TensorPlace) -> np.ndarray:
    """The tensor in float32."""
    raw = np.fromfile(header.path, dtype=np.uint8, count=place.size, offset=place.start)
    block, width = GGML_QUANT_SIZES[place.kind]
    rows = raw.reshape(*place.shape[:-1], place.shape[-1] // block * width)
    plain = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}
    if place.kind in plain:
        return rows.view(plain[place.kind]).astype(np.float32)
    try:
        return np.ascontiguousarray(dequantize(rows, place.kind), dtype=np.float32)
    except NotImplementedError:
        raise InputError(
            f"weights of type {place.kind.name} cannot be expanded", where=header.path, fix="take another quantization"
        ) from None
