"""Where a library of others reads what a user gave: whatever it raises is one line for the user, with the file.

Parsers written in Rust and C++ raise errors of their own kinds, kinds that nobody documented, and panics, which are no
`Exception`. Only their calls stand in such a block, so that no fault of ours is taken for the user's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from luthier.core.errors import InputError, LuthierError
from luthier.core.storage.opening import full_disk

MAX_CHARACTERS = 200  # characters of a library's own words


@contextmanager
def library_errors(what: str, *, where: object, fix: str, copy: Path | None = None) -> Iterator[None]:
    """Raise InputError, `what` with the reason, for whatever the block raises but our own errors, signals and a full disk.
    `copy` is a folder that stood in for the user's: its place is not told."""
    try:
        yield
    except (LuthierError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, Exception) and full_disk(error):
            raise
        raise InputError(f"{what}: {reason(error, copy)}", where=where, fix=fix) from error


def reason(error: BaseException, copy: Path | None = None) -> str:
    """The first line of what an error says, with the next where it ends in a colon, or its kind; short, and without the place
    of `copy`."""
    if isinstance(error, MemoryError):
        return "it takes more memory than there is here"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__
    text = text.replace(f"{copy}/", "").replace(str(copy), "this folder") if copy else text
    if isinstance(error, KeyError):
        text = f"{text} is missing"
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}…"
