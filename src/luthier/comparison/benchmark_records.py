"""The same documents of benchmarks for every model: the records that `luthier eval` left, read again."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log as ln
from pathlib import Path
from typing import Any

import numpy as np

from luthier.comparison.changes import Item, QuestionItems
from luthier.core import log
from luthier.core.errors import InputError, nearest
from luthier.core.foreign.forms import LARGEST_NUMBER
from luthier.core.storage.opening import regular
from luthier.core.storage.sums import SUM, checked
from luthier.data.read import read_rows
from luthier.data.size_limits import MAX_ROW_BYTES
from luthier.evals.benchmarks import files
from luthier.evals.benchmarks.tasks import GROUPS, SUITES, TASKS
from luthier.evals.stats.intervals import Values
from luthier.evals.stats.paired import Question

NOT_METRICS = {
    "doc",
    "gold",
    "logp",
    "pick",
    "pick_norm",
    "cut",
    "tokens",
    "words",
    "bytes",
}  # numbers, but none to compare
# What must be the same for scores to be compared, and what it is called. With `spare` other examples are drawn.
MUST_AGREE = {
    "files": "files",
    "shots": "shots",
    "spare": "examples",
    "chat_template": "chat template",
    "dtype": "dtype",
}


@dataclass(frozen=True)
class Records:
    """The records of one task by document, and what its card says of how they were made."""

    path: Path
    by_doc: dict[int, dict[str, Any]]
    card: dict[str, Any]


def questions(sides: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> list[QuestionItems]:
    """What is compared of every task (see `_task_questions`) on the documents that all runs have; 'all' is every task that all
    have. The name of a suite stands for its columns, each with the metric that counts, and their average.

    Raises InputError for records that are missing, with the command that makes them, broken, or of other files or shots.
    """
    suite = tasks[0] if len(tasks) == 1 and tasks[0] in SUITES else None
    if suite:
        tasks = suite_tasks(suite)
    tasks = list(dict.fromkeys(member for task in tasks for member in GROUPS.get(task, (task,))))
    folders = {label: [_folder(name, tasks) for name in names] for label, names in sides.items()}
    measured_tasks = [set(_tasks(folder)) for runs in folders.values() for folder in runs]
    if tuple(tasks) == ("all",):
        tasks = sorted(set.intersection(*measured_tasks))
        if not tasks:
            raise InputError("no task was measured for all", where="--tasks", fix="run `luthier eval` for each")
    out: list[QuestionItems] = []
    for i, task in enumerate(tasks):
        found = {label: [_read(folder, task, name, tasks) for folder, name in zip(runs, sides[label], strict=True)]
                 for label, runs in folders.items()}  # fmt: skip
        _require_same_conditions(found, task)
        out += _task_questions(task, found, SUITES[suite][i].metric if suite else None)
    if suite:
        out.append(_average(suite, [one.question for one in out]))
    return out


def suite_tasks(name: str) -> list[str]:
    """The names of the records that `luthier eval` of a suite leaves."""
    return [
        entry.task if entry.shots == TASKS[entry.task].shots else f"{entry.task}-{entry.shots}shot"
        for entry in SUITES[name]
    ]


def eval_command(name: str, tasks: Sequence[str], all_tasks: Sequence[str] = ()) -> str:
    """The commands that make the records of these tasks, named as files of records are. Where `all_tasks`, of which these are
    some, are those of a suite, it is the command of the suite, which draws examples in its own way."""
    for suite in SUITES:
        if set(all_tasks or tasks) == set(suite_tasks(suite)):
            return f"luthier eval {name} --tasks {suite} --data-dir FOLDER"
    tasks_by_options: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        task_name, shots, chat = re.fullmatch(r"(.*?)(?:-(\d+)shot)?(-chat)?", task).groups()  # type: ignore[union-attr]
        options = (*(("--shots", shots) if shots else ()), *(("--chat",) if chat else ()))
        options = ("--text FILE" if task_name == "perplexity" else "--data-dir FOLDER", *options)
        tasks_by_options.setdefault(options, []).append(task_name)
    return ", ".join(
        f"luthier eval {name} --tasks {','.join(names)} {' '.join(options)}"
        for options, names in tasks_by_options.items()
    )


def _folder(name: str, tasks: Sequence[str]) -> Path:
    """Where the records of a model or run are: the folder itself, its `evals`, or evals/NAME as `luthier eval` makes it."""
    plain_name = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    for path in (Path(name) / "evals", Path(name), Path("evals") / Path(name).name, Path("evals") / plain_name):
        if path.is_dir() and _tasks(path):
            return path
    wanted = ["NAMES"] if tuple(tasks) == ("all",) else tasks
    raise InputError("no benchmark records", where=name, fix=f"make them: {eval_command(name, wanted)}")


def _tasks(folder: Path) -> list[str]:
    """The tasks with records in a folder: the JSONL files whose lines have a `doc`. Lines that name their `task` are of a
    run's own --tasks, several in one file."""
    out = []
    for path in sorted(folder.glob("*.jsonl")):
        if not path.is_file():
            continue
        with open(path, "rb", opener=regular) as lines:
            try:
                first = json.loads(lines.readline(MAX_ROW_BYTES))
            except (ValueError, RecursionError):
                continue
        if isinstance(first, dict) and "doc" in first and "task" not in first:
            out.append(path.stem)
    return out


def _read(folder: Path, task: str, name: str, all_tasks: Sequence[str]) -> Records:
    path = folder / f"{task}.jsonl"
    if not path.is_file():
        known = _tasks(folder)
        guess = nearest(task, known)
        fix = f"did you mean '{guess}'? Else make them: " if guess else "make them: "
        fix = f"{fix}{eval_command(name, [task], all_tasks)}; there are: {', '.join(known)}"
        raise InputError(f"no records of '{task}'", where=folder, fix=fix)
    by_doc = {}
    for row in read_rows([str(path)]):
        doc = row.fields.get("doc")
        if not isinstance(doc, int):
            raise InputError("a record without the number 'doc'", where=row.origin, fix="run `luthier eval` again")
        for key, value in row.fields.items():
            if isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
                raise InputError(f"'{key}' is {value:.3g}", where=row.origin, fix=files.MEASURE_ANEW)
        by_doc[doc] = row.fields
    return Records(path, by_doc, _card(path, by_doc))


def _card(path: Path, by_doc: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """What `luthier eval` says of its records. Raises InputError where it is damaged or gone, or the records are."""
    card = path.with_suffix(".json")
    if not card.is_file():
        if any(SUM in record for record in by_doc.values()):
            raise InputError(
                f"{card.name}, which says how these records were made, is gone", where=path, fix=files.MEASURE_ANEW
            )
        return {}
    try:
        content = json.loads(card.read_bytes())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(
            "this does not match the records of `luthier eval`: the file was changed",
            where=card,
            fix=files.MEASURE_ANEW,
        )
    content = checked(content, card, files.MEASURE_ANEW)
    files.require_records(path, content)
    return content


def _require_same_conditions(found: Mapping[str, Sequence[Records]], task: str) -> None:
    """Raise InputError where two sides were measured on other files, with other shots or in another type of numbers."""
    first, *rest = [records for runs in found.values() for records in runs]
    for other in rest:
        for key in MUST_AGREE:
            one, two = _comparable(first.card.get(key)), _comparable(other.card.get(key))
            if key in first.card and key in other.card and one != two:
                values = "" if key in ("files", "spare") else f": {two}, not {one}"
                raise InputError(
                    f"{task} was measured with other {MUST_AGREE[key]} than in {first.path}{values}", where=other.path,
                    fix="measure both in the same way",
                )  # fmt: skip


def _comparable(value: Any) -> Any:
    """What must be equal of a value of a card: of files their hashes, wherever they lie."""
    if isinstance(value, dict):
        return sorted(str(item) for item in value.values())
    return value


def _task_questions(task: str, found: Mapping[str, Sequence[Records]], metric: str | None) -> list[QuestionItems]:
    """The metric that counts in a suite. Else every share of the records, such as acc, and the logarithm of the perplexity of
    words, where they are of words; of texts, bits per byte."""
    docs = _shared(task, [records for runs in found.values() for records in runs])
    first = next(iter(found.values()))[0]
    record = first.by_doc[docs[0]]
    names = [key for key, value in record.items() if key not in NOT_METRICS and isinstance(value, int | float)]
    try:
        if metric == "acc_subjects":
            return [_by_subject(task, docs, found)]
        if metric or names:
            out = [_share(task, key, docs, found) for key in ([metric] if metric else names)]
            words = not metric and isinstance(record.get("logp"), float)
            return [*out, _weighed(task, "log_perplexity", "log of the perplexity", docs, found)] if words else out
        sizes = np.array([float(first.by_doc[doc]["bytes"]) for doc in docs])
        return [_weighed(task, "bits_per_byte", "bits per byte", docs, found, sizes)]
    except (KeyError, TypeError, ValueError) as error:
        what = f"the records of {task} do not all have {error}"
        raise InputError(what, where=first.path, fix="measure it again") from None


def _share(task: str, key: str, docs: Sequence[int], found: Mapping[str, Sequence[Records]]) -> QuestionItems:
    share = Question(f"{task} {key}", _values(key, docs, found), title=f"{task} {key}", unit="%", top=1.0)
    return QuestionItems(share, [_item(doc, found, "pick_norm" if key == "acc_norm" else "pick") for doc in docs])


def _weighed(
    task: str,
    name: str,
    title: str,
    docs: Sequence[int],
    found: Mapping[str, Sequence[Records]],
    sizes: Values | None = None,
) -> QuestionItems:
    """Minus the log-likelihoods: in nats and their mean, or with the `sizes` in bytes in bits, by the byte."""
    values = _values("logp", docs, found, -1.0 if sizes is None else -1 / ln(2))
    question = Question(f"{task} {name}", values, sizes, f"{task}, {title}", higher_is_better=False)
    return QuestionItems(question, [_item(doc, found, "pick") for doc in docs])


def _by_subject(task: str, docs: Sequence[int], found: Mapping[str, Sequence[Records]]) -> QuestionItems:
    """The plain mean of the accuracy of G subjects, as `luthier eval` has it: a document of a subject of n weighs 1 / (G n)."""
    plain, name = _share(task, "acc", docs, found), f"{task} acc_subjects"
    by_doc = next(iter(found.values()))[0].by_doc
    subjects = [by_doc[doc]["group"] for doc in docs]
    sizes = Counter(subjects)
    weights = np.array([1 / (len(sizes) * sizes[subject]) for subject in subjects])
    values = {label: right * weights for label, right in plain.question.values.items()}
    return replace(plain, question=replace(plain.question, name=name, title=name, values=values, weights=weights))


def _average(suite: str, columns: Sequence[Question]) -> QuestionItems:
    """The mean of the columns of a suite over the items of all: each weighs what it does in its column, over the columns."""
    count, name = len(columns), f"{suite} average"
    sizes = [next(iter(column.values.values())).shape[1] for column in columns]
    weights = [np.ones(n) if c.weights is None else c.weights for c, n in zip(columns, sizes, strict=True)]
    totals = [part.sum() * count for part in weights]
    values = {
        label: np.concatenate([c.values[label] / total for c, total in zip(columns, totals, strict=True)], axis=1)
        for label in columns[0].values
    }
    shares = np.concatenate([part / total for part, total in zip(weights, totals, strict=True)])
    return QuestionItems(Question(name, values, shares, name, unit="%", top=1.0), ())


def _values(
    key: str, docs: Sequence[int], found: Mapping[str, Sequence[Records]], factor: float = 1.0
) -> dict[str, Values]:
    """label -> [runs, documents] of a number of the records."""
    return {
        label: factor * np.array([[float(run.by_doc[doc][key]) for doc in docs] for run in runs])
        for label, runs in found.items()
    }


def _shared(task: str, all_records: Sequence[Records]) -> list[int]:
    """The documents that all have. Raises InputError when there are none, and when one of them asks something else."""
    docs = sorted(set.intersection(*(set(records.by_doc) for records in all_records)))
    if not docs:
        what = f"no document of {task} was measured for all"
        raise InputError(what, where=all_records[0].path, fix="measure the same ones")
    most = max(len(records.by_doc) for records in all_records)
    if len(docs) < most:
        log.note(f"{task}: {len(docs):,} of {most:,} documents were measured for all")
    first = all_records[0].by_doc
    for records in all_records:
        different = next(
            (doc for doc in docs if records.by_doc[doc].get("question") != first[doc].get("question")), None
        )
        if different is not None:
            raise InputError(
                f"document {different} of {task} is not the one in {all_records[0].path}", where=records.path
            )
    return docs


def _item(doc: int, found: Mapping[str, Sequence[Records]], picked: str) -> Item:
    """A document: its question, the right answer, and what each model wrote or picked."""
    record = next(iter(found.values()))[0].by_doc[doc]
    choices, gold = _choices_of(record.get("choices")), record.get("gold")
    reference = choices[_checked_choice(gold, choices)] if choices and isinstance(gold, int) else gold
    texts = {}
    for label, runs in found.items():
        record_of_run = runs[0].by_doc[doc]
        if "answer" in record_of_run:
            texts[label] = str(record_of_run["answer"])
        elif choices and picked in record_of_run:
            texts[label] = str(choices[_checked_choice(record_of_run[picked], choices)])
    place, question = str(record.get("origin", doc)), str(record.get("question", ""))
    return Item(place, question, None if reference is None else str(reference), texts)


def _checked_choice(number: Any, choices: Sequence[Any]) -> int:
    """The number of a choice. Raises ValueError for one that there is not."""
    if not isinstance(number, int) or not 0 <= number < len(choices):
        raise ValueError(f"a choice number {number!r:.20} of {len(choices)}")
    return number


def _choices_of(value: Any) -> list[Any]:
    """The choices of a record; none where it has none."""
    return value if isinstance(value, list) else []
