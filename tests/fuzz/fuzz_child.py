"""Cases in a forked process that may neither hang, nor take much memory, nor touch what is not theirs.

A case is a function of a seed and a folder. It may end well or raise a LuthierError of one line. Everything else is a
failure: any other exception, SystemExit, a panic of a library, more than DEADLINE seconds, more than MEMORY bytes, a line on
standard output, a traceback on standard error, and, seen by an audit hook, a file written or removed outside of the
folder, a pickled file opened, a pickle read, a connection, a program started.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from luthier.core.errors import LuthierError

DEADLINE = 8  # seconds of computing for one case: what hangs takes minutes or for ever
WAITING = 40  # seconds on the clock, of a case that waits for something, on a machine with much else to do
MEMORY = 1 << 30  # bytes of memory beyond what the process has when it begins
LINE = 2000  # characters of the longest error
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
Case = Callable[[int, Path], object]


@dataclass(frozen=True)
class Failure:
    """A case that went wrong: its seed, what happened, and the folder with its input."""

    reader: str
    seed: int
    what: str
    folder: Path

    def __str__(self) -> str:
        return f"{self.reader} with seed {self.seed}: {self.what}\n  its input: {self.folder}"


@dataclass(frozen=True)
class Ran:
    """How many cases were run, how many of them were taken and how many refused in one line, and those that went wrong."""

    reader: str
    cases: int
    taken: int
    refused: int
    failures: tuple[Failure, ...]

    def __str__(self) -> str:
        return f"{self.reader:<24} {self.cases:>7,} cases  {self.taken:>7,} taken  {self.refused:>7,} refused  {len(self.failures)} failed"


def run(reader: str, case: Case, seeds: Sequence[int], saved: Path, *, seconds: float = 1e9, most: int = 5) -> Ran:
    """Run the case with each of the seeds, as many as begin within `seconds`. Inputs of failures are kept below `saved`; after
    `most` of them no more is run."""
    failures: list[Failure] = []
    counts = {"taken": 0, "refused": 0}
    begun, until = 0, time.monotonic() + seconds
    rest = list(seeds)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        while rest and len(failures) < most and time.monotonic() < until:
            place = Path(scratch) / f"{reader}-{begun}"
            place.mkdir()
            current, ends = None, None
            for event in _forked(reader, case, rest, place, until):
                if "seed" in event:
                    current, ends = int(event["seed"]), None
                    begun += 1
                    continue
                ends = event["ends"]
                if ends in counts:
                    counts[ends] += 1
                    current = None
            if current is None:
                break  # all of them ended, or the time is over
            kept = saved / f"{reader}-{current}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(place / "case", kept, symlinks=True, ignore_dangling_symlinks=True)
            what = ends or _last_words(place)
            failures.append(Failure(reader, current, what, kept))
            rest = rest[rest.index(current) + 1 :]
    return Ran(reader, begun, counts["taken"], counts["refused"], tuple(failures))


def _forked(reader: str, case: Case, seeds: Sequence[int], place: Path, until: float) -> Iterator[dict[str, Any]]:
    """Run the cases in a child, until the first that goes wrong; what it says of each."""
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _live(case, seeds, place, write, until)
    os.close(write)
    try:
        with os.fdopen(read, encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
    finally:
        for group in (True, False):
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL) if group else os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _last_words(place: Path) -> str:
    """What a child that ended by a signal left of itself."""
    said = (place / "stderr").read_text(encoding="utf-8", errors="replace").strip()
    stuck = (place / "stuck").read_text(encoding="utf-8", errors="replace").strip()
    if stuck.startswith("Fatal Python error"):
        return f"the process crashes:\n{stuck[:3000]}"
    if stuck:
        return f"it hangs (more than {DEADLINE} s of computing, or {WAITING} s of waiting):\n{stuck[:3000]}"
    return f"the process ended: {said[-3000:] or 'without a word'}"


def _live(case: Case, seeds: Sequence[int], place: Path, write: int, until: float) -> NoReturn:
    """The life of a child: the cases one after the other, in `place`/case."""
    os.setsid()
    folder = place / "case"
    folder.mkdir()
    (place / "cwd").mkdir()
    os.chdir(place / "cwd")
    os.environ["TMPDIR"] = tempfile.tempdir = str(place / "cwd")
    os.environ["LUTHIER_CACHE"] = str(folder / "cache")
    out, err = (os.open(place / name, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600) for name in ("stdout", "stderr"))
    os.dup2(out, 1)
    os.dup2(err, 2)
    # These are open for as long as the process lives.
    sys.stdout, sys.stderr, stuck = (
        open(to, "w", encoding="utf-8", closefd=not isinstance(to, int), buffering=1, errors="backslashreplace")  # noqa: SIM115
        for to in (1, 2, place / "stuck")
    )
    faulthandler.enable(stuck)
    faulthandler.register(signal.SIGXCPU, file=stuck, all_threads=False, chain=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_data() + MEMORY, resource.RLIM_INFINITY))
    sys.dont_write_bytecode = True  # a module that is read here first would be compiled beside the program
    watch = Watch(folder)
    sys.addaudithook(watch)
    status = 0
    for seed in seeds:
        if time.monotonic() > until:
            break
        _say(write, {"seed": seed})
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + DEADLINE
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        faulthandler.dump_traceback_later(WAITING, exit=True, file=stuck)
        ends = _one(case, seed, folder, watch)
        faulthandler.cancel_dump_traceback_later()
        ends = _noise(ends, place, out, err)
        _say(write, {"ends": ends})
        if ends not in ("taken", "refused"):
            status = 1
            break
        with watch.off():
            shutil.rmtree(folder)
            folder.mkdir()
    os._exit(status)


def _say(write: int, event: dict[str, Any]) -> None:
    os.write(write, json.dumps(event).encode() + b"\n")


def _one(case: Case, seed: int, folder: Path, watch: Watch) -> str:
    """How a case ends."""
    watch.seen = None
    try:
        case(seed, folder)
        ends = "taken"
    except LuthierError as error:
        text = str(error)
        ends = "refused"
        if len(text) > LINE or not text.strip():
            ends = f"an error of {len(text):,} characters: {text[:300]}"
    except MemoryError:
        ends = f"out of memory ({MEMORY >> 20} MiB more than at first):\n{traceback.format_exc(limit=-6)}"
    except BaseException as error:  # panics of Rust are no Exception
        where = traceback.extract_tb(error.__traceback__)
        shown = "".join(traceback.format_list(where[-12:]))
        ends = f"{type(error).__module__}.{type(error).__name__}: {str(error)[:300]}\n{shown}"
    return watch.seen or ends


def _noise(ends: str, place: Path, out: int, err: int) -> str:
    """What was printed that nobody should see."""
    printed, said = ((place / name).read_text(encoding="utf-8", errors="replace") for name in ("stdout", "stderr"))
    for handle in (out, err):
        os.ftruncate(handle, 0)
    if ends in ("taken", "refused"):
        if printed:
            return f"it prints on standard output: {printed[:300]!r}"
        if bad := next((word for word in ("Traceback", "panicked", "\x1b", "Warning:") if word in said), None):
            return f"it prints {bad!r} on standard error: {said[:600]!r}"
    return ends


def _data() -> int:
    """Bytes of memory that this process may write to now, as RLIMIT_DATA counts them."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))


class Watch:
    """An audit hook (see sys.addaudithook): stops what a reader must not do, and remembers that it was tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.realpath(folder)
        self.allowed = (self.folder, os.path.realpath(folder.parent / "cwd"), "/dev/null", "/dev/tty")
        self.seen: str | None = None
        self.quiet = False

    @contextmanager
    def off(self) -> Iterator[None]:
        self.quiet = True
        yield
        self.quiet = False

    def __call__(self, event: str, values: tuple[Any, ...]) -> None:
        if self.quiet or (found := self.fault(event, values)) is None:
            return
        self.seen = self.seen or f"{found}:\n{''.join(traceback.format_stack(limit=9)[:-1])}"
        raise PermissionError(found)

    def fault(self, event: str, values: tuple[Any, ...]) -> str | None:
        if event == "open":
            path, mode, flags = values
            writes = (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)) or (
                isinstance(mode, str) and set(mode) & set("wax+")
            )
            if isinstance(path, int):
                return None
            if writes:
                return None if self._inside(path) else f"it writes {path}"
            return f"it reads {path}" if _text(path).endswith(PICKLED) else None
        if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
                     "shutil.rmtree", "shutil.move", "shutil.copyfile"):  # fmt: skip
            changed = {"os.rename": values[:2], "os.link": values[1:2], "os.symlink": values[1:2], "shutil.copyfile": values[1:2],
                       "shutil.move": values[:2]}.get(event, values[:1])  # fmt: skip
            if odd := [path for path in changed if not isinstance(path, int) and not self._inside(path)]:
                return f"it changes {odd[0]} ({event})"
        if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname"):
            address = values[-1] if event in ("socket.connect", "socket.bind") else values[0]
            return (
                None
                if isinstance(address, (str, bytes)) and event == "socket.connect"
                else f"it asks the network for {address}"
            )
        if event in ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "webbrowser.open"):
            return f"{event} {values[:2]}"
        if event == "subprocess.Popen":
            program, line = values[0], [str(part) for part in values[1]]
            ours = os.path.realpath(str(program)) == os.path.realpath(sys.executable) and "luthier" in " ".join(line)
            return None if ours else f"it starts {line}"
        return None

    def _inside(self, path: Any) -> bool:
        real = os.path.realpath(_text(path))
        return any(real == place or real.startswith(place + os.sep) for place in self.allowed)


def _text(path: Any) -> str:
    return os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
