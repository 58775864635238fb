"""The process in which a reward function of the user's runs.

It is started as `python -m luthier.rewards.function_process FD MIB FILE FUNCTION SECONDS`, and speaks JSON lines over the socket FD (see
`core/foreign/service.py`). First it says {"ready": true}; then, for each {"prompts": [...], "answers": [...], "references": [...],
"messages": [...]}, {"values": [...]}, or {"error": "ValueError: ...", "line": 12}. Standard output is standard error here, so
that what the function prints disturbs nothing. Only the standard library is imported.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from luthier.core.foreign.service import Line, limit_memory, watched

ARGUMENT_NAMES = ("prompts", "answers", "references", "messages")


class UnfitFunction(Exception):
    """The function, or what it returned, is not what was asked for."""


def main(descriptor: int, mib: int, file: str, name: str, seconds: float) -> None:
    """Load the function, then serve until the other end closes."""
    limit_memory(mib)
    faulthandler.enable()
    sys.argv = [file]
    line = Line(descriptor)
    try:
        with watched(seconds):
            function = load(file, name)
    except BaseException as error:
        line.send(describe(error, file))
        return
    line.send({"ready": True})
    for columns in line:
        assert isinstance(columns, dict)
        try:
            with watched(seconds):
                reply: dict[str, Any] = {"values": numbers(function(**columns))}
        except BaseException as error:
            reply = describe(error, file)
        sys.stdout.flush()  # what the function printed stands before what comes of its answer
        line.send(reply)


def load(file: str, name: str) -> Callable[..., Any]:
    """The function, taking the columns by name and leaving out those that it does not ask for."""
    sys.path[:0] = [os.path.dirname(file), os.getcwd()]
    spec = importlib.util.spec_from_file_location(f"reward_{Path(file).stem}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        there = [n for n, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == spec.name]
        raise UnfitFunction(f"no function '{name}'" + (f"; there are: {', '.join(there)}" if there else " in the file"))
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return function
    wanted = [p.name for p in parameters if p.name in ARGUMENT_NAMES and p.kind is not p.POSITIONAL_ONLY]
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if strange := [p.name for p in needed if p.name not in wanted]:
        raise UnfitFunction(f"'{name}' asks for '{strange[0]}', and is given {', '.join(ARGUMENT_NAMES)} by name")
    return lambda **columns: function(**{key: columns[key] for key in wanted})


def numbers(values: Any) -> list[float]:
    """What a function returned as floats: a list, a tuple, an array, a tensor."""
    if values is None or isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        raise UnfitFunction(f"it returned {type(values).__name__}, not a list of numbers")
    out = []
    for value in values:
        if value is None or isinstance(value, (str, bytes)):
            raise UnfitFunction(f"it returned {type(value).__name__} where a number should stand")
        out.append(float(value))
    return out


def describe(error: BaseException, file: str) -> dict[str, Any]:
    """An exception on one line, with the last line of the user's file that it passed through."""
    if isinstance(error, SystemExit):
        what = f"it called sys.exit({'' if error.code is None else repr(error.code)})"
    elif isinstance(error, UnfitFunction):
        what = str(error)
    else:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == file else (lines or [None])[-1]
    return {"error": " ".join(what.split())[:300], "kind": type(error).__name__, "line": line}


if __name__ == "__main__":
    descriptor, mib, file, name, seconds = sys.argv[1:]
    main(int(descriptor), int(mib), os.path.abspath(file), name, float(seconds))
