"""Benchmarks of a model or a run: files -> records on disk -> scores. The same command goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from luthier.core import log
from luthier.core.errors import InputError, nearest, unknown
from luthier.core.storage.opening import require_writable
from luthier.core.threads import use_threads
from luthier.core.types.examples import Message
from luthier.evals.benchmarks import files, results
from luthier.evals.benchmarks.encode import HarnessTokenizer
from luthier.evals.benchmarks.measure import MAX_NEW_TOKENS, Engine, Record, chosen, measure
from luthier.evals.benchmarks.prompts import Shots
from luthier.evals.benchmarks.task_records import TaskRecords
from luthier.evals.benchmarks.tasks import SUBJECTS, SUITES, SuiteColumn, Task, find
from luthier.evals.likelihood import LikelihoodScorer
from luthier.evals.prefix_forest import Ids
from luthier.generate.generate import generate
from luthier.generate.sampling import Sampling
from luthier.model import memory
from luthier.model.folder.limits import longest_input
from luthier.model.memory import GPU_TOKENS
from luthier.runs.folder import RunFolder, locked
from luthier.runs.open import Opened, open_model, weights
from luthier.text.tokenizer import SEPARATOR

WRITTEN_AT_ONCE = 32  # answers that are generated side by side


@dataclass(frozen=True)
class BenchmarkOptions:
    """What the user wants measured. `texts` are the files of the task perplexity; `tokens` the most of a forward pass. `base` and
    `system` are those of `open_model`."""

    tasks: str = ""
    suite: str | None = None
    shots: int | None = None
    data_dir: Path | None = None
    hub: bool = False
    texts: tuple[str, ...] = ()
    limit: int | None = None
    chat: bool = False
    out: Path | None = None
    tokens: int | None = None  # by default 2048 on a processor, 8192 on a GPU
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    base: str | None = None
    system: str | None = None


@dataclass(frozen=True)
class TaskFiles:
    """One task with its files and number of examples."""

    task: Task
    shots: int
    material: files.Material


def evaluate(model: str, asked: BenchmarkOptions) -> dict[str, Any]:
    """Measure `model` and return what `--json` prints.

    Everything that can be wrong with the input is found before the model is loaded.
    """
    asked = _with_suite(asked)
    entries = _suite(asked.suite)
    jobs = tasks_of(asked, entries)
    folder = asked.out or _folder(model)
    require_writable(folder / "records.jsonl")
    places = [folder / f"{_name(job, asked.chat)}.jsonl" for job in jobs]
    for place in places:
        files.card_of(place)
    use_threads(asked.threads)
    opened = open_model(model, device=asked.device, dtype=asked.dtype, base=asked.base, system=asked.system)
    opened.model.eval()
    ours = engine(opened, asked)
    result: dict[str, Any] = {
        "model": model, "chat_template": asked.chat, "template": opened.template.name if asked.chat else None,
        "dtype": str(opened.model.dtype).removeprefix("torch."), "tasks": {}, "subjects": {}, "shots": {}, "files": {},
        "truncated": {}, "records": {}, "notes": {},
    }  # fmt: skip
    identity = _identity(opened, model, asked)
    scores: dict[str, results.Scores] = {}
    measured, seconds = 0, 0.0
    with locked(RunFolder(folder)):
        for job, place in zip(jobs, places, strict=True):
            name, began = job.task.name, time.monotonic()
            kept = TaskRecords(place, about_task(job, identity), model)
            count = len(kept.found)
            records = _records(job, ours, kept, asked.limit)
            measured, seconds = measured + len(kept.found) - count, seconds + time.monotonic() - began
            scores[name] = results.summary(job.task, records)
            groups = {key: results.as_json(part) for key, part in results.by_group(job.task, records).items()}
            result["tasks"][name] = results.as_json(scores[name])
            result["subjects"] |= {name: groups} if groups else {}
            result["shots"][name], result["files"][name] = job.shots, job.material.files
            result["truncated"][name] = sum(record["cut"] > 0 for record in records)
            result["records"][name] = str(kept.path)
            result["notes"] |= {name: note} if (note := _note(job, scores[name])) else {}
            kept.close({"metrics": result["tasks"][name], "subjects": groups})
    if entries:
        result["suite"] = _column(asked.suite or "", entries, scores)
    return result | {
        "seconds": round(seconds, 3), "documents": measured,
        "documents_per_second": round(measured / seconds, 3) if measured else None,
        "peak_memory_bytes": memory.peak(opened.model.device),
    }  # fmt: skip


def _with_suite(asked: BenchmarkOptions) -> BenchmarkOptions:
    """A suite among the tasks stands for itself."""
    names = [name.strip() for name in asked.tasks.split(",")]
    if near := next((name for name in names if name not in SUITES and nearest(name, SUITES)), None):
        raise unknown("task", near, SUITES, where="--tasks")
    suite = next((name for name in names if name in SUITES), asked.suite)
    return replace(asked, suite=suite, tasks=",".join(name for name in names if name not in SUITES))


def _suite(name: str | None) -> tuple[SuiteColumn, ...]:
    if name is not None and name not in SUITES:
        raise unknown("suite", name, SUITES, where="--suite")
    return SUITES[name] if name else ()


def tasks_of(asked: BenchmarkOptions, entries: Sequence[SuiteColumn]) -> list[TaskFiles]:
    """The tasks with their files read, suites first. A suite says where shots come from, so none is drawn too much."""
    if asked.hub and asked.data_dir is not None:
        raise InputError("--hub and --data-dir cannot both be given", fix="give one of them")
    wanted = [(replace(task, spare=False), entry.shots) for entry in entries for task in find(entry.task)]
    known = {task.name for task, _ in wanted}
    named = find(asked.tasks)
    if asked.shots is not None and known and all(task.name in known for task in named):
        raise InputError(
            f"the suite {asked.suite} has its own examples", where="--shots", fix="leave it out, or name tasks instead"
        )
    for task in named:
        shots = task.shots if task.fixed or asked.shots is None else asked.shots
        if asked.shots and task.fixed:
            log.warn(f"{task.name} is always measured with {task.shots} examples, as the harness does")
        wanted += [(task, shots)] if task.name not in known else []
    if not wanted:
        raise InputError(
            "nothing to measure", fix="give --tasks, such as --tasks arc_easy,mmlu, or --tasks leaderboard"
        )
    jobs = [TaskFiles(task, shots, _material(task, shots, asked)) for task, shots in wanted]
    for job in jobs:
        Shots(job.task, job.material, job.shots)  # raises where there are too few
    return jobs


def _material(task: Task, shots: int, asked: BenchmarkOptions) -> files.Material:
    if not task.files:
        if not asked.texts:
            raise InputError(f"{task.name} needs texts", where="--text", fix="give some, such as --text notes.txt")
        return files.from_texts(task, asked.texts)
    if asked.hub:
        return files.from_hub(task, shots)
    if asked.data_dir is None:
        raise InputError(
            f"the files of {task.name} are not given", where="--data-dir",
            fix="give the folder that holds them, or --hub to fetch them",
        )  # fmt: skip
    return files.from_folder(task, asked.data_dir, shots)


def _records(job: TaskFiles, engine: Engine, kept: TaskRecords, limit: int | None) -> list[Record]:
    """The records of the job's documents, those measured before among them, in the order of the documents."""
    wanted = chosen(job.material.documents, limit)
    main = job.task.metrics[0]
    total, hits = 0, 0.0
    with log.progress(f"{job.task.name}, {job.shots} shots", len(wanted)) as bar:
        bar.start_at(sum(index in kept.found for index in wanted))
        for record in measure(job.task, job.material, engine, shots=job.shots, limit=limit, done=set(kept.found)):
            kept.add(record)
            total, hits = total + 1, hits + record.get(main, 0.0)
            bar.advance(1, **({main: hits / total} if main in record else {}))
    return [kept.found[index] for index in wanted]


def engine(opened: Opened, asked: BenchmarkOptions) -> Engine:
    """The model as benchmarks ask it."""
    tokens = asked.tokens or (2048 if opened.model.device.type == "cpu" else GPU_TOKENS)
    scorer = LikelihoodScorer(opened.model, longest_input(opened.model.config, opened.tokenizer.fast), tokens)
    return Engine(
        scorer,
        HarnessTokenizer(opened.tokenizer),
        partial(_write, opened),
        partial(chat_text, opened) if asked.chat else None,
    )


def _write(opened: Opened, prompts: Sequence[Ids], stops: Sequence[str]) -> list[str]:
    """Greedy answers, up to a stop string or an end token of the model."""
    texts = tuple(dict.fromkeys((*stops, *filter(None, [opened.tokenizer.eos]))))
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS, stop_ids=end_ids(opened), stop=texts)
    answers = generate(opened.model, prompts, sampling, opened.tokenizer.decode, batch=WRITTEN_AT_ONCE)
    return [answer.text for answer in answers]


def end_ids(opened: Opened) -> tuple[int, ...]:
    """The tokens that end a text: the model's own and the tokenizer's, whatever the template."""
    ends = opened.model.generation_config.eos_token_id
    found = {*(ends if isinstance(ends, list) else [ends]), opened.tokenizer.eos_id}
    return tuple(sorted(token for token in found if token is not None))


def chat_text(opened: Opened, messages: Sequence[Message]) -> str:
    """The model's turn is next. A run is asked under the system prompt it was trained with."""
    system, rest = opened.config.text.system, list(messages)
    if system and rest and rest[0].role == "system":
        rest[0] = Message("system", f"{system}\n\n{rest[0].content}")
    elif system:
        rest.insert(0, Message("system", system))
    return opened.template.render(rest, prompt=True).replace(SEPARATOR, "")


def _folder(model: str) -> Path:
    """`evals` of a run, or evals/MODEL here."""
    path = Path(model)
    if (path / "run.yaml").is_file():
        return path / "evals"
    name = path.resolve().name if path.exists() else model
    return Path("evals") / "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def _name(job: TaskFiles, chat: bool) -> str:
    """The file of a task's records: other shots and chat have files of their own."""
    shots = f"-{job.shots}shot" if job.shots != job.task.shots else ""
    return f"{job.task.name}{shots}{'-chat' if chat else ''}"


def _identity(opened: Opened, model: str, asked: BenchmarkOptions) -> dict[str, Any]:
    """What the records are of, besides the task: weights, type, template."""
    chat = {"template": opened.template.fingerprint, "system": opened.config.text.system} if asked.chat else {}
    dtype = str(opened.model.dtype).removeprefix("torch.")
    made = {"weights": weights(model, asked.base), "tokenizer": opened.tokenizer.fingerprint()}
    return {**made, "dtype": dtype, "chat_template": asked.chat, **chat}


def about_task(job: TaskFiles, identity: dict[str, Any]) -> dict[str, Any]:
    """What makes records the same. With `spare` other examples are drawn: a suite's are not those of the task alone."""
    about = {"task": job.task.name, "shots": job.shots, "spare": job.task.spare, "files": job.material.files}
    return about | identity


def _note(job: TaskFiles, scores: results.Scores) -> str:
    notes = []
    found = {document.group for document in job.material.documents} & set(SUBJECTS)
    if found and not job.task.group and len(found) < len(SUBJECTS):
        notes.append(f"{len(found)} of {len(SUBJECTS)} subjects")
    if job.shots and not job.material.own_shots and job.task.shot_files:
        notes.append("no file of examples found: they are drawn from the measured documents, each without itself")
    if beyond := [results.METRICS[key].title for key, score in scores.items() if score.value == inf]:
        notes.append(f"{', '.join(beyond)}: more than a number holds")
    return "; ".join(notes)


def _column(name: str, entries: Sequence[SuiteColumn], scores: dict[str, results.Scores]) -> dict[str, Any]:
    mean = results.average(entries, scores)
    return {
        "name": name,
        "average": results.as_json({"average": mean})["average"],
        "columns": {
            entry.title: {
                "task": entry.task, "shots": entry.shots, "metric": entry.metric,
                **results.as_json(scores[entry.task])[entry.metric],
            }
            for entry in entries
        },
    }  # fmt: skip
