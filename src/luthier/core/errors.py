"""Errors that a user can act on. Each is one line: what is wrong, where, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from luthier.core import screen
from luthier.core.secrets import hide

MAX_CHARACTERS = 600  # characters of each part of an error


class LuthierError(Exception):
    """Base of every error Luthier raises on purpose.

    `where` is a place such as `train.jsonl:12` or `--train.lr`; `fix` is what to do about it.
    The command line prints `str(error)`, which is one line whatever stands in the names that it tells, and exits with
    `exit_code`.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = _short(what), where, fix and _short(fix)
        place = f"{_short(str(where))}: " if where is not None else ""
        advice = f"; {self.fix}" if fix else ""
        super().__init__(f"{place}{self.what}{advice}")

    def __str__(self) -> str:
        return screen.line(hide(super().__str__()))


def _short(text: str) -> str:
    """Its beginning and end where it is very long: what an error quotes may be a whole file."""
    return (
        text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS * 3 // 4]} … {text[-MAX_CHARACTERS // 4 :]}"
    )


class InputError(LuthierError):
    """What the user gave is wrong: a file, a row, an option, a model. Exit status 2."""

    exit_code = 2


class Unwritable(InputError):
    """Nothing can be written there: no permission, read-only, a link or a folder in the way. Exit status 2."""


class RunError(LuthierError):
    """The work itself failed: the loss is not finite, say. Exit status 1."""


class FunctionError(RunError):
    """A `reward`, a `metric` or a `method`, as `kind` says, failed: often a function of the user's, to be corrected."""

    def __init__(self, what: str, *, kind: str, where: object = None, fix: str | None = None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.kind = kind

    @property
    def inputs(self) -> str:
        """What lineage.json calls it."""
        return self.kind if self.kind == "method" else f"{self.kind}s"


class DiskFull(RunError):
    """Nothing more can be written. The user can fix it, so the exit status is 2."""

    exit_code = 2


class Stopped(LuthierError):
    """Somebody asked to stop (Ctrl-C or SIGTERM), and everything is saved. Exit status 130."""

    exit_code = 130


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when none is close enough to be a likely typo."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return found[0] if found else None


def unknown(kind: str, name: str, names: Iterable[str], *, where: object = None) -> InputError:
    """The error for a name that is not in a closed set, with the nearest one as the fix."""
    known = sorted(names)
    guess = nearest(name, known)
    fix = f"did you mean '{guess}'?" if guess else f"known: {', '.join(known)}"
    return InputError(f"unknown {kind} '{name}'", where=where, fix=fix)
