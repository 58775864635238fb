"""What a notebook or a program does with Luthier: the same as the commands, with the same settings and the same results.

    import luthier
    model = luthier.load("smollm2-135m")
    run = luthier.train("rows.jsonl", out="runs/mine", train={"steps": 60})
    print(run.metrics["loss"], run.open().chat("What is a luthier?"))

Settings are those of `luthier train --help`, by dotted name in a dict, or nested: `settings={"train.lr": 1e-4}` is
`train={"lr": 1e-4}`. Errors are `luthier.InputError` with what, where and how to fix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from luthier.comparison.compare import CompareOptions, compare_all
from luthier.config.data import TextConfig
from luthier.config.resolve import read_yaml, resolve
from luthier.config.run import RunConfig
from luthier.core.errors import InputError, unknown
from luthier.core.types.examples import ROLES, Chat, Example, Message
from luthier.core.types.run_result import Metric, RunResult
from luthier.data import load as data_load
from luthier.evals.benchmarks.evaluation import BenchmarkOptions
from luthier.evals.benchmarks.evaluation import evaluate as evaluate_model
from luthier.generate.generate import context
from luthier.model.adapt import roles
from luthier.model.forward import forward
from luthier.runs import answers
from luthier.runs.folder import read_run
from luthier.runs.open import Opened, open_model
from luthier.text.encode import encode
from luthier.training import annotate
from luthier.training.steps import Packing
from luthier.tune.train import run as run_training

Asked = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
TOKENS = 1024  # of a forward pass of `Model.score`


@dataclass
class Model:
    """A model or a run, ready to answer and to score; `opened` is what the commands work with."""

    opened: Opened

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names that `adapter=` takes: of the adapters, and 'base', the model without any. The first one answers if none
        is named."""
        return (*self.opened.names, "base")

    def chat(
        self, messages: Asked, *, system: str | None = None, adapter: str | None = None, max_new_tokens: int = 256, **sampling: Any
    ) -> str:  # fmt: skip
        """The answer to a question, or to messages of `role` and `content`. `sampling` are the fields of `luthier.kernel.Sampling`
        (temperature, top_p, seed, ...); by default the likeliest token is taken. `system` takes the place of the system prompt
        that a run was trained with, "" of none; `adapter` answers this once."""
        return "".join(self.stream(messages, system=system, adapter=adapter, max_new_tokens=max_new_tokens, **sampling))

    def stream(
        self, messages: Asked, *, system: str | None = None, adapter: str | None = None, max_new_tokens: int = 256, **sampling: Any
    ) -> Iterator[str]:  # fmt: skip
        """The same in pieces, as they come."""
        if "n" in sampling:
            raise InputError("a chat has one answer", where="n", fix="use generate for several")
        return self.opened.answer(_prompt(messages), {"max_new_tokens": max_new_tokens, **sampling}, system, adapter)

    def generate(
        self, prompts: Sequence[Asked], *, system: str | None = None, adapter: str | Sequence[str | None] | None = None,
        max_new_tokens: int = 256, **sampling: Any,
    ) -> list[list[str]]:  # fmt: skip
        """`n` answers (1 unless `sampling` says so) to each prompt, all prompts at once. `adapter` is one for all, or a list with
        one for each prompt: they answer in the same passes over the one base. Otherwise as `chat`."""
        if isinstance(prompts, (str, Mapping)):
            raise InputError("one prompt where a list is expected", where="prompts", fix="give [prompt], or use chat")
        adapters = [adapter] * len(prompts) if adapter is None or isinstance(adapter, str) else list(adapter)
        if len(adapters) != len(prompts):
            raise InputError(
                f"{len(adapters)} adapters for {len(prompts)} prompts", where="adapter", fix="give one for each, or one for all"
            )  # fmt: skip
        return answers.write(
            self.opened, [_prompt(prompt) for prompt in prompts], {"max_new_tokens": max_new_tokens, **sampling},
            lambda: False, "prompts", system, adapters,
        )  # fmt: skip

    def score(self, conversations: Sequence[Sequence[Mapping[str, Any]]], *, adapter: str | None = None) -> list[float]:
        """log p of the last message of each conversation, given the others, in nats: the sum over its tokens, end included.
        Raises InputError for a conversation that does not end with the assistant's message, or is longer than the context."""
        chats = [Chat(_messages(conversation)) for conversation in conversations]
        if bad := [i for i, chat in enumerate(chats) if chat.messages[-1].role != "assistant"]:
            raise InputError(
                "there is no answer to score", where=f"conversation {bad[0]}", fix="end it with an assistant's message"
            )
        own, prompt_format = self.opened.requested(adapter), self.opened.format_of(adapter)
        text = TextConfig(system=prompt_format.system, max_length=2**31, train_on="last")
        trees = encode(chats, prompt_format.template, self.opened.tokenizer, text).trees
        model, most = self.opened.model, context(self.opened.model)
        for i, tree in enumerate(trees):
            if most is not None and len(tree) > most:
                raise InputError(
                    f"{len(tree):,} tokens, more than the model's context of {most:,}", where=f"conversation {i}",
                    fix="shorten it",
                )  # fmt: skip
        with roles.playing(model, self.opened.adapters[own]) if own else nullcontext():
            found = annotate.answer_logps(
                forward, model, trees, Packing(TOKENS), model.device, "scoring", lambda: False
            )
        return [sum(values) for values in found]


@dataclass(frozen=True)
class TrainingRun:
    """A finished run: its folder, and what `luthier train --json` prints."""

    path: Path
    config: RunConfig
    result: RunResult

    def __repr__(self) -> str:
        """A line for the run and one for each metric, as the last value of a notebook's cell is shown."""
        return "\n".join([f"TrainingRun({str(self.path)!r})", *(_line(*one) for one in self.metrics.items())])

    @property
    def metrics(self) -> dict[str, Metric]:
        """Before, after, and the interval of the difference, by the metric's name."""
        return self.result["metrics"]

    def open(self, **options: Any) -> Model:
        """The model that it made."""
        return load(str(self.path), **options)


def load(name: str | Path = "smollm2-135m", **options: Any) -> Model:
    """A model, a run or an adapter, by any name that --model takes. `options` are those of the commands: adapter (one, or a
    list: `Model.adapters` names them), device, dtype, base, system."""
    _known(options, ("adapter", "device", "dtype", "base", "system"))
    if isinstance(adapter := options.get("adapter", ()), (str, Path)):
        adapter = (adapter,)
    return Model(open_model(str(name), **options | {"adapter": [str(one) for one in adapter]}))


def open(run: str | Path) -> TrainingRun:
    """A finished run. Raises InputError for a folder that is none."""
    folder, config = read_run(Path(run))
    if folder.result is None:
        raise InputError("this run is not finished", where=run, fix="train again with the same settings: it resumes")
    return TrainingRun(folder.path, config, folder.result)


def read(*files: str | Path | Sequence[str | Path], **settings: Any) -> list[Example]:
    """The rows of files, as examples: what `luthier data` reads. `settings` are those of the section `data`."""
    paths = [path for one in files for path in _paths(one)]
    if not paths:
        raise InputError("no file given", fix="luthier.read('rows.jsonl')")
    return list(data_load.load(paths, resolve({"data": settings}).data).examples)


def train(
    rows: str | Path | Sequence[str | Path] = (), /, *, settings: Mapping[str, Any] | str | Path | None = None, **sections: Any
) -> TrainingRun:  # fmt: skip
    """Tune a model as `luthier train` does, and measure what changed; the same call again goes on with an unfinished run.
    `rows` are files, folders or globs; `settings` is a dict or a YAML file; `sections` are settings too, and win."""
    given = read_yaml(Path(settings)) if isinstance(settings, (str, Path)) else dict(settings or {})
    named = {"data.path": paths} if (paths := _paths(rows)) else {}
    result = run_training(resolve(given, sections, named))
    return open(result["run"])


def evaluate(model: str | Path, tasks: str | Sequence[str], **options: Any) -> dict[str, Any]:
    """Scores on benchmarks, as `luthier eval --json`. `options` are those of the command: data_dir, shots, limit, ..."""
    _known(options, [field.name for field in fields(BenchmarkOptions) if field.name != "tasks"])
    names = tasks if isinstance(tasks, str) else ",".join(tasks)
    if "data_dir" in options:
        options["data_dir"] = Path(options["data_dir"])
    return evaluate_model(str(model), BenchmarkOptions(tasks=names, **options))


def compare(
    *models: str | Path, data: str | Path | Sequence[str | Path] = (), suite: str | Path | None = None, tasks: str = "",
    check: bool = False, settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Models and runs on the same items, as `luthier compare --json`: of `data`, of a test `suite`, or of benchmark `tasks`."""
    given = dict(settings or {}) | ({"data.path": paths} if (paths := _paths(data)) else {})
    return compare_all(
        CompareOptions(
            tuple(str(model) for model in models),
            resolve(given),
            given,
            Path(suite) if suite else None,
            tasks,
            check=check,
        )
    )


def _line(name: str, found: Mapping[str, Any]) -> str:
    """What became of a metric, with the interval of the change where there is one."""
    before, after = (f"{found[side]:.4g}" if found.get(side) is not None else "-" for side in ("before", "after"))
    low, high = found.get("low"), found.get("high")
    interval = f"  ({low:+.3g} to {high:+.3g})" if low is not None and high is not None else ""
    return f"  {name}: {before} -> {after}{interval}"


def _paths(files: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(path) for path in ([files] if isinstance(files, (str, Path)) else files)]


def _known(options: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in options:
        if name not in (known := tuple(names)):
            raise unknown("option", name, known)


def _messages(asked: Asked) -> tuple[Message, ...]:
    """Messages, each of which is one of the kinds that can be given here; nothing that they say is lost."""
    if isinstance(asked, str):
        return (Message("user", asked),)
    several = [asked] if isinstance(asked, Mapping) else list(asked)
    for number, one in enumerate(several):
        where = f"message {number}"
        if not isinstance(one, Mapping) or set(one) != {"role", "content"}:
            keys = f"has the keys {', '.join(map(str, one))}" if isinstance(one, Mapping) else "is no mapping"
            raise InputError(f"it {keys}", where=where, fix="give role and content, and no others")
        if one["role"] not in ROLES:
            raise unknown("role", str(one["role"]), ROLES, where=where)
        if not isinstance(one["content"], str):
            raise InputError(f"its content is {type(one['content']).__name__}", where=where, fix="give a text")
    if not several:
        raise InputError("no messages", fix="give a question, or messages with role and content")
    return tuple(Message(one["role"], one["content"]) for one in several)


def _prompt(asked: Asked) -> tuple[Message, ...]:
    messages = _messages(asked)
    if messages[-1].role == "assistant":
        raise InputError("the last message is the assistant's", where="messages", fix="end with a user's message")
    return messages
