"""Stopping cleanly: the first SIGINT or SIGTERM asks, the second one ends at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from luthier.core.errors import Stopped


class Stop:
    """Whether somebody asked to stop. Long work polls it: `if stop(): ...`, or `stop.check()`."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def check(self) -> None:
        """Raise Stopped if somebody asked."""
        if self.asked:
            raise Stopped("stopped", fix="run the same command again to continue")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # Not print(): the signal may have come in the middle of one.
        os.write(
            2,
            f"\n{signal.Signals(number).name}: finishing the current piece of work first; a second signal stops at once\n".encode(),
        )


@contextmanager
def stopping() -> Iterator[Stop]:
    """A Stop that listens to SIGINT and SIGTERM for the block; outside the main thread it never hears any."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop._handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
