"""Prove on a user's own run that stopping and resuming changes nothing: take the steps between two saved
checkpoints again and compare every bit. And try on a method, built-in or the user's own, what must hold of every loss."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError, Stopped
from luthier.core.stop import stopping
from luthier.core.threads import use_threads
from luthier.model.load import pick_device, pick_dtype
from luthier.runs.folder import read_run
from luthier.runs.lineage import changes, differences, known, lineage, starts
from luthier.runs.method import chosen_method
from luthier.runs.rows import read_examples
from luthier.runs.tokenizer_and_template import open_text_format
from luthier.training import checkpoint, invariants, own_method
from luthier.training import method_table as table
from luthier.tune.build import (
    TrainingJob,
    add_reference_logps,
    assemble,
    load_checkpoint,
    packing_of,
    remaining_steps,
    trained_weights,
)
from luthier.tune.evaluator import loss_of
from luthier.tune.input_hashes import inputs
from luthier.tune.memory_check import check_memory
from luthier.tune.prepare import encode_all


def method(name: str) -> dict[str, Any]:
    """Whether what must hold of every loss holds of this method's, with its usual settings: see `training/invariants.py`."""
    own_method.load(name)
    row = table.method(name)
    found = invariants.check(row, loss_of(row, RunConfig()))
    return {"method": name, "holds": all(one.holds for one in found), "checks": [asdict(one) for one in found]}


def resume(path: Path, threads: int | None = None, method: str | None = None) -> dict[str, Any]:
    """Go from the older of the last two checkpoints (or from the start, if there is one only) to the newer, and compare. On as many
    `threads` as then, unless told otherwise. `method` names the run's own where that is code of the user's, which nothing else runs.

    Nothing in the run is changed. Raises InputError when the run has no checkpoint, or its inputs changed.
    """
    folder, config = read_run(path)
    folder.sums.check_all()
    _load_method(config.method, method, path)
    if "-" in (*config.data.path, *config.data.eval):
        raise InputError("this run read standard input, which is gone", where=path, fix="verify a run on files")
    saved = checkpoint.whole(folder.checkpoints)
    if not saved:
        raise InputError(
            "no checkpoint in this run", where=folder.checkpoints, fix="train with a smaller --train.checkpoint"
        )
    newer = checkpoint.load(saved[-1])
    older = checkpoint.load(saved[-2]) if len(saved) > 1 else None
    then = newer.state.get("threads")
    use_threads(threads or then or config.threads)
    with stopping() as stop:
        examples = read_examples(config, chosen_method(config).example)
        texts = open_text_format(config)
        facts, made = lineage(config, **inputs(config, examples, texts)), folder.lineage
        for name, which in changes(known(made, facts["inputs"]), facts["inputs"]).items():
            raise InputError(
                f"the {name} changed since this run was made{f' ({which})' * bool(which)}, so its steps cannot be repeated",
                where=path, fix="put it back as it was",
            )  # fmt: skip
        job = TrainingJob(config, folder, examples, texts, encode_all(examples, texts, config, stop), stop)
        device = pick_device(config.device)
        _, job.recompute = check_memory(texts, config, job.encoded, pick_dtype(config.dtype, device), device)
        setup = assemble(job)
        if chosen_method(config).reference:
            add_reference_logps(job, setup, packing_of(config, setup.state.model), ())
        if older is not None:
            load_checkpoint(setup, older)
        first, last = setup.state.step, newer.state["step"]
        with log.progress("repeating the steps", last - first) as bar:
            for _ in remaining_steps(job, setup):
                bar.advance()
                if setup.state.step == last:
                    break
        if stop():
            raise Stopped("stopped while verifying")
        mark = newer.state.get("stream")
        if mark and list(setup.steps.state(last).get("stream", mark)) != list(mark):
            raise InputError(
                "the rows of the stream changed since this run was made, so its steps cannot be repeated", where=path,
                fix="give the rows that it learned from, or train again",
            )  # fmt: skip
    same = _equal(trained_weights(setup), newer.weights) and _equal(setup.state.optimizer.tensors(), newer.optimizer)
    largest = max(float((trained_weights(setup)[n].cpu() - w).abs().max()) for n, w in newer.weights.items())
    last_start = starts(made)[-1]
    if then:
        last_start |= {"environment": last_start.get("environment", {}) | {"threads": then}}
    return {
        "run": str(path), "from": first, "to": last, "same_bits": same, "largest_difference": largest,
        "changed_since": differences(last_start, facts),
    }  # fmt: skip


def _load_method(of_run: str, named: str | None, path: Path) -> None:
    """Load the method of a run. Raises InputError where its code was not named, or another method was."""
    if named is not None and named != of_run:
        raise InputError(f"this run learned by {of_run}, not by {named}", where=path, fix=f"give --method {of_run}")
    if of_run.startswith(table.OWN) and named is None:
        raise InputError(
            "this run learned by a method that is no part of Luthier, whose code runs only where it is named", where=path,
            fix=f"give --method {of_run}",
        )  # fmt: skip
    own_method.load(of_run)


def _equal(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name].cpu(), b[name]) for name in a)
