"""Regular expressions that others wrote: read within bounds, and searched with a limit of time.

The `regex` library, which reads Python's expressions and stops a search when its time is over: some patterns take for ever on
the repetitive text that a model may write. `search(text, timeout=seconds)` raises TimeoutError then.
"""

from __future__ import annotations

import warnings
from typing import Any

from luthier.core.errors import InputError

MAX_CHARACTERS = 10_000  # characters of a pattern; one of a million takes 15 s to read


def compiled(pattern: str, where: object, ignore_case: bool = False) -> Any:
    """The pattern made ready. Raises InputError for what is none."""
    import regex

    if len(pattern) > MAX_CHARACTERS:
        raise InputError(
            f"a pattern of {len(pattern):,} characters", where=where, fix=f"up to {MAX_CHARACTERS:,} are read"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # of what the next version may read differently
            return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except RecursionError:
        raise InputError("the pattern nests too deeply", where=where, fix="write it with less nesting") from None
    except (regex.error, ValueError, OverflowError, MemoryError) as error:
        raise InputError(f"not a regular expression: {error}", where=where, fix="fix the pattern") from None
