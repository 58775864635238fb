"""A deadline for calls of libraries that nothing can interrupt: the process ends with one line when it passes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from luthier.core.log import note

STATUS = 2  # as of what the user can fix


@contextmanager
def ends_after(seconds: float, what: str) -> Iterator[None]:
    """End this process, saying `what`, when the block takes longer than so many seconds. Only for calls that let other threads run,
    and where whatever is under way goes on from what it saved: nothing else is tidied up."""

    def end() -> None:
        note(f"luthier: {what}")
        os._exit(STATUS)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
