"""A reward function of the user's, in a process of its own (see `core/foreign/child.py`): what it does wrong cannot hurt the run.

A batch goes to it and comes back within `reward.timeout`; what runs there is in `child.py`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from luthier.config.rewards import RewardConfig
from luthier.core.errors import FunctionError, InputError
from luthier.core.foreign.child import Child, Ended
from luthier.rewards.answer import Answer, opening

LOADING_SECONDS = 60.0  # seconds that a file may take to load, if `reward.timeout` is less


class Function:
    """A component that asks FUNCTION of FILE. A context manager: leaving it ends the process."""

    def __init__(self, spec: str, argument: str, settings: RewardConfig, kind: str = "reward") -> None:
        """Start the process and load the function; `kind` is what errors call it. Raises InputError when that fails."""
        file, _, name = argument.rpartition(":")
        self.kind, self.where, self.settings = kind, f"{kind} '{spec}'", settings
        if not file or not name.isidentifier():
            raise InputError(
                "'python' needs a file and a function", where=self.where, fix="write python:FILE.py:FUNCTION"
            )
        self.file = Path(file)
        if not self.file.is_file():
            raise InputError(f"no such file: {file}", where=self.where, fix="check the path")
        loading = max(LOADING_SECONDS, settings.timeout)
        self.child = Child("luthier.rewards.function_process", settings.memory, [file, name, str(loading)])
        try:
            self._load(loading)
        except BaseException:
            self.close()
            raise

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """One number for each answer. Raises FunctionError, with the prompt at fault where it is certain."""
        until = time.monotonic() + self.settings.timeout
        try:
            reply = self._ask(answers, self.settings.timeout)
        except Ended as ended:
            raise self._failed(ended.what, self._fix(ended), answers) from None
        if "error" not in reply:
            return [float(value) for value in reply["values"]]
        guilty = self._alone(answers, reply["kind"], until)
        fix = self._less_memory if reply["kind"] == "MemoryError" else "fix the function"
        raise self._failed(self._said(reply), fix, answers if guilty is None else [guilty])

    def close(self) -> None:
        """End the process, and what it left running."""
        self.child.close()

    def __enter__(self) -> Function:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load(self, seconds: float) -> None:
        try:
            reply = self.child.receive(seconds)
        except Ended as ended:
            raise InputError(f"did not load: {ended.what}", where=self.where, fix=self._fix(ended)) from None
        if "error" in reply:
            raise InputError(f"did not load: {self._said(reply)}", where=self.where, fix="fix the file")

    def _ask(self, answers: Sequence[Answer], seconds: float) -> dict[str, Any]:
        """What the process replies to a batch, within so many seconds. Raises Ended."""
        columns = {
            "prompts": [answer.prompt for answer in answers],
            "answers": [answer.text for answer in answers],
            "references": [answer.reference for answer in answers],
            "messages": [[{"content": turn.said, **turn.as_dict()} for turn in answer.messages] for answer in answers],
        }
        reply: dict[str, Any] = self.child.ask(columns, seconds)
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

    def _failed(self, what: str, fix: str, answers: Sequence[Answer]) -> FunctionError:
        several = f"{len(answers)} answers, the first to " if len(answers) > 1 else "an answer to "
        return FunctionError(
            f"{what}, given {several}'{opening(answers[0].prompt)}'",
            kind=self.kind, where=self.where, fix=f"{fix}, then run the same command again: nothing else is lost",
        )  # fmt: skip

    def _said(self, reply: dict[str, Any]) -> str:
        return reply["error"] + (f" ({self.file}:{reply['line']})" if reply["line"] else "")

    def _fix(self, ended: Ended) -> str:
        match ended.why:
            case "late":
                return "raise --reward.timeout or make it quicker"
            case "memory":
                return self._less_memory
            case "closed" | "reply":
                return "let it close only what it opened"
            case "status":
                return "let it return numbers instead"
        return f"if it took too much memory, raise --reward.memory above {self.settings.memory} MiB"

    @property
    def _less_memory(self) -> str:
        return f"raise --reward.memory above {self.settings.memory} MiB, or take less"
