"""A training run from its settings to its result, in phases that each leave a file: killed anywhere, the same
command goes on from there and ends with the same bits.

    before      evals/before.jsonl    the untouched model on held-out rows
    training    checkpoints/          step by step
    export      adapter/ or model/    in PEFT's or transformers' format
    after       evals/after.jsonl     the tuned model on the same rows
    result      data.json             what the rows are
                errors/records.jsonl  what is wrong with the answers
                report.html           the page of the run
                result.json           what `--json` prints
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, cast

import torch

from luthier.config.run import RunConfig, flag_of
from luthier.core import log
from luthier.core.errors import FunctionError, InputError, Stopped
from luthier.core.stop import stopping
from luthier.core.storage.sums import damaged
from luthier.core.threads import use_threads
from luthier.core.types.examples import Chat
from luthier.core.types.run_result import DataCounts, RunResult
from luthier.data.data_card import outline
from luthier.diagnose import errors
from luthier.evals import forgetting as forgot
from luthier.evals.metrics.answer_metrics import chosen_metrics
from luthier.evals.metrics.measure_answers import as_json
from luthier.evals.metrics.user_metrics import check as own_metrics
from luthier.model import load as model_load
from luthier.model import memory
from luthier.model.adapt import lora
from luthier.report.reward_over_divergence import judge_confirmation
from luthier.runs import export, tracking
from luthier.runs.base_model import base_facts
from luthier.runs.folder import RESULT, locked, place, understood
from luthier.runs.held_out_rows import stage_file
from luthier.runs.lineage import lineage
from luthier.runs.method import chosen_method, refuse_unread, warn_of_unread
from luthier.runs.rows import data_name, read_examples, require_data
from luthier.runs.start_run import note_failure, open_run
from luthier.runs.tokenizer_and_template import open_text_format
from luthier.training import own_method
from luthier.tune import before_after, evaluation_cost, forgetting, policy_models, run_summary, warnings
from luthier.tune.build import (
    TrainingJob,
    TrainingSetup,
    add_reference_logps,
    assemble,
    packing_of,
    planned_steps,
    require_same_stream,
)
from luthier.tune.checkpoint_selection import CheckpointSelector, Progress, selected_step
from luthier.tune.evaluator import Evaluator
from luthier.tune.held_out import HeldOut, Measured, from_records, is_complete, to_records
from luthier.tune.input_hashes import inputs
from luthier.tune.memory_check import check_memory, check_offload
from luthier.tune.prepare import check_model, encode_all, load_model
from luthier.tune.resume import resume_point
from luthier.tune.retention import AnswerPairs
from luthier.tune.training_steps import take_steps
from luthier.tune.write_report import DATA
from luthier.tune.write_report import write_run_page as write_report

METRIC_ROWS = 5000  # training rows that 'auto' metrics are chosen by


@dataclass(frozen=True)
class TrainingOutcome:
    """What is left of a run when its model is gone. `size` is that of the untouched model in bytes, `read` what was read of
    a stream."""

    held_out: HeldOut
    before: Measured
    after: Measured
    scores: tuple[forgetting.Scores, forgetting.Scores]
    distributions: forgetting.Distributions | None
    size: int
    device: torch.device
    figures: RunResult
    read: dict[str, Any]


def run(config: RunConfig, show: Any = None, began: float | None = None) -> RunResult:
    """Do the run, or the rest of it, and return its result (the keys of `--json`, documented in docs/run.md).

    `show(name, value)` is told of results as they come: 'ready', 'before', 'after'. The run's time counts from `began`, of the
    monotonic clock, where its data was read before this call.
    """
    began = time.monotonic() if began is None else began
    use_threads(config.threads)
    _check_settings(config)
    own = {"metrics": found} if (found := own_metrics(config.eval.metrics, config.reward)) else {}
    require_data(config)
    texts = open_text_format(config)
    check_model(texts, config)
    examples = read_examples(
        config, chosen_method(config).example
    ).compared()  # nothing is written yet: a signal may end it
    examples.tell()
    with stopping() as stop:
        encoded = encode_all(examples, texts, config, stop)
        if config.eval.patience and not encoded.test:
            raise InputError(
                "no row is held out to decide when to stop",
                where="--eval.patience",
                fix="give --data.eval or --data.holdout",
            )
        probes = forgetting.open_probes(config, texts)
        facts = lineage(config, **inputs(config, examples, texts), **probes.inputs, **own)
        quant = texts.resolved.config.quant if texts.resolved.quantized else None
        run_path = place(config, data_name(config.data.path))
        facts["start"] = base_facts(texts.resolved.source, texts.resolved.config.text, quant, run_path)
        folder = open_run(config, data_name(config.data.path), facts)
        job = TrainingJob(config, folder, examples, texts, encoded, stop)
        with locked(folder):
            if (done := folder.result) is not None:
                folder.sums.check_all()
                if examples.stream:
                    require_same_stream(job)
                done |= {"run": str(folder.path)}  # it may have been moved
                log.note(f"this run is finished: {folder.path}")
                if show:
                    show("done", done)
                return done
            try:
                job.latest_checkpoint = resume_point(folder, config)
                job.tracker = tracking.open_tracker(config, folder)
                return _phases(job, probes, show or (lambda name, value: None), began)
            except InputError:
                folder.remove_if_unused()
                raise
            except FunctionError as error:
                note_failure(folder, error.inputs)
                raise
            except Stopped as stopped:
                raise Stopped(
                    f"{stopped.what}; everything so far is in {folder.path}",
                    fix="run the same command again to continue",
                ) from None
            finally:
                job.close_rewards()
                if job.tracker:
                    job.tracker.close()


def _check_settings(config: RunConfig) -> None:
    """Refuse now, before anything is read, what would fail or do nothing after training."""
    own_method.load(config.method)
    chosen_method(config)
    chosen_metrics(config.eval.metrics, ())
    refuse_unread(config)
    policy_models.check_rewards(config)
    warn_of_unread(config)
    _needs_evaluations(config)
    forgetting.check(config)
    check_offload(config)
    tracking.check(config.track)


def _needs_evaluations(config: RunConfig) -> None:
    """Raise InputError for settings that look at a model measured in the middle, where none is."""
    asked = {"policy.kl_budget": config.policy.kl_budget, "eval.patience": config.eval.patience}
    if not config.eval.every and (name := next((name for name, value in asked.items() if value), None)):
        raise InputError(
            "this is decided when the model is measured during training",
            where=flag_of(name),
            fix="give --eval.every N",
        )


def _phases(job: TrainingJob, probes: forgetting.Probes, show: Any, began: float) -> RunResult:
    config, folder, method = job.config, job.folder, chosen_method(job.config)
    unit = "nats per token" if method.is_likelihood else ""
    outcome = _train(job, probes, unit, show)
    held_out, before, after = outcome.held_out, outcome.before, outcome.after
    drift = forgot.forgetting(before.retention.logps, after.retention.logps) if before.retention.logps else None
    kl = (
        forgetting.divergences(job, after.retention, outcome.distributions, outcome.size, outcome.device)
        if outcome.distributions
        else None
    )
    retention = forgetting.retention_rows(before.retention, after.retention, probes, outcome.scores, config.seed)
    rows = before_after.compare(held_out, before, after, _metrics(job, held_out), config)
    result: RunResult = {
        "run": str(folder.path),
        "seconds": round(time.monotonic() - began, 2),
        **outcome.figures | {"peak_memory_bytes": memory.peak(outcome.device)},
        "metrics": as_json(rows),
        "forgetting": forgetting.as_json(drift, kl, retention, probes),
        "data": cast(DataCounts, job.encoded.counts | outcome.read),
    }
    if (share := warnings.equal_rewards(folder.records("metrics.jsonl") or ())) is not None:
        warnings.warn_of_rewards(share)
        result["equal_rewards"] = round(share, 4)
    if (found := judge_confirmation(rows)) is not None:
        warnings.report_judge(found)
        result["judge"] = found
    if method.needs.score:
        result["reward_model"] = before_after.reward_model_figures(held_out, after)
    run_summary.write_plots(folder, rows, unit)
    if job.tracker:
        job.tracker.finish(result)
    diagnose_run(job, result)
    folder.write_json(RESULT, result)
    show(
        "after",
        {
            "rows": rows, "prompts": held_out.prompts, "references": held_out.references, "before": before.answers,
            "after": after.answers, "forgetting": forgetting.sentences(drift, kl), "lost": retention, "result": result,
        },
    )  # fmt: skip
    return result


def diagnose_run(job: TrainingJob, result: RunResult) -> None:
    """What the data was and what is wrong with the answers, and the page that shows it."""
    lengths = [sum(len(node.ids) for node in tree.nodes) for tree in job.encoded.train]
    about = outline(job.examples.train, lengths, job.examples.layout)
    job.folder.write_json(DATA, about | job.examples.facts())
    result["findings"] = errors.record(job.folder, job.config, job.examples.train, job.examples.test)
    for item in result["findings"]:
        log.warn(f"{item['text']}; look at `luthier errors {job.folder.path} --category {item['category']}`")
    write_report(job.folder, job.config, result)


def _train(job: TrainingJob, probes: forgetting.Probes, unit: str, show: Any) -> TrainingOutcome:
    """Load, measure, train, export, measure. When it returns, the model is gone and its memory free."""
    config, folder, method = job.config, job.folder, chosen_method(job.config)
    device = model_load.pick_device(config.device)
    dtype = model_load.pick_dtype(config.dtype, device)
    estimate, job.recompute = check_memory(job.texts, config, job.encoded, dtype, device)
    warnings.warn_of_steps(config, planned_steps(job))
    loaded = load_model(job.texts, config)
    packing = packing_of(config, loaded.model)
    evaluator = Evaluator(loaded.model, job.texts.tokenizer, job.texts.template, config, packing, device)
    evaluator.system = job.encoded.system_prompts.common() or evaluator.system
    size = sum(parameter.nbytes for parameter in loaded.model.parameters())
    show("ready", run_summary.run_summary(job))
    setup = None
    if method.reference or method.needs.score or method.online:  # what it measures, the bare model does not have
        setup = assemble(job, loaded)
        evaluator.rewards, evaluator.judge = job.rewards, job.judge
    cost = evaluation_cost.estimate(job)
    evaluator.rows, evaluator.samples = sizes = cost.sizes(config.eval.rows, config.eval.samples)
    held_out = evaluator.held_out(job.examples.test, job.encoded.test)
    evaluation_cost.note_fewer_rows(job, sizes, held_out)
    selection_rows = _selection_rows(job, evaluator, held_out)
    if setup and method.reference:
        trees = add_reference_logps(
            job, setup, packing, [*held_out.trees, *(selection_rows.trees if selection_rows else ())]
        )
        selection_rows = selection_rows and replace(selection_rows, trees=trees[len(held_out.trees) :])
        held_out = replace(held_out, trees=trees[: len(held_out.trees)])
    everything = replace(held_out, general_texts=probes.texts)
    evaluator.on_pace = partial(evaluation_cost.announce, cost, everything, config)
    own = config.eval.forgetting and method.needs.logp
    before = _measured(job, evaluator, everything, "before", None if own else ())
    evaluator.on_pace = None
    scores = forgetting.benchmarks(job, loaded.model, probes, "before")
    show("before", run_summary.baseline_summary(before, held_out, unit, _metrics(job, held_out), config))
    setup = setup or assemble(job, loaded)
    total = sum(p.numel() for p in loaded.model.parameters())
    progress = take_steps(
        job,
        setup,
        CheckpointSelector(job, setup, evaluator, selection_rows or held_out, before, _metrics(job, held_out)),
    )
    systems = (job.stream_counts if job.examples.stream else job.encoded).system_prompts
    export.write(folder, setup.tuned, loaded, job.texts.template, config, systems.common())
    plain = config.tune == "lora" and next(loaded.model.parameters()).dtype == torch.float32
    if plain and not policy_models.shares_policy_base(job.rewards) and not policy_models.shares_policy_base(job.judge):
        lora.merge(loaded.model)  # the same sums, rounded once; and generation is faster
    after = _measured(job, evaluator, everything, "after", before.retention.answers, own=own)
    figures = _figures(config, setup, progress, after, total) | {"estimated_memory_bytes": estimate.total}
    tuned = forgetting.benchmarks(job, loaded.model, probes, "after")
    distributions = forgetting.tuned_distributions(evaluator, after.retention, job)
    job.close_rewards()  # a reward model may hold the model that it shares
    return TrainingOutcome(
        held_out, before, after, (scores, tuned), distributions, size, device, figures, progress.read
    )


def _figures(config: RunConfig, setup: TrainingSetup, progress: Progress, after: Measured, size: int) -> RunResult:
    """What the steps came to and took, for result.json."""
    online = chosen_method(config).online
    return {
        "steps": setup.state.step, "tokens": progress.passed,
        "tokens_per_second": round(progress.passed / progress.seconds, 1) if progress.seconds else None,
        "example_tokens": progress.tokens,
        "trainable": setup.tuned.trainable, "parameters": size,
        "loss": {"first": progress.first, "last": progress.last, "eval": after.loss},
        "kept": selected_step(config, progress, setup.state.step, online=online),
        **({"kl_per_answer": progress.drift} if online else {}),
    }  # fmt: skip


def _selection_rows(job: TrainingJob, evaluator: Evaluator, held_out: HeldOut) -> HeldOut | None:
    """The rows that the best step is chosen by: others than those reported, where at least half as many are left; else
    None. What is chosen by the rows it is reported on looks better than it is."""
    if not job.config.eval.every:
        return None
    if job.config.policy.kl_budget and not held_out.rows:
        raise InputError(
            "no held-out prompt to choose a checkpoint by", where="--policy.kl_budget", fix="hold out rows, with --eval.samples above 0"
        )  # fmt: skip
    found = evaluator.held_out(job.examples.test, job.encoded.test, beside=held_out)
    if 2 * len(found.trees) >= len(held_out.trees) and 2 * len(found.rows) >= len(held_out.rows):
        return found
    log.warn(
        "too few rows are held out to choose the best step on rows other than those reported, "
        "so the results look a little better than they are; hold out more, or lower --eval.rows"
    )
    return None


def _metrics(job: TrainingJob, held_out: HeldOut) -> tuple[str, ...]:
    """The metrics of this run; 'auto' looks at the answers of the training rows too, of which there are more."""
    chats = islice((e for e in job.examples.train if isinstance(e, Chat)), METRIC_ROWS)
    learned = [chat.messages[-1].content for chat in chats]
    return chosen_metrics(job.config.eval.metrics, learned or held_out.references)


def _measured(
    job: TrainingJob, evaluator: Evaluator, held_out: HeldOut, stage: str, general: AnswerPairs | None,
    own: bool = False,
) -> Measured:  # fmt: skip
    """The measurement of one stage, read from its file when an earlier start of this run made it."""
    name = stage_file(stage)
    if (records := job.folder.records(name)) is not None:
        with understood(job.folder):
            found = from_records(records)
        if not is_complete(held_out, found):
            raise damaged(job.folder.path / name, "it is not of all of this run's held-out rows")
        return found
    measured = evaluator.measure(held_out, job.stop, general, title=stage, own=own, again=True)
    job.folder.write_records(name, to_records(held_out, measured))
    return measured
