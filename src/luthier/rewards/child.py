"""The process in which a reward function of the user's runs: `python -m luthier.rewards.child FD FILE FUNCTION MIB SECONDS`.

It speaks JSON lines over the socket FD. First it says {"ready": true}; then, for each {"prompts": [...], "answers": [...],
"references": [...], "messages": [...]}, {"values": [...]}, or {"error": "ValueError: ...", "line": 12}. Standard output
is standard error here, so that what the function prints disturbs nothing. Only the standard library is imported.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.util
import inspect
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

KNOWN = ("prompts", "answers", "references", "messages")
GRACE = 10.0  # seconds that the parent has to end this process, before it does so itself


class Unfit(Exception):
    """The function, or what it returned, is not what was asked for."""


def main(descriptor: int, file: str, name: str, mib: int, seconds: float) -> None:
    """Load the function, then serve until the other end closes."""
    limit_memory(mib)
    faulthandler.enable()
    os.set_inheritable(descriptor, False)  # what the function starts must not keep the line open
    sys.argv = [file]
    with socket.socket(fileno=descriptor) as line, line.makefile("rb") as requests:
        try:
            with watched(seconds):
                function = load(file, name)
        except BaseException as error:
            send(line, describe(error, file))
            return
        send(line, {"ready": True})
        for request in requests:
            columns = json.loads(request)
            try:
                with watched(seconds):
                    reply: dict[str, Any] = {"values": numbers(function(**columns))}
            except BaseException as error:
                reply = describe(error, file)
            send(line, reply)


def send(line: socket.socket, reply: Mapping[str, Any]) -> None:
    """Answer, after what the function printed."""
    sys.stdout.flush()
    line.sendall(json.dumps(reply).encode() + b"\n")


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[None]:
    """End this process when the block takes too long and nobody is left to end it: even C code that never returns."""
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def limit_memory(mib: int) -> None:
    """Let this process allocate so many MiB of data, where the system can hold it to that (Linux does)."""
    with contextlib.suppress(ImportError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = mib << 20
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))


def load(file: str, name: str) -> Callable[..., Any]:
    """The function, taking the columns by name and leaving out those that it does not ask for."""
    sys.path.insert(0, os.path.dirname(file))
    spec = importlib.util.spec_from_file_location(f"reward_{Path(file).stem}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        there = [n for n, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == spec.name]
        raise Unfit(f"no function '{name}'" + (f"; there are: {', '.join(there)}" if there else " in the file"))
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return function
    wanted = [p.name for p in parameters if p.name in KNOWN and p.kind is not p.POSITIONAL_ONLY]
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if strange := [p.name for p in needed if p.name not in wanted]:
        raise Unfit(f"'{name}' asks for '{strange[0]}', and is given {', '.join(KNOWN)} by name")
    return lambda **columns: function(**{key: columns[key] for key in wanted})


def numbers(values: Any) -> list[float]:
    """What a function returned as floats: a list, a tuple, an array, a tensor."""
    if values is None or isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        raise Unfit(f"it returned {type(values).__name__}, not a list of numbers")
    out = []
    for value in values:
        if value is None or isinstance(value, (str, bytes)):
            raise Unfit(f"it returned {type(value).__name__} where a number should stand")
        out.append(float(value))
    return out


def describe(error: BaseException, file: str) -> dict[str, Any]:
    """An exception on one line, with the last line of the user's file that it passed through."""
    if isinstance(error, SystemExit):
        what = f"it called sys.exit({'' if error.code is None else repr(error.code)})"
    elif isinstance(error, Unfit):
        what = str(error)
    else:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == file else (lines or [None])[-1]
    return {"error": " ".join(what.split())[:300], "kind": type(error).__name__, "line": line}


if __name__ == "__main__":
    descriptor, file, name, mib, seconds = sys.argv[1:]
    main(int(descriptor), os.path.abspath(file), name, int(mib), float(seconds))
