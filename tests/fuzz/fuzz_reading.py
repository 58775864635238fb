"""What the readers of the product are given: how each is called, and how a file of each kind is changed in its structure."""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_files import Material
from fuzz_mutate import damage, other_json

Read = Callable[[Material, random.Random, Path], None]


@dataclass(frozen=True)
class Reader:
    """`read` damages something and reads it, `quick` times in `make test`."""

    name: str
    read: Read
    quick: int


READERS: dict[str, Reader] = {}


def reader(quick: int) -> Callable[[Read], Read]:
    def add(read: Read) -> Read:
        name = read.__name__.replace("_", " ")
        READERS[name] = Reader(name, read, quick)
        return read

    return add


def command(*line: object) -> None:
    """A command line, in this process. Its standard output must be JSON, its errors are raised."""
    from luthier.cli import run

    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = run([str(part) for part in line], debug=True)
    assert status in (0, 2), f"exit status {status}"
    if out.getvalue():
        json.loads(out.getvalue())


def changed_file(path: Path, draw: random.Random, structure: float = 0.6) -> None:
    """Damage a file in its place: JSON, JSON Lines and safetensors in their structure too."""
    data = path.read_bytes()
    other = None
    if draw.random() < structure:
        if path.suffix == ".json":
            other = other_json(json.loads(data), draw).encode()
        elif path.suffix == ".jsonl":
            other = changed_lines(data, draw)
        elif path.suffix == ".safetensors":
            other = _other_tensors(data, draw)
        elif path.suffix == ".yaml":
            other = other_yaml(data.decode(), draw).encode()
    path.write_bytes(damage(data, draw) if other is None else other)


def changed_lines(data: bytes, draw: random.Random) -> bytes:
    """JSON Lines with one or two lines of another structure."""
    lines = data.decode().splitlines()
    for _ in range(draw.choice((1, 1, 2))):
        place = draw.randrange(len(lines))
        with contextlib.suppress(ValueError, RecursionError):
            lines[place] = other_json(json.loads(lines[place]), draw)
    return "\n".join(lines).encode() + b"\n"


def _other_tensors(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file with another header, of the length that it says."""
    size = struct.unpack("<Q", data[:8])[0]
    header = other_json(json.loads(data[8 : 8 + size]), draw).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def other_yaml(text: str, draw: random.Random) -> str:
    """YAML with another structure, in its own style or in that of JSON."""
    import yaml

    other = other_json(yaml.safe_load(text), draw)
    if draw.random() < 0.5 or len(other) > 20_000:
        return other
    with contextlib.suppress(ValueError, RecursionError, yaml.YAMLError):
        return str(yaml.safe_dump(json.loads(other), sort_keys=False, allow_unicode=True))
    return other


def one_of(folder: Path, draw: random.Random, *patterns: str) -> Path:
    """A file of the folder, by its name."""
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    return draw.choice(found)


def say_something(name: object, **opening: Any) -> None:
    """Open a model or a run and let it answer, as `luthier chat` does."""
    from luthier.core.types.examples import Message
    from luthier.runs.open import open_model

    opened = open_model(str(name), device="cpu", dtype="float32", **opening)
    sampling = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 2, "seed": 0}
    "".join(opened.answer([Message("user", "who sat?")], sampling))
