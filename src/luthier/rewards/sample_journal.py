"""Sampled answers, kept in a file as they come: the same command, killed anywhere, goes on from there.

The first line of the file holds what decides the answers. After it come the answers of one prompt a line, and the
rewards of one prompt a line.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Required, cast

from typing_extensions import TypedDict

from luthier.core.errors import InputError
from luthier.core.foreign.forms import Count, Number, Whole
from luthier.core.journal import Journal
from luthier.core.storage.files import sha256
from luthier.core.storage.opening import holding, regular


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """One answer as it was sampled; see `rewards.answer.Answer`."""

    text: str
    tokens: int
    ended: bool


class _Given(TypedDict):
    text: str
    tokens: Count
    ended: bool


class _First(TypedDict):
    settings: dict[str, Any]


class _Line(TypedDict, total=False):
    prompt: Required[Whole]  # -1 in the line that `writes` the result
    writes: str
    answers: list[_Given]
    by: str
    parts: dict[str, list[Number]]


ANEW = "put it back from a copy, give another --out, or delete the file to start over"
Parts = Mapping[str, Sequence[float]]  # name of a part of the reward -> its value for each answer of a prompt


class SampleJournal:
    """What is kept: prompt -> its answers, and prompt -> their rewards."""

    def __init__(self, path: Path, settings: Mapping[str, Any], scored_by: str) -> None:
        self._journal, self._scored_by = Journal(path, ANEW), scored_by
        self.answers: dict[int, list[SampledAnswer]] = {}
        self.parts: dict[int, Parts] = {}
        lines = self._journal.read(_Line, first=_First)
        if not lines:
            self._write([{"settings": settings}])
            return
        before = cast(_First, lines[0])["settings"]
        if changed := [name for name, value in settings.items() if before.get(name) != value]:
            raise InputError(
                f"this file holds answers of another command: its {changed[0].replace('_', ' ')} was not the same", where=path,
                fix="give another --out, or delete it to start over",
            )  # fmt: skip
        for found in lines[1:]:
            if "answers" in found:
                self.answers[found["prompt"]] = [
                    SampledAnswer(given["text"], given["tokens"], given["ended"]) for given in found["answers"]
                ]
            elif found.get("by") == scored_by:
                self.parts[found["prompt"]] = found.get("parts", {})

    def add_answers(self, found: Mapping[int, Sequence[SampledAnswer]]) -> None:
        """Keep the answers of these prompts."""
        self._write([{"prompt": row, "answers": [asdict(given) for given in found[row]]} for row in found])
        self.answers |= {row: list(given) for row, given in found.items()}

    def add_parts(self, found: Mapping[int, Parts]) -> None:
        """Keep the rewards of these prompts' answers."""
        self._write([{"prompt": row, "by": self._scored_by, "parts": found[row]} for row in found])
        self.parts |= found

    def about_to_write(self, digest: str) -> None:
        """Note the sha256 of the file that is made of all this, before it is written."""
        self._write([{"prompt": -1, "writes": digest}])

    def _write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self._journal.add(*lines)
        self._journal.sync()


def writes(path: Path, out: Path) -> bool:
    """Whether `out` is what a command wrote that was killed before it could remove what it had kept at `path`."""
    if not path.is_file() or not out.is_file():
        return False
    with open(path, "rb", opener=regular) as lines:
        last = deque(lines, maxlen=1)
    try:
        said = json.loads(last[0])["writes"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
    return bool(said == sha256(out))


@contextmanager
def keeping(path: Path, settings: Mapping[str, Any], scored_by: str) -> Iterator[SampleJournal]:
    """The answers kept at `path`, for `settings`; rewards that were not `scored_by` the same are left out.

    Raises InputError when the file was kept for other settings, or another process works on it.
    """
    busy = InputError("another process works on this file", where=path, fix="wait for it, or give another --out")
    with holding(path, busy):
        yield SampleJournal(path, settings, scored_by)
