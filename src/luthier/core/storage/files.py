"""Files that are whole or absent: temporary name, flush to disk, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from luthier.core.errors import InputError
from luthier.core.storage.leftovers import clear, new_file, new_folder, set_aside
from luthier.core.storage.opening import refuse_special, regular, telling

# How the three lines of text begin that stand where a file of a repository should be, when it was cloned without git-lfs.
POINTER = b"version https://git-lfs.github.com/spec/"


def fsync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing as a whole: readers see the old file or the new one, never a part. A link there is replaced,
    not followed, and what killed writers of this file left is cleared.

    Raises DiskFull when it is, and InputError where nothing can be written, or a folder or a device stands.
    """
    with telling(path):
        refuse_special(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        clear(path.parent, path.name)
        with new_file(path) as (temporary, descriptor):
            # Half surrogates, of a file name that is not UTF-8, as the escapes that JSON reads back.
            encoding, errors = (None, None) if "b" in mode else ("utf-8", "backslashreplace")
            with open(descriptor, mode, encoding=encoding, errors=errors, closefd=False) as handle:
                yield handle
            os.fsync(descriptor)
            os.replace(temporary, path)
        fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    with writing(path) as handle:
        handle.write(text)


def write_folder(final: Path, fill: Callable[[Path], None], *, alone: bool = False) -> Path:
    """Let `fill` write into a temporary folder, flush every file of it, and put it where `final` is.

    An older folder there steps aside first, so that at any moment one of the two is whole. What killed writers of it left
    is cleared (`alone`: see `clear`). Raises DiskFull when it is, the older folder is then untouched; InputError where
    nothing can be written, or a file or a link stands.
    """
    with telling(final):
        if final.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        refuse_special(final, folder=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        clear(final.parent, final.name, alone=alone)
        with new_folder(final) as temporary:
            fill(temporary)
            _flush(temporary)
            if final.exists():
                set_aside(final, lambda: os.replace(temporary, final))
            else:
                os.replace(temporary, final)
        fsync_folder(final.parent)
    return final


def _flush(folder: Path) -> None:
    """Flush every file to disk. Some libraries write files that only their owner may read: they get the folder's rights,
    which follow the umask."""
    rights = folder.stat().st_mode & 0o666
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            fsync_folder(path)
        else:
            with open(path, "rb+", opener=regular) as handle:
                os.fchmod(handle.fileno(), rights)
                os.fsync(handle.fileno())


@contextmanager
def together(*paths: Path) -> Iterator[None]:
    """Several new files that are of use only with each other: when the block fails, none of them stays."""
    try:
        yield
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write JSON, indented, keys in the order given, whole or not at all."""
    with writing(path) as handle:
        json.dump(value, handle, indent=2, ensure_ascii=False)
        handle.write("\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; its errors are the caller's to explain."""
    with open(path, encoding="utf-8", opener=regular) as handle:
        return json.load(handle)


def small_file(path: Path, most: int) -> bytes:
    """The bytes of a regular file that has at most `most`. A pipe or a device is not opened: reading one may never end. Raises
    InputError for these, for a file that is larger and for one that cannot be read; FileNotFoundError where there is none."""
    try:
        with open(path, "rb", opener=regular) as handle:
            content = handle.read(most + 1) if os.fstat(handle.fileno()).st_size <= most else None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path, fix="check the file") from None
    if content is None or len(content) > most:
        raise InputError(
            f"larger than {most >> 20} MiB, which is too large for such a file", where=path, fix="copy the folder again"
        )
    return content


def text_file(path: Path) -> str:
    """A text file that a person wrote, in UTF-8, without the byte order mark that some editors put first. Raises OSError and
    UnicodeDecodeError; and InputError for a Git LFS pointer."""
    with open(path, "rb", opener=regular) as handle:
        content = handle.read()
    refuse_pointer(content, path)
    return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")  # as a file opened for text


def refuse_pointer(start: bytes | Path, where: object = None) -> None:
    """Raise InputError when a file that begins with `start` (or the file of that path) is a Git LFS pointer: every ending
    has them, of data and of weights. A path that cannot be read is left to whoever reads it."""
    if isinstance(start, Path):
        where = start
        try:
            with open(start, "rb", opener=regular) as handle:
                start = handle.read(len(POINTER) + 3)
        except OSError:
            return
    if start.removeprefix(b"\xef\xbb\xbf").startswith(POINTER):
        raise InputError(
            "this is a Git LFS pointer, not the file itself", where=where,
            fix="fetch it with `git lfs pull` in its repository, or download it",
        )  # fmt: skip


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb", opener=regular) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where Luthier keeps converted models: $LUTHIER_CACHE, or luthier in the user's cache folder."""
    if own := os.environ.get("LUTHIER_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "luthier"
