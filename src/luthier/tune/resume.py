"""A run that is taken up again. First, everything that it will read later is checked: what was cut, changed or removed since
is told before any step is taken, not after the last."""

from __future__ import annotations

from pathlib import Path

from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.runs.folder import JOURNALS, RunFolder
from luthier.training import checkpoint
from luthier.tune.checkpoint_selection import Progress, keeps_best


def resume_point(folder: RunFolder, config: RunConfig) -> Path | None:
    """The newest whole checkpoint, which the run goes on from; None to begin with the first step. Damaged ones are set aside.

    Raises InputError for a file of the run that is not as it was written.
    """
    folder.sums.check_all()
    path = checkpoint.newest(folder.checkpoints)
    if path is None:
        if any((folder.path / name).is_file() for name in JOURNALS):
            log.note("no checkpoint to resume from: training begins with its first step")
        return None
    state = checkpoint.state(path)
    folder.require_journals(state["journals"])
    if keeps_best(config, state["progress"]["best_step"]):
        best_checkpoint(folder)
    return path


def best_checkpoint(folder: RunFolder, progress: Progress | None = None) -> Path:
    """The checkpoint of the best step. Raises InputError when it is gone or damaged, or not of the best step of `progress`."""
    path = folder.checkpoints / "best"
    fault = checkpoint.fault(path) if path.is_dir() else "it is gone"
    if fault is None and progress and checkpoint.state(path)["step"] != progress.best_step:
        fault = f"it is not that of step {progress.best_step}"
    if fault:
        raise InputError(
            f"the best step's checkpoint cannot be used: {fault}", where=path,
            fix=f"put it back from a copy, or remove {folder.checkpoints} to train again from the first step",
        )  # fmt: skip
    return path
