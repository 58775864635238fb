"""Settings -> everything a run needs: examples, template, encoded trees, model, what learns."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from luthier.app import stdlib_pairs
from luthier.app.choose import as_prompts
from luthier.app.folder import GROWS
from luthier.app.scorer import can_be_played
from luthier.app.start import Start, find
from luthier.core import log
from luthier.core.config import STDLIB, LoraConfig, QuantConfig, RunConfig
from luthier.core.errors import InputError
from luthier.core.files import sha256
from luthier.core.types import Chat, Example, Ranking, TokenTree
from luthier.data import load as data_load
from luthier.data.gather import gather, unpair
from luthier.data.read import files_of
from luthier.data.reading import Reading
from luthier.data.split import split
from luthier.data.texts import identity, prompt_key
from luthier.data.warn import warnings_of
from luthier.model import adapters, lora, memory, quantize, tune
from luthier.model import load as model_load
from luthier.rewards.specs import models
from luthier.text.encode import UNLEARNED, Encoded, encode, encode_chunk
from luthier.text.template import Template, load_template
from luthier.text.tokenizer import Tokenizer
from luthier.train import annotate
from luthier.train.table import METHODS, Method, method

STREAM_CHUNK = 256  # rows of a stream that are encoded together


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
    readings: Mapping[str, Reading] = field(
        default_factory=dict
    )  # by which rows: "rows", "held-out rows", "replay rows"
    warnings: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """How the rows to learn from were read: keys of the `data` of result.json, and of data.json."""
        reading = self.readings.get("rows")
        return {} if reading is None else reading.as_dict() | {"warnings": list(self.warnings)}

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
            return {path: GROWS if path in self.grows else sha256(Path(path)) for path in self.files}
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


@dataclass(frozen=True)
class Texts:
    """A model's tokenizer and template, without the model."""

    start: Start
    tokenizer: Tokenizer
    template: Template


@dataclass
class Tally:
    """How many rows were read, and what was lost of them: `skipped` could not be read, the rest as in `Encoded`."""

    rows: int = 0
    skipped: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    cut_tokens: int = 0
    unended: int = 0
    quoted: int = 0

    def add(self, examples: Sequence[Example], *parts: Encoded) -> None:
        """Count rows, and what encoding them lost."""
        self.rows += len(examples)
        for part in parts:
            self.dropped.update(row.reason for row in part.dropped)
            for name in ("cut", "cut_tokens", "unended", "quoted"):
                setattr(self, name, getattr(self, name) + getattr(part, name))

    def lost(self) -> dict[str, Any]:
        """Keys of the `data` of result.json."""
        return {
            "skipped": self.skipped, "dropped": dict(self.dropped), "cut": self.cut, "cut_tokens": self.cut_tokens,
            "unended": self.unended,
        }  # fmt: skip

    def warn(self, name: str, config: RunConfig) -> None:
        """Say what was lost of the rows called `name`."""
        if self.skipped:
            log.warn(f"{self.skipped} {name} skipped: they cannot be read; `luthier data` shows them")
        for reason, number in self.dropped.items():
            log.warn(f"{number} of {self.rows} {name} dropped: {reason}")
        if self.cut:
            log.warn(
                f"{self.cut} of {self.rows} {name} were longer than --text.max_length {config.text.max_length} and lost "
                f"{self.cut_tokens} tokens of their end"
            )
        if self.quoted:
            log.warn(
                f"{self.quoted} of {self.rows} {name} spell out a control token of the model; there it is read as plain text"
            )


@dataclass(frozen=True)
class Ready:
    """Encoded data. `counts` says what was dropped and cut. Rows of `replay` are numbered after those of the data."""

    train: list[TokenTree]
    test: list[TokenTree]
    counts: dict[str, Any] = field(default_factory=dict)
    replay: list[TokenTree] = field(default_factory=list)


def use_threads(config: RunConfig) -> None:
    """Set torch's threads: results are bitwise equal only with the same number."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(config.threads or here or 1)


def read_examples(config: RunConfig, kinds: tuple[type[Example], ...]) -> Examples:
    """Read, recognise and split the data. Raises InputError when it is not what the method learns from."""
    main = _read(config, kinds)
    return _with_replay(main, config, kinds) if config.data.replay else main


def _read(config: RunConfig, kinds: tuple[type[Example], ...]) -> Examples:
    data = config.data
    if not data.path:
        raise InputError("no data given", mend="luthier train DATA, such as luthier train rows.jsonl")
    if data.path == (STDLIB,) and not Path(STDLIB).exists():
        _check_kind([Chat(())], kinds, config.method, STDLIB)
        learn, unseen = stdlib_pairs.pairs(limit=data.limit or 1000, test=config.eval.rows, seed=config.seed)
        name = "function, then the first line of its docstring"
        return Examples(name, _prepared(learn, config), _prepared(unseen, config), ())
    if data.stream:
        return _stream(config, kinds)
    main = data_load.load(data.path, data)
    _check_kind(main.examples, kinds, config.method, main.layout.name)
    train: Sequence[Example] = _prepared(main.examples, config)
    test: Sequence[Example] = []
    readings, warnings = {"rows": main.about}, warnings_of(main.examples, main.about)
    if data.eval:
        held_out = data_load.load(data.eval, data.model_copy(update={"limit": None}), held_out=True)
        _check_kind(held_out.examples, kinds, config.method, held_out.layout.name)
        test = _prepared(held_out.examples, config)
        readings["held-out rows"] = held_out.about
        warnings += _beside("held-out rows", held_out, warnings)
    elif data.holdout:
        train, test = split(train, data.holdout, config.seed)
    if not train:
        raise InputError(
            "no row is left to train on", where=data.path[0], mend="lower --data.holdout, or give --data.eval"
        )
    files = dict.fromkeys([*files_of(data.path), *files_of(data.eval, held_out=True)])
    return Examples(
        main.layout.name, train, test, tuple(files), main.skipped.count,
        readings=readings, warnings=warnings,
    )  # fmt: skip


def _beside(name: str, loaded: data_load.Loaded, known: tuple[str, ...]) -> tuple[str, ...]:
    """What other rows than those to learn from are warned of, where it was not said of those."""
    return tuple(f"{name}: {line}" for line in warnings_of(loaded.examples, loaded.about) if line not in known)


def _with_replay(main: Examples, config: RunConfig, kinds: tuple[type[Example], ...]) -> Examples:
    """General rows beside those of the data, without any whose prompt is held out."""
    if "-" in config.data.replay:
        raise InputError("standard input is for the data itself", where="--data.replay", mend="give a file")
    if main.stream:
        raise InputError(
            "a stream has no end after which replay rows could be numbered", where="--data.replay",
            mend="leave --data.stream out, or mix the files beforehand",
        )  # fmt: skip
    if chosen_method(config).online:
        mend = (
            "give these files to --policy.pretrain" if config.method == "ppo" else "--policy.kl keeps it near its start"
        )
        raise InputError(
            f"{config.method} learns from its own answers, not from rows", where="--data.replay", mend=mend
        )
    settings = config.data.model_copy(update={"columns": {}, "layout": "auto", "limit": None, "group": None})
    loaded = data_load.load(config.data.replay, settings)
    _check_kind(loaded.examples, kinds, config.method, loaded.layout.name, "--data.replay takes rows as the data's own")
    held_out = {prompt_key(example) for example in main.test}
    rows = [example for example in loaded.examples if prompt_key(example) not in held_out]
    if left := len(loaded.examples) - len(rows):
        log.warn(f"{left} of {len(loaded.examples)} replay rows are left out: their prompts are held out")
    if not rows:
        raise InputError(
            "every replay row is held out", where=config.data.replay[0], mend="give --data.replay other files"
        )
    return replace(
        main, replay=_prepared(rows, config), replay_files=tuple(files_of(config.data.replay)),
        skipped=main.skipped + loaded.skipped.count, readings={**main.readings, "replay rows": loaded.about},
        warnings=main.warnings + _beside("replay rows", loaded, main.warnings),
    )  # fmt: skip


def _prepared(examples: Sequence[Example], config: RunConfig) -> Sequence[Example]:
    """The rows as the method takes them: prompts only, pairs taken apart (kto), or pairs of a prompt together."""
    if chosen_method(config).online:
        return as_prompts(examples)
    if config.method == "kto":
        return unpair(examples)
    wanted, takes = config.ranking.gather, chosen_method(config).example
    joined = config.method == "reward" if wanted is None else wanted and Ranking in takes
    return gather(examples) if joined else examples


def _stream(config: RunConfig, kinds: tuple[type[Example], ...]) -> Examples:
    """Look at the first row of a stream; the rest is read while training."""
    data = config.data
    if config.train.steps is None:
        raise InputError("a stream has no known length", where="--data.stream", mend="give --train.steps")
    if (row := chosen_method(config)).reference or row.arrange or row.online:
        raise InputError(
            f"{config.method} looks at all rows before it begins", where="--data.stream",
            mend="leave --data.stream out, or use --method orpo or simpo",
        )  # fmt: skip
    source = data_load.stream(data.path, data)
    pairs = iter(source.pairs)
    first = next(pairs, None)
    if first is None:
        raise InputError("no usable row in this stream", where=data.path[0], mend="look at it with `luthier data`")
    _check_kind([first[1]], kinds, config.method, source.layout.name)
    test: Sequence[Example] = []
    readings, warnings = {"rows": source.about}, warnings_of([first[1]], source.about)
    if data.eval:
        held_out = data_load.load(data.eval, data.model_copy(update={"limit": None}), held_out=True)
        _check_kind(held_out.examples, kinds, config.method, held_out.layout.name)
        test = held_out.examples
        readings["held-out rows"] = held_out.about
        warnings += _beside("held-out rows", held_out, warnings)
    else:
        log.warn("no rows are held out of a stream: give --data.eval to measure before and after")
    live = replace(source, pairs=chain([first], pairs)) if "-" in data.path else None
    grows, fixed = tuple(files_of(data.path)), tuple(files_of(data.eval, held_out=True))
    return Examples(
        source.layout.name, [], test, (*grows, *fixed), stream=True, grows=grows, live=live, readings=readings,
        warnings=warnings,
    )  # fmt: skip


def stream_trees(
    texts: Texts, config: RunConfig, live: data_load.Stream | None, read: Callable[[Tally], None]
) -> Iterator[TokenTree]:
    """The trees of a stream, read and encoded as they are asked for; those of `live`, where it cannot be read again.

    `read` gets the tally of all rows so far, again and again. Raises InputError for a row that the method does not learn from.
    """
    source = data_load.stream(config.data.path, config.data) if live is None else live
    rows, kinds, tally, found = enumerate(source), chosen_method(config).example, Tally(), False
    while chunk := list(islice(rows, STREAM_CHUNK)):
        examples = [example for _, example in chunk]
        _check_kind(examples, kinds, config.method, source.layout.name)
        part = encode_chunk(
            examples, texts.template, texts.tokenizer, config.text, chunk[0][0], skip_bad=config.data.skip_bad
        )
        tally.add(examples, part)
        tally.skipped = source.skipped.count
        read(tally)
        found = found or bool(part.trees)
        yield from arranged(part.trees, config)
    if not found:
        raise InputError(
            "no row of the stream is left to learn from",
            where=config.data.path[0],
            mend="look at it with `luthier show`",
        )


def _check_kind(
    examples: Sequence[Example], kinds: tuple[type[Example], ...], name: str, layout: str, mend: str | None = None
) -> None:
    first = next((example for example in examples if not isinstance(example, kinds)), None)
    if first is not None:
        wanted = " or ".join(kind.__name__.lower() for kind in kinds)
        fitting = [other for other, row in METHODS.items() if isinstance(first, row.example)]
        raise InputError(
            f"method '{name}' learns from {wanted} rows, but these are {layout} rows", where=first.origin,
            mend=mend or (f"use --method {' or '.join(fitting)}" if fitting else UNLEARNED),
        )  # fmt: skip


def open_texts(config: RunConfig) -> Texts:
    """The tokenizer and template of the model, read without its weights."""
    start = find(config.model)
    tokenizer = Tokenizer(model_load.load_tokenizer(start.source.folder))
    chosen = config.text.template
    if chosen == "auto" and Path(config.model, "run.yaml").is_file():
        chosen = start.config.text.template  # a run goes on in the template it learned
    return Texts(start, tokenizer, load_template(chosen, tokenizer))


def goes_on(texts: Texts, config: RunConfig) -> bool:
    """Whether training goes on with the adapter that the model brings, instead of adding it to the weights first."""
    return texts.start.adapter is not None and tune.is_adapter(config.tune)


def lora_settings(texts: Texts, config: RunConfig) -> LoraConfig:
    """The adapter's settings: those of the adapter that training goes on with, or the run's own.

    Raises InputError when the run asks for another shape than that adapter has.
    """
    if not goes_on(texts, config) or texts.start.adapter is None:
        return config.lora
    if config.tune != texts.start.config.tune and texts.start.config.tune in ("lora", "qlora"):
        raise InputError(
            f"training goes on with the adapter of {config.model}, which was tuned with {texts.start.config.tune}",
            where="--tune", mend=f"give --tune {texts.start.config.tune}, or the model from `luthier merge`",
        )  # fmt: skip
    own = adapters.settings_of(texts.start.adapter, config.lora)
    fixed: list[tuple[str, Any, Any]] = [
        (f"lora.{name}", config.lora, own) for name in ("rank", "alpha", "targets", "rslora", "dora", "init")
    ]
    if texts.start.quantized:
        fixed += [(f"quant.{name}", config.quant, texts.start.config.quant) for name in QuantConfig.model_fields]
    for setting, asked, made in fixed:
        name = setting.partition(".")[2]
        value, theirs = getattr(asked, name), getattr(made, name)
        if value not in (theirs, type(asked).model_fields[name].get_default()):
            raise InputError(
                f"training goes on with the adapter of {config.model}, whose {name} is {theirs}",
                where=f"--{setting}", mend="leave it out, or give the model from `luthier merge` for a new adapter",
            )  # fmt: skip
    return own


def encode_all(examples: Examples, texts: Texts, config: RunConfig, cancelled: Any) -> Ready:
    """Encode both parts, saying what was dropped or cut."""
    encoded = []
    count = len(examples.train)
    for name, part, first in (
        ("train", examples.train, 0),
        ("held-out", examples.test, 0),
        ("replay", examples.replay, count),
    ):
        if not part:
            encoded.append(Encoded([], []))
            continue
        with log.progress(f"tokens of {name} rows", len(part)) as bar:

            def moved(count: int, bar: log.Bar = bar) -> None:
                cancelled.check()
                bar.advance(count)

            settings, bad = config.text, config.data.skip_bad
            encoded.append(encode(part, texts.template, texts.tokenizer, settings, first, skip_bad=bad, progress=moved))
    train, test, replay = encoded
    learned, held_out = Tally(skipped=examples.skipped), Tally()
    learned.add([*examples.train, *examples.replay], train, replay)
    held_out.add(examples.test, test)
    learned.warn("rows", config)
    held_out.warn("held-out rows", config)
    counts: dict[str, Any] = {"rows": count, "held_out": held_out.rows}
    if examples.replay:
        counts["replay"] = len(examples.replay)
    counts |= learned.lost() | {f"held_out_{name}": held_out.lost()[name] for name in ("dropped", "cut")}
    learn = arranged(train.trees, config)
    beside = arranged(replay.trees, config, train.trees)
    return Ready(learn, arranged(test.trees, config, train.trees), counts | examples.facts(), beside)


def arranged(trees: Sequence[TokenTree], config: RunConfig, beside: Sequence[TokenTree] = ()) -> list[TokenTree]:
    """What the method does to all trees at once. Held-out trees have those to learn from `beside` them."""
    if config.method == "orpo" and config.preference.span == "all":
        return annotate.with_prompts(trees)
    arrange = chosen_method(config).arrange
    return arrange(trees, beside) if arrange and trees else list(trees)


def check_memory(
    texts: Texts, config: RunConfig, ready: Ready, dtype: torch.dtype, device: torch.device
) -> memory.Memory:
    """Estimate the peak before loading, say it, and refuse what cannot fit unless forced."""
    # An example longer than a micro-batch gets one of its own.
    longest = max((len(tree) for tree in (*ready.train, *ready.replay, *ready.test)), default=config.text.max_length)
    tokens = _pass_tokens(texts, config, dtype, device)
    estimate = memory.estimate(
        model_load.load_config(texts.start.source.folder), tune_kind=config.tune, lora=lora_settings(texts, config), quant=config.quant,
        dtype=dtype, tokens=max(tokens, longest), optimizer=config.train.optimizer, device=device,
    )  # fmt: skip
    log.note(memory.describe(estimate))
    method, beside = chosen_method(config), 0
    if method.online and not tune.is_adapter(config.tune):  # reference and critic are models of their own
        critic = method.needs.value
        beside = estimate.weights * (1 + critic) + critic * (estimate.gradients + estimate.optimizer)
        log.note(f"and {log.size(beside)} for the reference{' and the critic' if critic else ''}")
    if others := _reward_models(texts, config, dtype):
        log.note(f"and {log.size(others)} for reward models")
        beside += others
    free = memory.available(device)
    if estimate.needed + beside > free and not config.force:
        raise InputError(
            f"this needs about {log.size(estimate.needed + beside)} more and {log.size(free)} are free",
            where=f"--tune {config.tune}",
            mend="lower --train.tokens, use --tune lora or qlora, or a smaller model; --force tries all the same",
        )  # fmt: skip
    return estimate


def _reward_models(texts: Texts, config: RunConfig, dtype: torch.dtype) -> int:
    """Bytes of the reward models that the model that learns cannot play."""
    init = lora_settings(texts, config).init
    starts = [find(run) for run in models((*config.reward.use, *config.reward.judge))]
    own = [start for start in starts if not can_be_played(start, texts.start, config.tune, init)]
    return sum(memory.weights(model_load.load_config(start.source.folder), dtype) for start in own)


def computing(texts: Texts, config: RunConfig) -> dict[str, Any]:
    """On what, in which type and in how large passes this run computes: a run goes on only on the same."""
    device = model_load.pick_device(config.device)
    dtype = model_load.pick_dtype(config.dtype, device)
    tokens = _pass_tokens(texts, config, dtype, device)
    return {"device": device.type, "dtype": str(dtype).removeprefix("torch."), "tokens": tokens}


def _pass_tokens(texts: Texts, config: RunConfig, dtype: torch.dtype, device: torch.device) -> int:
    """Tokens of a forward pass: the user's, or the rule's."""
    shape = model_load.load_config(texts.start.source.folder)
    return config.train.tokens or memory.pass_tokens(shape, config.tune, dtype, device)


def load_model(texts: Texts, config: RunConfig) -> model_load.LoadedModel:
    """The model on its device in its compute type, with the adapter it brings."""
    device = model_load.pick_device(config.device)
    loaded = model_load.load(texts.start.source, device=device, dtype=model_load.pick_dtype(config.dtype, device))
    if texts.start.adapter:
        if texts.start.quantized:
            q = texts.start.config.quant
            quantize.quantize_linears(loaded.model, kind=q.kind, block=q.block, double=q.double)
        adapters.apply(loaded.model, texts.start.adapter)
        if not goes_on(texts, config):
            lora.merge(loaded.model)
            quantize.dequantize_linears(loaded.model)
    return loaded


def learning_rate(config: RunConfig, hidden: int) -> float:
    """The peak rate: the user's, or the rule's."""
    return config.train.lr or tune.peak_rate(config.tune, hidden) * chosen_method(config).rate


def data_name(paths: Sequence[str]) -> str:
    """A short name for a data set, for the run directory."""
    if not paths or paths[0] == "-":
        return "stdin"
    stem = Path(paths[0]).name.split(".")[0]
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)[:40] or "data"


def chosen_method(config: RunConfig) -> Method:
    """The method's row, with the tune kind checked too: both are cheap to refuse early."""
    tune.check_kind(config.tune)
    model_load.pick_device(config.device)
    if config.dtype == "float16":
        raise InputError(
            "float16 gradients vanish without loss scaling", where="--dtype", mend="train in bfloat16 or float32"
        )
    return method(config.method)
