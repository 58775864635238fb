"""A training run from its settings to its result, in phases that each leave a file: killed anywhere, the same
command goes on from there and ends with the same bits.

    before      evals/before.jsonl    the untouched model on held-out rows
    training    checkpoints/          step by step
    export      adapter/ or model/    in PEFT's or transformers' format
    after       evals/after.jsonl     the tuned model on the same rows
    result      result.json           what `--json` prints
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from luthier.app import export, measure
from luthier.app.folder import RunFolder, file_digests, lineage, locked, open_run
from luthier.app.prepare import (
    Examples,
    Ready,
    Texts,
    check_memory,
    chosen_method,
    data_name,
    encode_all,
    learning_rate,
    load_model,
    open_texts,
    read_examples,
    use_threads,
)
from luthier.app.stop import Stop, stopping
from luthier.core import log, seeds
from luthier.core.config import RunConfig
from luthier.core.errors import Stopped
from luthier.core.files import write_json
from luthier.evals import forgetting as forgot
from luthier.evals.score import as_json
from luthier.model import load as model_load
from luthier.model import lora, memory, tune
from luthier.model.forward import forward
from luthier.report import plot
from luthier.text.weigh import RULES
from luthier.train import checkpoint
from luthier.train.loop import Report, State, train
from luthier.train.optim import Optimizer
from luthier.train.steps import OfflineSteps, Packing


@dataclass
class Run:
    """A run under way: its folder, settings and parts."""

    config: RunConfig
    folder: RunFolder
    examples: Examples
    texts: Texts
    ready: Ready
    stop: Stop


@dataclass
class Progress:
    """What a run carries from step to step beside its weights; saved with every checkpoint."""

    passed: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first: float | None = None
    last: float | None = None
    best: float | None = None
    best_step: int = 0
    worse: int = 0


def run(config: RunConfig, examples: Examples | None = None, show: Any = None) -> dict[str, Any]:
    """Do the run, or the rest of it, and return its result (the keys of `--json`, documented in docs/run.md).

    `examples` replaces reading `config.data.path` (the quickstart makes its own). `show(name, value)` is told
    of results as they come: 'ready', 'before', 'after'.
    """
    use_threads(config)
    method = chosen_method(config)
    with stopping() as stop:
        examples = examples or read_examples(config, method.example)
        texts = open_texts(config)
        ready = encode_all(examples, texts, config, stop)
        facts = lineage(
            config, data=file_digests(examples.files), model=texts.source.digests(),
            template=texts.template.fingerprint, tokenizer=texts.tokenizer.fingerprint(),
        )  # fmt: skip
        folder = open_run(config, data_name(config.data.path) if config.data.path else "quickstart", facts)
        job = Run(config, folder, examples, texts, ready, stop)
        with locked(folder):
            if (done := folder.result) is not None:
                log.note(f"this run is finished: {folder.path}")
                return done
            try:
                return _phases(job, show or (lambda name, value: None))
            except Stopped as stopped:
                raise Stopped(
                    f"{stopped.what}; everything so far is in {folder.path}", mend="run the same command again to go on"
                ) from None


def _phases(job: Run, show: Any) -> dict[str, Any]:
    config, folder = job.config, job.folder
    began = time.monotonic()
    device = model_load.pick_device(config.device)
    check_memory(job.texts, config, model_load.pick_dtype(config.dtype, device), device)
    loaded = load_model(job.texts, config)
    packing = Packing(config.train.tokens, _pad_to(loaded.model))
    ruler = measure.Ruler(loaded.model, job.texts.tokenizer, job.texts.template, config, packing, device)
    held_out = ruler.held_out(job.examples.test, job.ready.test)
    show("ready", _opening(job))

    before = _measured(job, ruler, held_out, "before", None if config.eval.forgetting else ())
    show("before", {"loss": before.loss, "prompts": held_out.prompts, "answers": before.answers})
    seeds.seed_torch(config.seed, "adapter")
    tuned = tune.prepare(loaded.model, config.tune, config.lora, config.quant)
    total = sum(p.numel() for p in loaded.model.parameters())
    state, progress = _train(job, tuned, ruler, held_out, packing)
    export.write(folder, tuned, loaded, job.texts.template, config)
    if tune.is_adapter(config.tune) and next(loaded.model.parameters()).dtype == torch.float32 and config.tune == "lora":
        lora.merge(loaded.model)  # the same sums, rounded once; and generation is faster
    after = _measured(job, ruler, held_out, "after", before.general_ids)

    rows = measure.compare(held_out, before, after, config)
    lost = forgot.forgetting(before.general, after.general, seed=config.seed) if before.general else None
    result = {
        "run": str(folder.path),
        "seconds": round(time.monotonic() - began, 2),
        "steps": state.step,
        "tokens": progress.passed,
        "tokens_per_second": round(progress.passed / progress.seconds, 1) if progress.seconds else None,
        "example_tokens": progress.tokens,
        "peak_memory_bytes": memory.peak(),
        "trainable": tuned.trainable,
        "parameters": total,
        "loss": {"first": progress.first, "last": progress.last, "eval": after.loss},
        "metrics": as_json(rows),
        "forgetting": lost.as_dict() if lost else None,
        "kept": {"step": progress.best_step or state.step, "why": "best held-out loss" if progress.best_step else "last"},
        "data": job.ready.counts,
    }
    _pictures(folder, rows)
    write_json(folder.path / "result.json", result)
    show(
        "after",
        {
            "rows": rows, "prompts": held_out.prompts, "references": held_out.references, "before": before.answers,
            "after": after.answers, "forgetting": lost.sentence if lost else None, "result": result,
        },
    )  # fmt: skip
    return result


def _opening(job: Run) -> dict[str, Any]:
    """What is about to happen, for the screen."""
    counts = job.ready.counts
    return {
        "run": str(job.folder.path),
        "data": f"{counts['rows']:,} rows to learn from, {counts['held_out']:,} held out ({job.examples.layout})",
        "model": f"{job.texts.source.name}, template {job.texts.template.name}",
        "tune": f"{job.config.method}, {job.config.tune}",
    }


def _measured(
    job: Run, ruler: measure.Ruler, held_out: measure.HeldOut, stage: str, general: measure.General | None
) -> measure.Measured:
    """The measurement of one stage, read from its file when an earlier start of this run made it."""
    name = f"evals/{stage}.jsonl"
    if (records := job.folder.records(name)) is not None:
        return measure.from_records(records)
    measured = ruler.measure(held_out, job.stop, general, title=stage)
    job.folder.write_records(name, measure.to_records(held_out, measured))
    return measured


def _train(
    job: Run, tuned: tune.Tuned, ruler: measure.Ruler, held_out: measure.HeldOut, packing: Packing
) -> tuple[State, Progress]:
    """All remaining steps. Saves every `checkpoint` steps, at the end, and when asked to stop."""
    config, folder = job.config, job.folder
    trees = job.ready.train
    total = config.train.steps * config.train.batch if config.train.steps else round(config.train.epochs * len(trees))
    steps = OfflineSteps(trees, config.train.batch, max(1, total), RULES[config.train.weigh], packing, config.seed)
    rates = {name: config.lora.lr_ratio for name in tuned.parameters if name.endswith(".B")}
    state = State(tuned.model, Optimizer(tuned.parameters, config.train, rates))
    progress = _go_on(folder, state, tuned)
    rate = learning_rate(config, tuned.model.config.hidden_size)  # type: ignore[union-attr, arg-type]
    log.note(
        f"training {tuned.trainable:,} weights in {len(steps)} steps of {config.train.batch} examples, "
        f"learning rate {rate:g}" + (f", going on from step {state.step}" if state.step else "")
    )
    method = chosen_method(config)
    with log.progress("training", len(steps)) as bar:
        bar.start_at(state.step)
        try:
            for report in train(
                state, steps, method.loss, forward, config.train, lr=rate, seed=config.seed, device=ruler.device, cancelled=job.stop
            ):
                _note(folder, progress, report, bar)
                last = report.step == len(steps)
                if config.eval.every and (last or report.step % config.eval.every == 0):
                    if _evaluate(job, tuned, ruler, held_out, progress, report.step):
                        break
                if last or report.step % config.train.checkpoint == 0:
                    _save(job, state, tuned, progress)
        except Stopped:
            _save(job, state, tuned, progress)
            raise
    if (folder.checkpoints / "best" / "manifest.json").is_file():
        _put(tuned, checkpoint.load(folder.checkpoints / "best").weights)
    return state, progress


def _note(folder: RunFolder, progress: Progress, report: Report, bar: log.Bar) -> None:
    """Keep a step's figures and show them."""
    progress.passed += report.passed
    progress.tokens += report.tokens
    progress.seconds += report.seconds
    progress.first = report.loss if progress.first is None else progress.first
    progress.last = report.loss
    folder.append(
        "metrics.jsonl",
        {
            "step": report.step, "loss": report.loss, "lr": report.lr, "gradient_norm": report.norm,
            "tokens": progress.passed, "tokens_per_second": round(report.passed / report.seconds, 1),
            "memory_bytes": memory.peak(), **report.metrics,
        },
    )  # fmt: skip
    folder.append("losses.jsonl", {"step": report.step, "rows": [[row, round(nats, 4), n] for row, nats, n in report.rows]})
    rate = f"{progress.passed / progress.seconds:.0f}"
    bar.advance(1, loss=f"{report.loss:.3f}", **{"tokens/s": rate}, memory=log.size(memory.peak()))


def _evaluate(
    job: Run, tuned: tune.Tuned, ruler: measure.Ruler, held_out: measure.HeldOut, progress: Progress, step: int
) -> bool:
    """Measure in the middle of training, keep the best weights; True when it is time to stop early."""
    measured = ruler.measure(held_out, job.stop, (), title=f"step {step}")
    loss = measured.loss
    record: dict[str, Any] = {"step": step, "eval_loss": loss}
    if measured.answers:
        for row in measure.compare(held_out, measured, measured, job.config):
            if row["name"] != "loss":
                record[row["name"]] = row["after"]
        for prompt, answer in list(zip(held_out.prompts, measured.answers, strict=True))[:5]:
            job.folder.append("samples.jsonl", {"step": step, "prompt": prompt, "answer": answer})
    job.folder.append("metrics.jsonl", record)
    if loss is None:
        return False
    if progress.best is None or loss < progress.best:
        progress.best, progress.best_step, progress.worse = loss, step, 0
        checkpoint.write(job.folder.checkpoints / "best", _weights(tuned), {}, {"step": step, "eval_loss": loss})
    else:
        progress.worse += 1
    log.note(f"step {step}: held-out loss {loss:.4f}" + (f", best {progress.best:.4f} at step {progress.best_step}" if progress.worse else ""))
    return bool(job.config.eval.patience) and progress.worse >= job.config.eval.patience


def _weights(tuned: tune.Tuned) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in tuned.parameters.items()}


def _save(job: Run, state: State, tuned: tune.Tuned, progress: Progress) -> None:
    marks = job.folder.marks()
    checkpoint.save(
        job.folder.checkpoints, state.step, _weights(tuned), state.optimizer.tensors(),
        {"t": state.optimizer.t, "progress": vars(progress), "journals": marks}, job.config.train.keep,
    )  # fmt: skip


def _go_on(folder: RunFolder, state: State, tuned: tune.Tuned) -> Progress:
    """Take up the newest whole checkpoint, and cut the journals back to it."""
    saved = checkpoint.latest(folder.checkpoints)
    if saved is None:
        folder.cut({})
        return Progress()
    _put(tuned, saved.weights)
    state.optimizer.load(saved.optimizer, saved.state["t"])
    state.step = saved.state["step"]
    folder.cut(saved.state["journals"])
    return Progress(**saved.state["progress"])


@torch.no_grad()
def _put(tuned: tune.Tuned, weights: dict[str, torch.Tensor]) -> None:
    for name, parameter in tuned.parameters.items():
        parameter.copy_(weights[name])


def _pad_to(model: Any) -> int:
    """Row lengths are padded where a new length costs a compilation: bfloat16 on a CPU."""
    parameter = next(model.parameters())
    return 128 if parameter.device.type == "cpu" and parameter.dtype == torch.bfloat16 else 1


def _pictures(folder: RunFolder, rows: Sequence[dict[str, Any]]) -> None:
    records = folder.records("metrics.jsonl") or []
    losses = [(r["step"], r["loss"]) for r in records if "loss" in r]
    evals = [(r["step"], r["eval_loss"]) for r in records if r.get("eval_loss") is not None]
    if losses:
        plot.loss_curve(losses, evals, "training loss", folder.path / "loss.svg")
    if rows:
        plot.before_after_bars(rows, folder.path / "table.svg")
