"""A reward function of the user's, in a process of its own: what it does wrong cannot hurt the run.

The process (see `child.py`) is the running interpreter, started with a list of arguments. A batch goes to it and
comes back as lines of JSON over a socket pair, within `reward.timeout`. It leads a session of its own, so that
Ctrl-C does not reach it, and everything it starts can be ended with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from luthier.core.config import RewardConfig
from luthier.core.errors import InputError, RunError
from luthier.rewards.answer import Answer, opening

LOADING = 60.0  # seconds that a file may take to load, if `reward.timeout` is less
ENDING = 2.0  # seconds that a process is given to end by itself
PIECE = 1 << 16


class Ended(Exception):
    """The process is no more: `what` happened, and how to `mend` it."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.what, self.mend = what, mend


class Function:
    """A component that asks FUNCTION of FILE. A context manager: leaving it ends the process."""

    def __init__(self, spec: str, argument: str, settings: RewardConfig, kind: str = "reward") -> None:
        """Start the process and load the function; `kind` is what errors call it. Raises InputError when that fails."""
        file, _, name = argument.rpartition(":")
        self.where, self.settings = f"{kind} '{spec}'", settings
        if not file or not name.isidentifier():
            raise InputError(
                "'python' needs a file and a function", where=self.where, mend="write python:FILE.py:FUNCTION"
            )
        self.file = Path(file)
        if not self.file.is_file():
            raise InputError(f"no such file: {file}", where=self.where, mend="check the path")
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "luthier.rewards.child", str(theirs.fileno()), file, name,
                 str(settings.memory), str(max(LOADING, settings.timeout))],
                stdin=subprocess.DEVNULL, stdout=2, pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        self._line = ours
        try:
            self._load(max(LOADING, settings.timeout))
        except BaseException:
            self.close()
            raise

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """One number for each answer. Raises RunError, with the prompt at fault where it is certain."""
        until = time.monotonic() + self.settings.timeout
        try:
            reply = self._ask(answers, self.settings.timeout)
        except Ended as ended:
            raise self._failed(ended.what, ended.mend, answers) from None
        if "error" not in reply:
            return [float(value) for value in reply["values"]]
        guilty = self._alone(answers, reply["kind"], until)
        memory = f"raise --reward.memory above {self.settings.memory} MiB, or take less"
        mend = memory if reply["kind"] == "MemoryError" else "mend the function"
        raise self._failed(self._said(reply), mend, answers if guilty is None else [guilty])

    def close(self) -> None:
        """End the process: politely, then not; and what it left running."""
        self._line.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING)
        self._kill()

    def __enter__(self) -> Function:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self, seconds: float) -> None:
        try:
            reply = self._read(time.monotonic() + seconds, seconds)
        except Ended as ended:
            raise InputError(f"did not load: {ended.what}", where=self.where, mend=ended.mend) from None
        if "error" in reply:
            raise InputError(f"did not load: {self._said(reply)}", where=self.where, mend="mend the file")

    def _ask(self, answers: Sequence[Answer], seconds: float) -> dict[str, Any]:
        """What the process replies to a batch, within so many seconds. Raises Ended."""
        until = time.monotonic() + seconds
        columns = {
            "prompts": [answer.prompt for answer in answers],
            "answers": [answer.text for answer in answers],
            "references": [answer.reference for answer in answers],
            "messages": [[{"content": turn.said, **turn.as_dict()} for turn in answer.messages] for answer in answers],
        }
        try:
            self._line.settimeout(seconds)
            self._line.sendall(json.dumps(columns).encode() + b"\n")
        except TimeoutError:
            raise self._late(seconds) from None
        except OSError:  # nobody is there to read it
            raise self._dead() from None
        return self._read(until, seconds)

    def _read(self, until: float, seconds: float) -> dict[str, Any]:
        """The next line of the process, before the time `until`, which leaves it `seconds` in all. Raises Ended."""
        parts: list[bytes] = []
        while not parts or not parts[-1].endswith(b"\n"):
            try:
                self._line.settimeout(max(0.001, until - time.monotonic()))
                parts.append(self._line.recv(PIECE))
            except TimeoutError:
                raise self._late(seconds) from None
            except ConnectionError:
                raise self._dead() from None
            if not parts[-1]:
                raise self._dead()
        reply: dict[str, Any] = json.loads(b"".join(parts))
        return reply

    def _alone(self, answers: Sequence[Answer], kind: str, until: float) -> Answer | None:
        """The answer at which the function raises the same kind of exception when it is given alone: found by halving
        the batch, in what is left of its time; None when that does not find one."""

        def raises(some: Sequence[Answer]) -> bool:
            return self._ask(some, max(0.001, until - time.monotonic())).get("kind") == kind

        rest = answers
        with contextlib.suppress(Ended):
            while len(rest) > 1:
                half = rest[: len(rest) // 2]
                rest = half if raises(half) else rest[len(half) :]
            if len(answers) == 1 or raises(rest):
                return rest[0]
        return None

    def _failed(self, what: str, mend: str, answers: Sequence[Answer]) -> RunError:
        several = f"{len(answers)} answers, the first to " if len(answers) > 1 else "an answer to "
        return RunError(
            f"{what}, given {several}'{opening(answers[0].prompt)}'",
            where=self.where, mend=f"{mend}, then run the same command again: nothing else is lost",
        )  # fmt: skip

    def _said(self, reply: dict[str, Any]) -> str:
        return reply["error"] + (f" ({self.file}:{reply['line']})" if reply["line"] else "")

    def _late(self, seconds: float) -> Ended:
        self._kill()
        return Ended(f"it took longer than {seconds:g} s", "raise --reward.timeout or make it quicker")

    def _dead(self) -> Ended:
        status: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(ENDING)
        self._kill()
        if status is None:
            return Ended("it closed the line to Luthier", "let it close only what it opened")
        if status >= 0:
            return Ended(f"its process ended with status {status}", "let it return numbers instead")
        memory = f"if it took too much memory, raise --reward.memory above {self.settings.memory} MiB"
        return Ended(f"its process was ended by {signal.Signals(-status).name}", memory)

    def _kill(self) -> None:
        """End the process and all it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._line.close()
