"""Settings -> the rows of a run: to learn from and held out, read, split and as the method takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from luthier.config.data import STDLIB
from luthier.config.evaluation import EVAL_ROWS
from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.storage.files import sha256
from luthier.core.types.examples import Chat, Example, Text
from luthier.data import load as data_load
from luthier.data import stdlib_pairs
from luthier.data.columns_read import ColumnsRead
from luthier.data.example_text import identity, prompt_key
from luthier.data.held_out_warnings import held_out_warnings
from luthier.data.read import files_of
from luthier.data.split import split
from luthier.data.warnings import one_sided, warnings_of
from luthier.runs.lineage import GROWING_FILE
from luthier.runs.method import chosen_method
from luthier.text.drafts import UNLEARNED
from luthier.training.method_table import METHODS


@dataclass(frozen=True)
class Examples:
    """The rows of a run: to learn from, and held out; and the files they came from. `replay` are general rows that are
    mixed in, of `replay_files`."""

    layout: str
    train: Sequence[Example]
    test: Sequence[Example]
    files: tuple[str, ...]
    skipped: int = 0
    stream: bool = False
    grows: tuple[str, ...] = ()  # files of a stream
    live: data_load.Stream | None = None  # of a stream that can be read once only: standard input
    replay: Sequence[Example] = ()
    replay_files: tuple[str, ...] = ()
    readings: Mapping[str, ColumnsRead] = field(
        default_factory=dict
    )  # by which rows: "rows", "held-out rows", "replay rows"
    warnings: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """How the rows to learn from were read: keys of the `data` of result.json, and of data.json."""
        reading = self.readings.get("rows")
        return {} if reading is None else reading.as_dict() | {"warnings": list(self.warnings)}

    def compared(self) -> Examples:
        """With what held-out rows cannot show among the warnings; a look at all texts, for a run that is about to begin."""
        if self.stream:
            return self
        return replace(self, warnings=(*self.warnings, *held_out_warnings(self.train, self.test)))

    def tell(self) -> None:
        """Say what was read as what, what was not, and what of it deserves a word."""
        said: list[str] = []
        for name, reading in self.readings.items():
            lines = reading.lines()
            if lines != said:  # held-out rows that are read alike need no line of their own
                for line in lines:
                    log.note(line if name == "rows" else f"{name}, {line}")
            said = said or lines
        for warning in self.warnings:
            log.warn(warning)

    def digests(self) -> dict[str, str]:
        """The sha256 of every file; of the examples themselves where there is none (standard input, stdlib). Of a stream,
        whose file may grow, that of the held-out files: the rows that were learned from are compared when it goes on."""
        if self.stream:
            return {path: GROWING_FILE if path in self.grows else sha256(Path(path)) for path in self.files}
        if self.files and "-" not in self.files:
            return {path: sha256(Path(path)) for path in self.files}
        rows = hashlib.sha256()
        for example in (*self.train, *self.test):
            rows.update(identity(example))
        return {"examples": rows.hexdigest()}

    def replay_digests(self) -> dict[str, dict[str, str]]:
        """{'replay': {file: sha256}}; nothing where no general rows are mixed in."""
        found = {path: sha256(Path(path)) for path in self.replay_files}
        return {"replay": found} if found else {}


def require_data(config: RunConfig) -> None:
    """Raise InputError where no data is given, or a file of it is not there; nothing is read."""
    if not config.data.path:
        raise InputError("no data given", fix="luthier train DATA, such as luthier train rows.jsonl")
    data = config.data
    for paths, held_out in ((data.path, False), (data.eval, True), (data.replay, False), (config.eval.general, False)):
        files_of([path for path in paths if path != STDLIB or Path(path).exists()], held_out)


def read_examples(config: RunConfig, kinds: tuple[type[Example], ...]) -> Examples:
    """Read, recognise and split the data. Raises InputError when it is not what the method learns from."""
    main = _read(config, kinds)
    return _with_replay(main, config, kinds) if config.data.replay else main


def _read(config: RunConfig, kinds: tuple[type[Example], ...]) -> Examples:
    data = config.data
    require_data(config)
    if data.path == (STDLIB,) and not Path(STDLIB).exists():
        check_kind([Chat(())], kinds, config.method, STDLIB)
        learn, unseen = stdlib_pairs.pairs(
            limit=data.limit or 1000, test=config.eval.rows or EVAL_ROWS, seed=config.seed
        )
        name = "function, then the first line of its docstring"
        return Examples(name, prepared(learn, config), prepared(unseen, config), ())
    if data.stream:
        return _stream(config, kinds)
    main = data_load.load(data.path, data)
    check_kind(main.examples, kinds, config.method, main.layout.name)
    train: Sequence[Example] = prepared(main.examples, config)
    test: Sequence[Example] = []
    readings, warnings = {"rows": main.reading}, warnings_of(main.examples, main.reading)
    if data.eval:
        held_out = data_load.load(data.eval, data.model_copy(update={"limit": None}), held_out=True)
        check_kind(held_out.examples, kinds, config.method, held_out.layout.name)
        test = prepared(held_out.examples, config)
        readings["held-out rows"] = held_out.reading
        warnings += _beside("held-out rows", held_out, warnings)
    elif data.holdout != 0:
        train, test = split(train, data.holdout, config.seed)
    if not train:
        raise InputError(
            "no row is left to train on", where=data.path[0], fix="lower --data.holdout, or give --data.eval"
        )
    warnings += tuple(line for line in one_sided(train) if not set(one_sided(main.examples)))  # nor after the split
    files = dict.fromkeys([*files_of(data.path), *files_of(data.eval, held_out=True)])
    return Examples(
        main.layout.name, train, test, tuple(files), main.skipped.count,
        readings=readings, warnings=warnings,
    )  # fmt: skip


def _beside(name: str, loaded: data_load.Loaded, known: tuple[str, ...]) -> tuple[str, ...]:
    """What other rows than those to learn from are warned of, where it was not said of those."""
    return tuple(f"{name}: {line}" for line in warnings_of(loaded.examples, loaded.reading) if line not in known)


def _with_replay(main: Examples, config: RunConfig, kinds: tuple[type[Example], ...]) -> Examples:
    """General rows beside those of the data, without any whose prompt is held out."""
    if "-" in config.data.replay:
        raise InputError("standard input is for the data itself", where="--data.replay", fix="give a file")
    if main.stream:
        raise InputError(
            "a stream has no end after which replay rows could be numbered", where="--data.replay",
            fix="leave --data.stream out, or mix the files beforehand",
        )  # fmt: skip
    if (method := chosen_method(config)).online:
        pretrain = method.does_read("policy.pretrain")
        fix = "give these files to --policy.pretrain" if pretrain else "--policy.kl keeps it near the starting model"
        raise InputError(f"{config.method} learns from its own answers, not from rows", where="--data.replay", fix=fix)
    settings = config.data.of_other_rows()
    loaded = data_load.load(config.data.replay, settings)
    check_kind(loaded.examples, kinds, config.method, loaded.layout.name, "--data.replay takes rows as the data's own")
    held_out = {prompt_key(example) for example in main.test}
    rows = [example for example in loaded.examples if prompt_key(example) not in held_out]
    if left := len(loaded.examples) - len(rows):
        log.warn(f"{left} of {len(loaded.examples)} replay rows are left out: their prompts are held out")
    if not rows:
        raise InputError(
            "every replay row is held out", where=config.data.replay[0], fix="give --data.replay other files"
        )
    return replace(
        main, replay=prepared(rows, config), replay_files=tuple(files_of(config.data.replay)),
        skipped=main.skipped + loaded.skipped.count, readings={**main.readings, "replay rows": loaded.reading},
        warnings=main.warnings + _beside("replay rows", loaded, main.warnings),
    )  # fmt: skip


def prepared(examples: Sequence[Example], config: RunConfig) -> Sequence[Example]:
    """The rows as the method takes them, such as their prompts alone, pairs taken apart, or pairs of a prompt together."""
    prepare = chosen_method(config).prepare
    return prepare(examples, config) if prepare else examples


def _stream(config: RunConfig, kinds: tuple[type[Example], ...]) -> Examples:
    """Look at the first row of a stream; the rest is read while training."""
    data = config.data
    if config.train.steps is None:
        raise InputError("a stream has no known length", where="--data.stream", fix="give --train.steps")
    if chosen_method(config).all_rows_first:
        raise InputError(
            f"{config.method} needs all rows before it starts", where="--data.stream",
            fix="leave --data.stream out, or use --method orpo or simpo",
        )  # fmt: skip
    if config.ranking.gather:
        raise InputError(
            "rows of a stream are taken one by one, so pairs of one prompt cannot be gathered", where="--ranking.gather",
            fix="leave it out, or --data.stream",
        )  # fmt: skip
    source = data_load.stream(data.path, data)
    pairs = iter(source.pairs)
    first = next(pairs, None)
    if first is None:
        raise InputError("no usable row in this stream", where=data.path[0], fix="look at it with `luthier data`")
    check_kind([first[1]], kinds, config.method, source.layout.name)
    test: Sequence[Example] = []
    readings, warnings = {"rows": source.reading}, warnings_of([first[1]], source.reading)
    if data.eval:
        held_out = data_load.load(data.eval, data.model_copy(update={"limit": None}), held_out=True)
        check_kind(held_out.examples, kinds, config.method, held_out.layout.name)
        test = held_out.examples
        readings["held-out rows"] = held_out.reading
        warnings += _beside("held-out rows", held_out, warnings)
    else:
        log.warn("no rows are held out of a stream: give --data.eval to measure before and after")
    live = replace(source, pairs=chain([first], pairs)) if "-" in data.path else None
    grows, fixed = tuple(files_of(data.path)), tuple(files_of(data.eval, held_out=True))
    return Examples(
        source.layout.name, [], test, (*grows, *fixed), stream=True, grows=grows, live=live, readings=readings,
        warnings=warnings,
    )  # fmt: skip


def check_kind(
    examples: Sequence[Example], kinds: tuple[type[Example], ...], name: str, layout: str, fix: str | None = None
) -> None:
    first = next((example for example in examples if not isinstance(example, kinds)), None)
    if first is not None:
        wanted = " or ".join(kind.__name__.lower() for kind in kinds)
        if layout == "templated" and fix is None and Text in kinds:
            fix = "give --data.layout text to learn such texts as they stand, marks and all"
        fitting = [other for other, row in METHODS.items() if isinstance(first, row.example)]
        raise InputError(
            f"method '{name}' learns from {wanted} rows, but these are {layout} rows", where=first.origin,
            fix=fix or (f"use --method {' or '.join(fitting)}" if fitting else UNLEARNED),
        )  # fmt: skip


def data_name(paths: Sequence[str]) -> str:
    """A short name for a data set, for the run directory."""
    if not paths or paths[0] == "-":
        return "stdin"
    stem = Path(paths[0]).name.split(".")[0]
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)[:40] or "data"
