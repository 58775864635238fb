"""A finished run's data, read again as the run read it, and its answers to the held-out rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from luthier.config.data import STDLIB
from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.storage.files import sha256
from luthier.core.types.examples import Chat, Example, Origin, Prompt
from luthier.data import load as data_load
from luthier.data.example_text import prompt_text
from luthier.data.read import Row, files_of, read_rows
from luthier.data.split import border, place
from luthier.rewards.selection import prompt_record
from luthier.runs import held_out_rows
from luthier.runs.folder import RunFolder, read_run, understood
from luthier.runs.held_out_rows import STAGES, HeldOutRow, MeasuredRow, stage_file
from luthier.runs.lineage import GROWING_FILE
from luthier.runs.rows import prepared, read_examples
from luthier.training.method_table import method

STREAM_ROWS = 20_000  # rows of a stream that are looked at
# Values of a column that tells kinds of rows, their characters, such columns.
MOST_VALUES, LONGEST_VALUE, MOST_COLUMNS = 30, 60, 6


@dataclass(frozen=True)
class Answers:
    """A run's generated answers, a held-out row each."""

    folder: RunFolder
    config: RunConfig
    rows: Sequence[HeldOutRow]

    @property
    def complete(self) -> bool:
        """Whether the records say how answers ended and how likely they were; older runs kept neither."""
        return all(stage.ended is not None for row in self.rows for stage in (row.before, row.after))

    def of(self, stage: str) -> list[MeasuredRow]:
        """The answers of 'before' or 'after'."""
        return [getattr(row, stage) for row in self.rows]


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A row to learn from: its number in losses.jsonl, what is asked last, the whole prompt, and the answer."""

    row: int
    question: str
    prompt: str
    answer: str
    example: Example

    @property
    def where(self) -> str:
        """file:line"""
        return str(self.example.origin)


@dataclass(frozen=True)
class RunData:
    """The rows of a run that have a prompt and an answer, and all held-out rows. `total` counts all to learn from;
    `is_partial` where they are the first of a stream; `can_be_fixed` where they stand in files that can be written anew."""

    train: Sequence[TrainingRow]
    held_out: Sequence[Example]
    total: int
    is_partial: bool = False
    can_be_fixed: bool = True


def read_answers(path: Path) -> Answers:
    """The answers of a finished run. Raises InputError for one that is not finished, or that generated none."""
    folder, config = read_run(path)
    if folder.result is None or any(folder.records(stage_file(stage)) is None for stage in STAGES):
        raise InputError("this run is not finished", where=path, fix=f"continue it: luthier train {path}/run.yaml")
    if (found := answers_of(folder, config)) is None:
        raise _no_answers(path, config)
    return found


def answers_of(folder: RunFolder, config: RunConfig) -> Answers | None:
    """The answers of a run that was measured before and after; None when it generated none."""
    with understood(folder):
        rows = held_out_rows.read(folder)
    return Answers(folder, config, rows) if rows else None


def _no_answers(path: Path, config: RunConfig) -> InputError:
    if method(config.method).example[0] in (Chat, Prompt):
        fix = "train with --eval.samples above 0, on held-out rows with answers"
    elif method(config.method).needs.score:
        fix = "a reward model scores answers and writes none: look at the policy that learns from it"
    else:
        fix = f"`luthier compare {config.model} {path} --data ROWS --eval.samples 64` asks it rows with a right answer"
    return InputError(f"this run of {config.method} generated no held-out answers", where=path, fix=fix)


def read_data(answers: Answers) -> RunData:
    """The data of the run, as it was then.

    Raises InputError when a file is gone or changed since, and for standard input, which cannot be read again.
    """
    folder, config = answers.folder, answers.config
    digests = _data_digests(folder)
    require_files(digests, config, folder.path)
    own = config.model_copy(
        update={"data": config.data.model_copy(update={"replay": ()})}
    )  # general rows taught no task
    examples = read_examples(own, method(config.method).example)
    if "examples" in digests and examples.digests() != digests:
        raise InputError(
            "this Python's standard library is not the one the run learned from", where=folder.path,
            fix="use the Python it was trained with, or train again",
        )  # fmt: skip
    train: Sequence[Example] = examples.train
    if examples.stream:
        train = list(islice(data_load.stream(config.data.path, config.data), STREAM_ROWS))
        if len(train) == STREAM_ROWS:
            log.note(f"the data is a stream: its first {STREAM_ROWS:,} rows are used")
    can_be_fixed = "examples" not in digests and not examples.stream
    return RunData(list(training_rows(train)), examples.test, len(train), examples.stream, can_be_fixed)


def training_rows(examples: Sequence[Example]) -> Iterator[TrainingRow]:
    """The rows that have a prompt and an answer in words."""
    for row, example in enumerate(examples):
        found = prompt_record(example)
        if found is not None and found.messages and found.reference is not None:
            yield TrainingRow(row, found.prompt, prompt_text(example), found.reference, example)


def columns(answers: Answers, data: RunData) -> dict[str, list[str]]:
    """The columns that the layout left unread and that tell a few kinds of rows, such as their source: name -> its value for
    each answer, "" where there is none. Their files are read up to the last row that was answered."""
    settings = answers.config.data
    source = data_load.stream(
        settings.eval or settings.path,
        settings.model_copy(update={"limit": None} if settings.eval else {}),
        held_out=bool(settings.eval),
    )
    if source.layout.name == "mixed":  # each row has a layout of its own, and leaves other columns unread
        return {}
    places = [data.held_out[row.row].origin for row in answers.rows]
    left = set(places)
    fields: dict[Origin, Mapping[str, Any]] = {}
    for row, _ in source.pairs:
        if row.origin in left:
            left.discard(row.origin)
            fields[row.origin] = row.fields
        if not left:
            break
    found: dict[str, list[str]] = {}
    for name in source.reading.unread:
        values = [fields.get(place, {}).get(name) for place in places]
        texts = ["" if value is None else str(value).strip() for value in values]
        plain = all(value is None or isinstance(value, str | int) for value in values)
        kinds = set(texts) - {""}
        few = 2 <= len(kinds) <= min(MOST_VALUES, len(texts) // 2)
        if plain and few and max(map(len, kinds)) <= LONGEST_VALUE and len(found) < MOST_COLUMNS:
            found[name] = texts
    return found


def _data_digests(folder: RunFolder) -> dict[str, str]:
    """The sha256 of the files that the run learned from, by path."""
    digests = folder.lineage.get("inputs", {}).get("data")
    if not isinstance(digests, dict):
        raise InputError(
            "which data this run learned from is not known: lineage.json does not say", where=folder.path,
            fix="put it back from a copy, or train again",
        )  # fmt: skip
    return digests


def require_files(digests: dict[str, str], config: RunConfig, run: Path) -> None:
    """Refuse data that is not what the run read."""
    if "-" in (*config.data.path, *config.data.eval):
        raise InputError(
            "the data came from standard input and cannot be read again", where=run, fix="train from a file"
        )
    if "examples" in digests and config.data.path == (STDLIB,):
        return
    for name, digest in digests.items():
        if not Path(name).is_file():
            raise InputError(
                "the data of this run is gone", where=name,
                fix="put it back, or run this where the run was trained, if the path is relative",
            )  # fmt: skip
        if digest != GROWING_FILE and sha256(Path(name)) != digest:
            raise InputError(
                f"this file changed since {run} learned from it",
                where=name,
                fix="put it back as it was, or train again",
            )
    if {*files_of(config.data.path), *files_of(config.data.eval, held_out=True)} != set(digests):
        raise InputError(f"the files are not those that {run} was trained on", where=next(iter(config.data.path), run),
                         fix="put back only those files, or train again")  # fmt: skip


@dataclass(frozen=True)
class DataFiles:
    """The rows of a run's data files, and those of them that it learned from."""

    loaded: data_load.Loaded
    train: Sequence[Example]


def read_files(answers: Answers) -> DataFiles:
    """The data files of the run, to be corrected. Raises InputError as `read_data`, and for data that is in no file."""
    config = answers.config
    digests = _data_digests(answers.folder)
    require_files(digests, config, answers.folder.path)
    if "examples" in digests or config.data.stream:
        kind = "a stream" if config.data.stream else "Python's standard library"
        raise InputError(f"this run learned from {kind}, which cannot be fixed here", where=answers.folder.path,
                         fix="train on a file of rows")  # fmt: skip
    loaded = data_load.load(config.data.path, config.data)
    train: Sequence[Example] = loaded.examples
    if config.data.holdout != 0 and not config.data.eval:
        least = border(prepared(loaded.examples, config), config.data.holdout, config.seed)
        train = [example for example in loaded.examples if place(example, config.seed) >= least]
    return DataFiles(loaded, train)


def rows_after_limit(config: RunConfig) -> tuple[list[Row], int]:
    """The rows of the run's data files after those that `data.limit` let it read, and how many bad ones among them are left out
    (with skip_bad). Raises InputError as `read_rows`."""
    if config.data.limit is None:
        return [], 0
    skipped = data_load.LeftOut()
    rows = read_rows(
        config.data.path, skipped=skipped if config.data.skip_bad else None, longest=config.data.max_row * 1_000_000
    )
    for _ in islice(rows, config.data.limit):
        pass
    before = skipped.count
    return list(rows), skipped.count - before
