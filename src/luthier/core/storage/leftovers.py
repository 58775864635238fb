"""Temporary files and folders: made under names that nobody can foresee, held while they are written, and cleared by a
later start when a kill left them.

    .NAME.TOKEN.tmp   what will be NAME
    .NAME.TOKEN.old   the folder that NAME was, while another takes its place

Each is locked by the process that made it. The system frees the lock when that process ends, so what can be locked has no
writer any more. Versions before wrote `.NAME.PID.tmp`, and of folders `.NAME.tmp` and `.NAME.old`: these are cleared in a
run's folder only, where a lock says that nobody else writes; elsewhere they may be anybody's.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_OURS = re.compile(r"\.(?P<name>.+)\.(?P<token>[0-9a-f]{16})\.(?P<kind>tmp|old)", re.DOTALL)
_OLDER = re.compile(r"\.(?P<name>.+?)(?:\.\d{1,7})?\.(?P<kind>tmp|old)", re.DOTALL)
LONGEST = 50  # characters of a name that its temporary name repeats: names may have 255 bytes, in all


class _Left(NamedTuple):
    path: Path
    name: str
    kind: str


def temporary_name(path: Path, kind: str = "tmp") -> Path:
    """A name beside `path` that nobody can foresee."""
    name = path.name[:LONGEST] if kind == "tmp" else path.name
    return path.with_name(f".{name}.{secrets.token_hex(8)}.{kind}")


@contextmanager
def new_file(path: Path) -> Iterator[tuple[Path, int]]:
    """A temporary file beside `path` and its descriptor, held for the block and removed at its end when it is still there."""

    def make(name: Path) -> int:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)

    with _held(path, make) as (temporary, handle):
        try:
            yield temporary, handle
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, rights: int = 0o777) -> Iterator[Path]:
    """A temporary folder beside `path`, held for the block and removed at its end when it is still there."""

    def make(name: Path) -> int | None:
        name.mkdir(rights)
        try:
            return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None  # cleared in between

    with _held(path, make) as (temporary, _):
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _held(path: Path, make: Callable[[Path], int | None]) -> Iterator[tuple[Path, int]]:
    """What `make` makes under a new temporary name. Another process that clears may be quicker than the lock: then anew."""
    while True:
        temporary = temporary_name(path)
        if (handle := make(temporary)) is None:
            continue
        try:
            with suppress(OSError):  # a file system that has no locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if not temporary.exists():
                continue
            yield temporary, handle
            return
        finally:
            os.close(handle)


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder among the system's temporary ones that its owner alone may read, for the block. What killed processes of this
    user left there is cleared."""
    path = Path(tempfile.gettempdir()) / f"luthier-{os.getuid()}"
    clear(path.parent, path.name)
    with new_folder(path, 0o700) as folder:
        yield folder


def set_aside(folder: Path, put: Callable[[], None]) -> None:
    """Let `put` put another folder where `folder` is; the old one stays whole until it has, and comes back when it fails."""
    aside = temporary_name(folder, "old")
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        os.replace(folder, aside)
        try:
            put()
        except BaseException:
            if not os.path.lexists(folder):
                os.replace(aside, folder)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        os.close(handle)


def clear(folder: Path, name: str | None = None, *, alone: bool = False) -> None:
    """Remove what killed writers left in `folder`, of the file or folder `name` only where it is given; an old folder whose
    successor never came is put back. What a living process holds is left, and so is what cannot be removed.

    `alone` says that a lock keeps other processes from writing in this folder: then what an older version left is cleared.
    """
    for item in sorted(_left(folder, name, alone), key=lambda item: (item.kind, item.path.name)):  # old before tmp
        with suppress(OSError), _claimed(item, alone) as ours:
            if not ours:
                continue
            final = folder / item.name
            if not item.path.is_dir():
                item.path.unlink()
            elif item.kind == "old" and not os.path.lexists(final):
                os.replace(item.path, final)
            else:
                shutil.rmtree(item.path, ignore_errors=True)


def _left(folder: Path, name: str | None, older: bool) -> Iterator[_Left]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        found = _OURS.fullmatch(entry.name) or (_OLDER.fullmatch(entry.name) if older else None)
        if found and not entry.is_symlink() and (name is None or found["name"] in (name, name[:LONGEST])):
            yield _Left(folder / entry.name, found["name"], found["kind"])


@contextmanager
def _claimed(item: _Left, alone: bool) -> Iterator[bool]:
    """Hold what was left, for the block: whether no process may write there any more."""
    kind = os.lstat(item.path).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        yield False
        return
    handle = os.open(item.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        ours = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            ours = False
        except OSError:  # a file system that has no locks
            ours = alone
        yield ours
    finally:
        os.close(handle)
