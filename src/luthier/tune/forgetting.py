"""What a run lost beside what it learned: of general texts, of the model's own answers, of benchmarks."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from luthier.config.evaluation import EVAL_ROWS
from luthier.config.run import RunConfig, flag_of
from luthier.core import log, seeds
from luthier.core.errors import InputError, Stopped
from luthier.core.storage.files import sha256
from luthier.core.types.examples import Chat, Text
from luthier.core.types.run_result import Divergence, ForgettingFigures, Metric
from luthier.core.types.trees import TokenTree
from luthier.data import load as data_load
from luthier.data.read import files_of
from luthier.evals import forgetting as forgot
from luthier.evals.benchmarks import measure as benchmark_run
from luthier.evals.benchmarks import results
from luthier.evals.benchmarks.evaluation import BenchmarkOptions, engine
from luthier.evals.benchmarks.files import Material, from_folder
from luthier.evals.benchmarks.tasks import Task, find
from luthier.evals.metrics import measure_answers as score
from luthier.evals.stats.paired import before_after, paired
from luthier.model import memory
from luthier.runs.open import Opened
from luthier.runs.tokenizer_and_template import TextFormat
from luthier.text.encode import encode
from luthier.training.method_table import method
from luthier.tune.build import TrainingJob, packing_of
from luthier.tune.evaluator import Evaluator
from luthier.tune.prepare import load_model
from luthier.tune.retention import AnswerPairs, MeasuredRetention

Scores = dict[str, list[float]]  # benchmark -> a score for each document


@dataclass(frozen=True)
class Probes:
    """What is measured before and after beside the task itself, and the sha256 of the files it came from."""

    texts: list[TokenTree] = field(default_factory=list)
    text_files: dict[str, str] = field(default_factory=dict)
    tasks: list[tuple[Task, Material]] = field(default_factory=list)

    @property
    def inputs(self) -> dict[str, Any]:
        """What of lineage.json's inputs comes from here."""
        found = {"general": self.text_files, "benchmark": {task.name: m.files for task, m in self.tasks}}
        return {name: files for name, files in found.items() if files}


@dataclass(frozen=True)
class Distributions:
    """The tuned model's distributions over the vocabulary, [tokens, vocabulary] log-probabilities of each answer: of the
    answers it gave before it was tuned, and of those it gives now."""

    before: list[torch.Tensor]
    after: list[torch.Tensor]


def check(config: RunConfig) -> None:
    """Raise InputError for settings that cannot go together; nothing is read for it."""
    limit, general, benchmark = config.stop.forgetting, config.eval.general, config.eval.benchmark
    asked = (("stop.forgetting", limit), ("eval.general", general), ("eval.benchmark", benchmark))
    if name := next((name for name, value in asked if value), None):
        if not method(config.method).needs.logp:
            raise InputError(
                f"{config.method} makes a model that writes no text", where=flag_of(name), fix="leave it out"
            )
        if not config.eval.forgetting:
            raise InputError("--no-eval.forgetting turns this off", where=flag_of(name), fix="leave one out")
    if limit is not None and not config.eval.every:
        raise InputError(
            "forgetting is measured only at evaluations", where="--stop.forgetting", fix="give --eval.every N"
        )
    if benchmark:
        _tasks(benchmark)
    elif config.eval.benchmark_dir is not None:
        raise InputError("no benchmark is named", where="--data-dir", fix="give --tasks too")


def open_probes(config: RunConfig, texts: TextFormat) -> Probes:
    """Read and encode what `eval.general` and `eval.benchmark` name. Raises InputError when they cannot be used."""
    trees, files = _general(config, texts) if config.eval.general else ([], {})
    tasks = []
    for task in _tasks(config.eval.benchmark or ""):
        if config.eval.benchmark_dir is None:
            raise InputError(f"the files of {task.name} are not given", where="--data-dir", fix="give their folder")
        try:
            tasks.append((task, from_folder(task, Path(config.eval.benchmark_dir), task.shots)))
        except InputError as error:
            raise InputError(error.what, where=error.where, fix="give --data-dir the folder that holds it") from None
    return Probes(trees, files, tasks)


def _tasks(names: str) -> list[Task]:
    try:
        found = find(names)
    except InputError as error:
        raise InputError(error.what, where="--tasks", fix=error.fix) from None
    if texts := [task.name for task in found if task.kind == "text"]:
        raise InputError(
            f"{texts[0]} has no score for each document",
            where="--tasks",
            fix="give the text to --eval.general",
        )
    return found


def _general(config: RunConfig, texts: TextFormat) -> tuple[list[TokenTree], dict[str, str]]:
    """Trees of up to `eval.rows` rows of the user's general texts, drawn with the run's seed."""
    if "-" in config.eval.general:
        raise InputError("standard input is for the data itself", where="--eval.general", fix="give a file")
    settings = config.data.of_other_rows()
    loaded = data_load.load(config.eval.general, settings)
    if other := next((e for e in loaded.examples if not isinstance(e, (Chat, Text))), None):
        raise InputError(
            f"{loaded.layout.name} rows are neither text nor conversations", where=other.origin,
            fix="give --eval.general files of text, or of chats",
        )  # fmt: skip
    order = seeds.generator(config.seed, "general").permutation(len(loaded.examples))
    chosen = [loaded.examples[i] for i in sorted(order[: config.eval.rows or EVAL_ROWS])]
    found = encode(chosen, texts.template, texts.tokenizer, config.text, skip_bad=config.data.skip_bad)
    return found.trees, {path: sha256(Path(path)) for path in files_of(config.eval.general)}


def benchmarks(job: TrainingJob, model: Any, probes: Probes, stage: str) -> Scores:
    """The score of every document of every benchmark; read from its file when an earlier start of this run made it."""
    if not probes.tasks:
        return {}
    name = f"evals/benchmarks-{stage}.jsonl"
    if (records := job.folder.records(name)) is None:
        model.eval()
        opened = Opened(model, job.texts.tokenizer, job.texts.template, job.config)
        records = [
            record for task, material in probes.tasks for record in _measured(job, opened, task, material, stage)
        ]
        job.folder.write_records(name, records)
    return {
        task.name: [record[task.metrics[0]] for record in records if record["task"] == task.name]
        for task, _ in probes.tasks
    }


def _measured(job: TrainingJob, opened: Opened, task: Task, material: Material, stage: str) -> list[dict[str, Any]]:
    ours, limit = engine(opened, BenchmarkOptions()), job.config.eval.benchmark_limit
    found = {}
    with log.progress(f"{stage}: {task.name}", len(benchmark_run.chosen(material.documents, limit))) as bar:
        for record in benchmark_run.measure(task, material, ours, shots=task.shots, limit=limit):
            if job.stop():
                raise Stopped("stopped while measuring")
            found[record["doc"]] = {"task": task.name, **record}
            bar.advance()
    return [found[doc] for doc in sorted(found)]


def tuned_distributions(evaluator: Evaluator, after: MeasuredRetention, job: TrainingJob) -> Distributions | None:
    """What is kept of the tuned model, so that it may be gone when the one it started from is read again.

    None where it was not asked, and where there is no room for it.
    """
    if not after.own:
        return None
    tokens = sum(len(answer) for _, answer in (*after.answers, *_pairs(after.own)))
    if not _enough_memory(4 * tokens * evaluator.model.config.get_text_config().vocab_size, torch.device("cpu")):
        return None
    both = after.answers, _pairs(after.own)
    with log.progress("divergence from the starting model: tuned", sum(map(len, both))) as bar:
        return Distributions(*(evaluator.distributions(pairs, job.stop, bar) for pairs in both))


def _enough_memory(size: int, device: torch.device) -> bool:
    """Whether `size` bytes are free there; if not, say what is left out."""
    if (free := memory.available(device)) < size:
        log.warn(
            f"the divergence from the starting model is left out: it needs {log.size(size)} and {log.size(free)} are free"
        )
        return False
    return True


def _pairs(own: Sequence[forgot.OwnAnswer]) -> AnswerPairs:
    return [(one.prompt_ids, one.ids) for one in own]


def divergences(
    job: TrainingJob, after: MeasuredRetention, tuned: Distributions, weights: int, device: torch.device
) -> dict[str, Divergence] | None:
    """KL from the starting model per token, both ways, against the model as it was, which is read anew.

        on_answers_before   KL(start || tuned) at the tokens of the start's answers
        on_answers_after    KL(tuned || start) at the tokens of the tuned model's answers

    None where there is no room for its `weights` bytes and what it says.
    """
    gc.collect()  # the tuned model hangs in reference cycles
    if device.type == "cuda":
        torch.cuda.empty_cache()
    said = max(sum(view.nbytes for view in part) for part in (tuned.before, tuned.after))  # kept on the CPU
    on_cpu = device.type == "cpu"
    if not _enough_memory(weights + said * on_cpu, device) or not (on_cpu or _enough_memory(said, torch.device("cpu"))):
        return None
    starting_model = load_model(job.texts, job.config).model
    evaluator = Evaluator(
        starting_model,
        job.texts.tokenizer,
        job.texts.template,
        job.config,
        packing_of(job.config, starting_model),
        device,
    )
    out: dict[str, Divergence] = {}
    sides = (("before", after.answers, tuned.before), ("after", _pairs(after.own), tuned.after))
    with log.progress("divergence from the starting model: base", sum(len(answers) for _, answers, _ in sides)) as bar:
        for name, answers, now in sides:
            then = evaluator.distributions(answers, job.stop, bar)
            p, q = (then, now) if name == "before" else (now, then)
            sums = [(forgot.divergence(*both), len(both[0])) for both in zip(p, q, strict=True)]
            found = forgot.per_token(sums)
            out[f"on_answers_{name}"] = {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
    return out


def retention_rows(
    before: MeasuredRetention,
    after: MeasuredRetention,
    probes: Probes,
    scores: tuple[Scores, Scores],
    seed: int,
) -> list[dict[str, Any]]:
    """The table of what was not to change: general texts, benchmarks, how general prompts are answered; verdicts are
    corrected for all of them."""
    questions = []
    if before.texts:
        old, new = ([loss for _, loss, _ in measured.texts] for measured in (before, after))
        about = score.about_loss(()) | {"title": "general text, loss per token"}
        questions.append(paired("general", old, new, about, [count for _, _, count in before.texts]))
    for task, _ in probes.tasks:
        metric = results.METRICS[task.metrics[0]]
        about = {
            "title": f"{task.name}, {metric.title}", "unit": metric.unit, "top": None,
            "higher_is_better": metric.higher_is_better,
        }  # fmt: skip
        questions.append(paired(task.name, scores[0][task.name], scores[1][task.name], about))
    if before.own and after.own:
        questions += forgot.answer_style(before.own, after.own)
    return before_after(questions, seed)


def as_json(
    drift: forgot.Forgetting | None, kl: dict[str, Divergence] | None, rows: Sequence[Mapping[str, Any]], probes: Probes
) -> ForgettingFigures | None:
    """The `forgetting` of result.json; None when it was not measured."""
    if drift is None:
        return None
    figures = score.as_json(rows)
    tasks: dict[str, Metric] = {
        task.name: {"metric": task.metrics[0], **figures.pop(task.name)} for task, _ in probes.tasks
    }
    found: ForgettingFigures = {**drift.as_dict(), "kl": kl, "answers": figures}
    if probes.texts:
        found["general"] = figures.pop("general")
    if tasks:
        found["benchmarks"] = tasks
    return found


def sentences(drift: forgot.Forgetting | None, kl: Mapping[str, Any] | None) -> list[str]:
    """Lines for people."""
    lines = [drift.sentence] if drift else []
    if kl:
        one, other = (_span(kl[f"on_answers_{name}"]) for name in ("before", "after"))
        lines.append(
            f"divergence from the starting model, nats/token: {one} on its answers before, {other} on those after"
        )
    return lines


def _span(found: Mapping[str, Any]) -> str:
    interval = f" ({found['low']:z.2f} … {found['high']:z.2f})" if found["low"] is not None else ""
    return f"{found['value']:z.2f}{interval}"
