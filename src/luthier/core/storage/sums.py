"""Checksums of what is written, so that what was cut, garbled, changed or deleted since is never believed.

Of whole files, in the file `sums` of their folder, in the format of `sha256sum`, which checks them too:

    HEX  evals/before.jsonl     the file as it was written
    HEX *evals/after.jsonl      it is about to be put in place: this stands there, or what did before, or nothing

Of files that lines are added to, in each line: its `sum`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.storage.files import sha256, writing

FILE = "sums"
SUM = "sum"  # of a line, in the line
DIGITS = 16  # of a line's sum
_LINE = re.compile(r"([0-9a-f]{64}) ([ *])(.+)")


@dataclass(frozen=True, slots=True)
class Noted:
    """What a file is to be: `now`, or `coming` where it was about to be replaced."""

    now: str | None = None
    coming: str | None = None


@dataclass(frozen=True)
class Sums:
    """The sums of the files in a folder, by their path from there."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / FILE

    def noted(self) -> dict[str, Noted]:
        """What is noted; nothing where there is no file of sums. Raises InputError for a damaged one."""
        try:
            text = self.path.read_bytes().decode("ascii", "replace") if self.path.is_file() else ""
        except FileNotFoundError:
            text = ""
        out: dict[str, Noted] = {}
        for number, line in enumerate(text.splitlines(keepends=True), 1):
            found = _LINE.fullmatch(line.removesuffix("\n"))
            if found is None or not line.endswith("\n"):
                raise InputError(
                    "not a line of sha256 sums: this file was cut or changed", where=f"{self.path}:{number}",
                    fix="put it back from a copy, or remove the line to accept its file as it is",
                )  # fmt: skip
            digest, mark, name = found.groups()
            before = out.get(name, Noted())
            out[name] = Noted(digest, before.coming) if mark == " " else Noted(before.now, digest)
        return out

    @contextmanager
    def replacing(self, digests: Mapping[str, str], folder: str | None = None) -> Iterator[None]:
        """Note what these files are to be before the block puts them in place, and that they are after it. With `folder` they
        are all that is in there from now on. A kill at any moment leaves what is noted true."""
        inside = f"{folder}/" if folder else None
        noted = {
            name: said for name, said in self.noted().items()
            if name in digests or inside is None or not name.startswith(inside)
        }  # fmt: skip
        self._write(noted | {name: Noted(self._standing(name, noted.get(name)), digests[name]) for name in digests})
        yield
        self._write(noted | {name: Noted(digest) for name, digest in digests.items()})

    def forget(self, names: Iterable[str]) -> None:
        """Note these files no more: they are about to change, or to go."""
        noted, gone = self.noted(), set(names)
        if gone & set(noted):
            self._write({name: said for name, said in noted.items() if name not in gone})

    def check(self, name: str) -> None:
        """Raise InputError when the file is not as it was written, or gone. One that is not noted is believed."""
        for last in (False, True):  # it may have been replaced between the two looks
            said = self.noted().get(name)
            if said is None:
                return
            path = self.folder / name
            found = _file_sum(path) if path.is_file() else None
            if said.coming is not None if found is None else found in (said.now, said.coming):
                return
            if last:
                raise damaged(path, "it is gone" if found is None else "it has changed since it was written")

    def check_all(self) -> None:
        """Check every file that is noted."""
        for name in self.noted():
            self.check(name)

    def _standing(self, name: str, said: Noted | None) -> str | None:
        """Which of the two stands there."""
        if said is None or said.coming is None:
            return said.now if said else None
        path = self.folder / name
        return said.coming if path.is_file() and sha256(path) == said.coming else said.now

    def _write(self, noted: Mapping[str, Noted]) -> None:
        with writing(self.path) as handle:
            for name, said in noted.items():
                handle.writelines(f"{said.now}  {name}\n" if said.now else "")
                handle.writelines(f"{said.coming} *{name}\n" if said.coming else "")


def _file_sum(path: Path) -> str:
    about = path.stat()
    return _sum_once(path, about.st_ino, about.st_size, about.st_mtime_ns)


@cache
def _sum_once(path: Path, *about: int) -> str:
    """The sha256 of a file, which a command asks for more than once."""
    return sha256(path)


def damaged(path: object, what: str) -> InputError:
    """The error for a file that cannot be trusted."""
    fix = f"put it back from a copy, or start again elsewhere; if you changed it yourself, remove its line from {FILE}"
    return InputError(what, where=path, fix=fix)


def digest_of(content: bytes) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def with_sum(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the sum of all else in it."""
    return {**record, SUM: sum_of(record)}


def checked(record: Mapping[str, Any], where: object, fix: str) -> dict[str, Any]:
    """The record without its sum. Raises InputError when it is not the one that was written; one without a sum, of an older
    version or of another program, is believed."""
    bare = {name: value for name, value in record.items() if name != SUM}
    if SUM in record and record[SUM] != sum_of(bare):
        raise InputError("this line was changed since it was written", where=where, fix=fix)
    return bare


def sum_of(record: Mapping[str, Any]) -> str:
    """The sum of a line that holds this record."""
    as_read = json.loads(json.dumps(record))
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()[:DIGITS]
