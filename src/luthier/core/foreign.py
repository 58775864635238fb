"""Where a library of others reads what a user gave: whatever it raises is one line for the user, with the file.

Parsers written in Rust and C++ raise errors of their own kinds, kinds that nobody documented, and panics, which are no
`Exception`. Only their calls stand in such a block, so that no fault of ours is taken for the user's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from luthier.core.errors import InputError, LuthierError
from luthier.core.opening import full_disk

LONGEST = 200  # characters of a library's own words


@contextmanager
def foreign(what: str, *, where: object, mend: str) -> Iterator[None]:
    """Raise InputError, `what` with the reason, for whatever the block raises but our own errors, signals and a full disk."""
    try:
        yield
    except (LuthierError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, Exception) and full_disk(error):
            raise
        raise InputError(f"{what}: {reason(error)}", where=where, mend=mend) from error


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its kind; short."""
    if isinstance(error, MemoryError):
        return "it takes more memory than there is here"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if isinstance(error, KeyError):
        text = f"{text} is missing"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
