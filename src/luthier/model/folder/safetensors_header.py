"""What the header of a safetensors file says: each tensor's name, type and shape, held against the file before any is read.

    8 bytes   length of the header, little-endian
    header    JSON: name -> dtype, shape, data_offsets [first, last + 1], counted from the header's end; and __metadata__
    data      the tensors, end to end

The library checks the same when it opens a file; here a name that stands twice is found too, of which it takes the last.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.foreign.forms import shown
from luthier.core.storage.files import refuse_pointer
from luthier.core.storage.opening import regular
from luthier.model.folder.settings_files import COPY_AGAIN, parse_object

HEADER_BYTES = 100_000_000  # the library's own limit
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16,
    "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4,
    "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A tensor as a header names it: its type as safetensors writes it, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises InputError for a file that is not one, whole, from end to end."""
    try:
        with open(path, "rb", opener=regular) as handle:
            size = os.fstat(handle.fileno()).st_size
            start = handle.read(8)
            refuse_pointer(start + handle.read(64), path)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(HEADER_BYTES, size - 8):
                raise _broken(path, _disguise(start) or "its header does not fit the file")
            handle.seek(8)
            content = handle.read(length)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path, fix="check the file") from None
    if content[:1] != b"{":
        raise _broken(path, _disguise(start) or "its header is not JSON")
    header = parse_object(content, path, unique=True)
    header.pop("__metadata__", None)
    found, spans = {}, []
    for name, entry in header.items():
        tensor, span = _entry(name, entry, path)
        found[name] = tensor
        spans.append((*span, name))
    _hold_spans(spans, size - 8 - length, path)
    return found


def _disguise(start: bytes) -> str:
    kinds = {b"PK\x03\x04": "a zip, as torch.save writes", b"\x80": "a pickle", b"\x89HDF": "HDF5", b"GGUF": "GGUF"}
    named = next((kind for first, kind in kinds.items() if start.startswith(first)), "")
    return f"it is {named}" if named else ""


def _entry(name: str, entry: Any, path: Path) -> tuple[Tensor, tuple[int, int]]:
    if not isinstance(entry, Mapping):
        raise _broken(path, f"'{name}' is {shown(entry)}, not a tensor")
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    span: Any = entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _broken(path, f"'{name}' has the unknown type {shown(dtype)}")
    if not _whole(shape) or not _whole(span) or len(span) != 2:
        raise _broken(path, f"shape or data_offsets of '{name}' are not lists of whole numbers")
    bits = math.prod(shape) * BITS[dtype]
    if len(shape) > 16 or bits % 8 or span[1] - span[0] != bits // 8:
        raise _broken(
            path, f"'{name}' has {span[1] - span[0]:,} bytes, and {dtype} of shape {shape[:16]} another number"
        )
    return Tensor(dtype, tuple(shape)), (span[0], span[1])


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in values)


def _hold_spans(spans: list[tuple[int, int, str]], data: int, path: Path) -> None:
    """Tensors lie end to end: what overlaps, leaves a gap or ends elsewhere than the file is refused."""
    place = 0
    for start, end, name in sorted(spans):
        if start != place:
            raise _broken(path, f"'{name}' begins at byte {start:,}, and the tensor before it ends at {place:,}")
        place = end
    if place != data:
        raise _broken(path, f"its tensors take {place:,} bytes, and the file has {data:,}")


def _broken(path: Path, why: str) -> InputError:
    return InputError(f"truncated or broken weights: {why[:300]}", where=path, fix=COPY_AGAIN)
