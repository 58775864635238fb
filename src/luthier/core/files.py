"""Files that are whole or absent: temporary name, flush to disk, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from luthier.core.errors import DiskFull, InputError

# How the three lines of text begin that stand where a file of a repository should be, when it was cloned without git-lfs.
POINTER = b"version https://git-lfs.github.com/spec/"


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def full_disk(error: Exception) -> bool:
    """Whether an error of writing says so; safetensors has an error of its own for it."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it when the block ends well and removed when not.

    Raises DiskFull when it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        if full_disk(error):
            raise DiskFull("the disk is full", where=path, mend="free some space and run the command again") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing as a whole: readers see the old file or the new one, never a part."""
    with replacing(path) as temporary:
        encoding = None if "b" in mode else "utf-8"
        with open(temporary, mode, encoding=encoding) as handle:
            yield handle


def write_folder(final: Path, fill: Callable[[Path], None]) -> Path:
    """Let `fill` write into a temporary folder, flush every file of it, and put it where `final` is.

    An older folder there steps aside first, so that at any moment one of the two is whole. Raises DiskFull
    when it is; the older folder is then untouched.
    """
    temporary, aside = (final.with_name(f".{final.name}.{kind}") for kind in ("tmp", "old"))
    for stale in (temporary, aside):
        shutil.rmtree(stale, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        for path in temporary.rglob("*"):
            if path.is_file():
                with open(path, "rb+") as handle:
                    os.fsync(handle.fileno())
        if final.exists():
            os.replace(final, aside)
        os.replace(temporary, final)
        fsync_folder(final.parent)
    except Exception as error:
        if full_disk(error):
            raise DiskFull("the disk is full", where=final, mend="free some space and run the command again") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
    return final


def write_json(path: Path, value: object) -> None:
    """Write JSON, indented, keys in the order given, whole or not at all."""
    with writing(path) as handle:
        json.dump(value, handle, indent=2, ensure_ascii=False)
        handle.write("\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; its errors are the caller's to explain."""
    return json.loads(path.read_text(encoding="utf-8"))


def text_file(path: Path) -> str:
    """A text file that a person wrote, in UTF-8, without the byte order mark that some editors put first. Raises OSError and
    UnicodeDecodeError; and InputError for a Git LFS pointer."""
    content = path.read_bytes()
    refuse_pointer(content, path)
    return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")  # as a file opened for text


def refuse_pointer(start: bytes | Path, where: object = None) -> None:
    """Raise InputError when a file that begins with `start` (or the file of that path) is a Git LFS pointer: every ending
    has them, of data and of weights. A path that cannot be read is left to whoever reads it."""
    if isinstance(start, Path):
        where = start
        try:
            with open(start, "rb") as handle:
                start = handle.read(len(POINTER) + 3)
        except OSError:
            return
    if start.removeprefix(b"\xef\xbb\xbf").startswith(POINTER):
        raise InputError(
            "a Git LFS pointer stands here, not the file itself", where=where,
            mend="fetch it with `git lfs pull` in its repository, or download it",
        )  # fmt: skip


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where Luthier keeps converted models: $LUTHIER_CACHE, or luthier in the user's cache folder."""
    if own := os.environ.get("LUTHIER_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "luthier"
