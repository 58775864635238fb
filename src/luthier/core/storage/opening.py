"""Files opened without trust in what stands at their names.

Nothing is written through a link, whoever planted it; nothing but a regular file is opened, so no pipe or device is waited
for; and what the system refuses is one line with what to do.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from luthier.core.errors import DiskFull, InputError, LuthierError, Unwritable
from luthier.core.storage.leftovers import LONGEST

_LINK = ("this is a link, and nothing is written through links", "remove it")
_SPECIAL = ("this is a pipe or a device, not a file", "give another path")
_FOLDER_AHEAD = ("there is a folder where a file should be written", "move it away, or give another path")
_FILE_AHEAD = ("there is a file where a folder is needed", "move it away, or give another path")
_CLOSED = ("no permission", "check who owns it, or give another path")
ANYWHERE = {  # whatever was to be written
    errno.EROFS: ("the file system is read-only", "give a place that can be written"),
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.ENAMETOOLONG: ("the name is too long", "give a shorter one"),
    errno.EFBIG: ("a file may not grow so large here", "raise `ulimit -f`, or give another place"),
}
REFUSED = ANYWHERE | {
    errno.ELOOP: _LINK,
    errno.ENXIO: _SPECIAL,
    errno.EISDIR: _FOLDER_AHEAD,
    errno.ENOTDIR: _FILE_AHEAD,
    errno.EEXIST: _FILE_AHEAD,
}
# How libraries that are no Python name the system's answer, in the text of errors of their own.
_NUMBER = re.compile(r"\(os error (\d+)\)")


def errno_of(error: Exception) -> int | None:
    """What the system answered, of an OSError or of an error of safetensors or tokenizers; None for any other error."""
    if isinstance(error, OSError):
        return error.errno
    if "No space left" in str(error):
        return errno.ENOSPC
    return int(found[1]) if (found := _NUMBER.search(str(error))) else None


def full_disk(error: Exception) -> bool:
    """Whether an error of writing says so."""
    return errno_of(error) in (errno.ENOSPC, errno.EDQUOT)


def refusal(error: Exception, where: object) -> LuthierError | None:
    """What a user is told when the system refused to write at `where`; None for an error that is none of the known kinds."""
    if full_disk(error):
        return DiskFull("the disk is full", where=where, fix="free some space and run the command again")
    if (said := REFUSED.get(errno_of(error) or 0)) is None:
        return None
    if said is _FILE_AHEAD and isinstance(where, Path):
        where = next((above for above in (where, *where.parents) if above.exists() and not above.is_dir()), where)
    return Unwritable(said[0], where=where, fix=said[1])


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Make what the system refuses in the block, of writing at `path`, an error for users. Errors that name a file which
    lies elsewhere, as of reading what is to be written, stay as they are."""
    try:
        yield
    except LuthierError:
        raise
    except Exception as error:
        named = getattr(error, "filename", None)
        ours = not isinstance(named, str | os.PathLike) or _ours(Path(named), path)
        if ours and (told := refusal(error, path)):
            raise told from error
        raise


def _ours(named: Path, path: Path) -> bool:
    """Whether `named` is `path`, above it, or below a temporary name of it."""
    if named == path or named in path.parents:
        return True
    beside = named.parts[len(path.parent.parts) :]
    return path.parent in named.parents and beside[0].startswith(f".{path.name[:LONGEST]}.")


def regular(path: str | os.PathLike[str], flags: int) -> int:
    """An opener for `open`: regular files only, without waiting for a pipe's other end; to write, no link either, and no
    second name of a file, which a hard link is.

    Raises InputError for these, and OSError for what is not there or may not be opened.
    """
    writes = flags & os.O_ACCMODE != os.O_RDONLY
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if writes else 0), 0o666)
    try:
        about = os.fstat(handle)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(about.st_mode):
            raise InputError(_SPECIAL[0], where=path, fix=_SPECIAL[1])
        if writes and about.st_nlink > 1:
            raise InputError(
                "this file has a second name, a hard link, and would change there too", where=path,
                fix="put a copy in its place, as `cp -r` of the whole folder does",
            )  # fmt: skip
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextmanager
def appending(path: Path) -> Iterator[IO[bytes]]:
    """A file, opened to be read and added to; made with its folder when it is not there.

    Raises InputError for a link, for what is no regular file, and where nothing can be written; DiskFull.
    """
    with _opened(path) as handle:
        yield handle


def _opened(path: Path) -> IO[bytes]:
    with telling(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a+b", opener=regular)


@contextmanager
def holding(path: Path, busy: InputError | Callable[[], None]) -> Iterator[IO[bytes]]:
    """Hold the file `path` for this process, opened as `appending` does and emptied by nobody; the system frees it when the
    process ends, however it ends. While another process holds it, raise `busy`, or call it and wait. Raises as `appending`."""
    while True:
        with appending(path) as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if isinstance(busy, InputError):
                    raise busy from None
                busy()
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _stands(handle, path):  # else whoever held it removed it, with its folder
                yield handle
                return


def _stands(handle: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def refuse_special(path: Path, *, folder: bool = False) -> None:
    """Raise InputError when what stands at `path` is not a file (or not a folder, where one is to be written)."""
    if not path.exists() or (path.is_dir() if folder else path.is_file()):
        return
    what, fix = _FILE_AHEAD if folder and path.is_file() else _FOLDER_AHEAD if path.is_dir() else _SPECIAL
    raise InputError(what, where=path, fix=fix)


def require_writable(path: Path, *, folder: bool = False) -> None:
    """Raise InputError where no file (or folder) could be written at `path`: asked before long work, not after it."""
    refuse_special(path, folder=folder)
    above = next(above for above in path.absolute().parents if os.path.lexists(above))
    refuse_special(above, folder=True)
    with telling(path):
        number = errno.EROFS if os.statvfs(above).f_flag & os.ST_RDONLY else errno.EACCES
        if not os.access(above, os.W_OK | os.X_OK):
            raise OSError(number, os.strerror(number))


def require_new(path: Path, fix: str) -> None:
    """Raise InputError when `path` is there already, with this advice, or could not be written."""
    if path.exists():
        raise InputError("this file already exists and is not overwritten", where=path, fix=fix)
    require_writable(path)
