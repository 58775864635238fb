"""The lines of metrics.jsonl in a tracker too: TensorBoard, Trackio or Weights & Biases, whichever the user asked for.

A tracker follows the journal and remembers how many of its lines it has passed on. A run that goes on makes the lines
after its last checkpoint again, with the same numbers; those that were passed on before are passed over.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.secrets import said_by_server
from luthier.core.storage.files import read_json, write_json
from luthier.core.types.run_result import RunResult
from luthier.runs.folder import RunFolder

PROJECT = "luthier"
Values = Mapping[str, float]


@dataclass(frozen=True)
class Sender:
    """An open tracker: `log(values, step)`, and `close()`."""

    log: Callable[[Values, int], None]
    close: Callable[[], None]


class Tracker:
    """Passes a run's metrics on, each line once. `tracking.json` in the run's folder remembers where it is."""

    def __init__(self, name: str, folder: RunFolder, config: RunConfig) -> None:
        self.journal, self.card = folder.path / "metrics.jsonl", folder.path / "tracking.json"
        self.state = read_state(self.card)
        if self.state.get("tracker") != name:  # a new one begins with the first step
            self.state = {"tracker": name, "id": uuid4().hex[:8], "lines": 0, "finished": False}
        self.failed = False
        self.seen = self.place = 0  # lines and bytes of the journal that this start has gone through
        with redirect_stdout(sys.stderr):  # standard output belongs to results
            try:
                self.sender = SENDERS[name](folder.path, f"{folder.path.name}-{self.state['id']}", config)
            except Exception as error:  # whatever its client raises: no account, no network
                raise InputError(
                    f"{name} does not start: {reason_of(error)}", where="--track", fix="fix that, or leave it out"
                ) from error

    def follow(self) -> None:
        """Pass on the lines that are new in metrics.jsonl. A tracker that fails is left alone from then on: the run
        matters more."""
        if not self.journal.is_file() or self.failed:
            return
        before = self.state["lines"]
        with open(self.journal, encoding="utf-8") as lines:
            lines.seek(self.place)
            while line := lines.readline():
                self.seen += 1
                if self.seen > self.state["lines"]:
                    record = json.loads(line)
                    if not self._send(named(record), record["step"]):
                        break
                    self.state["lines"] = self.seen
            self.place = lines.tell()
        if self.state["lines"] != before:
            write_json(self.card, self.state)

    def finish(self, result: RunResult) -> None:
        """Pass on what is left, and the figures before and after."""
        self.follow()
        if not self.state["finished"] and not self.failed and self._send(final(result), result["steps"]):
            self.state["finished"] = True
            write_json(self.card, self.state)

    def close(self) -> None:
        """Let it finish its work."""
        with redirect_stdout(sys.stderr):
            self._try(self.sender.close)

    def _send(self, values: Values, step: int) -> bool:
        with redirect_stdout(sys.stderr):
            return self._try(lambda: self.sender.log(values, step))

    def _try(self, work: Callable[[], None]) -> bool:
        """Do it, or say why not: True when it was done."""
        try:
            work()
        except Exception as error:  # whatever its client raises: a full disk, no network
            self.failed = True
            log.warn(f"{self.state['tracker']} failed ({reason_of(error)}): nothing more is sent to it")
        return not self.failed


def read_state(card: Path) -> dict[str, Any]:
    """What was passed on. Raises InputError for a damaged file."""
    try:
        found = read_json(card) if card.is_file() else {}
    except (ValueError, RecursionError):
        found = None
    kinds = {"tracker": str, "id": str, "lines": int, "finished": bool}
    if not isinstance(found, dict) or (found and not all(isinstance(found.get(k), kind) for k, kind in kinds.items())):
        raise InputError(
            "the record of what the tracker received cannot be read", where=card,
            fix="put it back from a copy, or remove it: then all lines are sent again",
        )  # fmt: skip
    return found


def reason_of(error: Exception) -> str:
    """The first line of what a client or its server says, without the keys of the environment."""
    return (said_by_server(str(error)).strip().splitlines() or [type(error).__name__])[0][:160]


def check(name: str) -> None:
    """Raise InputError when the tracker's package is not installed."""
    if name != "none" and importlib.util.find_spec(name) is None:
        raise InputError(f"{name} is not installed", where="--track", fix=f"pip install {name}")


def open_tracker(config: RunConfig, folder: RunFolder) -> Tracker | None:
    """The tracker that the settings name, None for none."""
    return None if config.track == "none" else Tracker(config.track, folder, config)


def named(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl, as train/NAME of a step and eval/NAME of an evaluation."""
    group = "train" if "loss" in record else "eval"
    numbers = {name: value for name, value in record.items() if name != "step" and isinstance(value, int | float)}
    return {f"{group}/{name.removeprefix('eval_')}": float(value) for name, value in numbers.items()}


def final(result: RunResult) -> dict[str, float]:
    """The figures of result.json that a tracker shows of a finished run: before/NAME, after/NAME, forgetting."""
    out = {f"{side}/{name}": float(m[side]) for side in ("before", "after") for name, m in result["metrics"].items()}
    if (forgetting := result["forgetting"]) and "drift" in forgetting:
        out["after/forgetting"] = float(forgetting["drift"])
    return out


def _tensorboard(folder: Path, name: str, config: RunConfig) -> Sender:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))

    def log(values: Values, step: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)
        writer.flush()

    return Sender(log, writer.close)


def _trackio(folder: Path, name: str, config: RunConfig) -> Sender:
    import trackio

    run = trackio.init(project=PROJECT, name=name, resume="allow", config=config.model_dump(mode="json"))
    return Sender(lambda values, step: run.log(dict(values), step=step), run.finish)


def _wandb(folder: Path, name: str, config: RunConfig) -> Sender:
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT), name=folder.name, id=name.rpartition("-")[2], resume="allow",
        dir=str(folder), config=config.model_dump(mode="json"),
    )  # fmt: skip
    return Sender(lambda values, step: run.log(dict(values), step=step), run.finish)


SENDERS: dict[str, Callable[[Path, str, RunConfig], Sender]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
}
