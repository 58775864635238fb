"""Questions about the same held-out rows for every model: the loss of each row, and the metrics of each generated answer."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from luthier.comparison.changes import Item, QuestionItems
from luthier.comparison.trained_on import warn_of_seen
from luthier.config.resolve import resolve
from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Example, Text
from luthier.data import load as data_load
from luthier.evals.metrics import measure_answers as score
from luthier.evals.metrics import user_metrics
from luthier.evals.metrics.answer_metrics import CORRECTNESS, METRICS, chosen_metrics
from luthier.evals.metrics.labels import commonest
from luthier.evals.stats import paired
from luthier.runs.held_out_rows import AskedAgain, MeasuredRow
from luthier.runs.locate import base_for, resolve_model
from luthier.runs.open import open_model
from luthier.text.encode import encode
from luthier.text.template import load_template
from luthier.training.method_table import likelihood_method
from luthier.tune import repeated_prompts
from luthier.tune.build import packing_of
from luthier.tune.evaluator import Evaluator
from luthier.tune.held_out import HeldOut, measured_rows

Sides = Mapping[str, Sequence[str]]  # label -> the names of its runs


@dataclass(frozen=True)
class MeasuredRun:
    """One run, measured: its record of each row by number (a row that was cut has no loss), how it was asked, and which rows
    were to be measured."""

    rows: Mapping[int, MeasuredRow]
    template: str
    held_out: HeldOut = field(default_factory=lambda: HeldOut(()))

    @property
    def answers(self) -> dict[int, str]:
        """The answer to each row that was asked."""
        return {number: row.answer for number, row in self.rows.items() if row.answer is not None}

    @property
    def losses(self) -> dict[int, tuple[float, int]]:
        """(loss, units) of each row that was read whole."""
        return {number: (row.loss, row.units) for number, row in self.rows.items() if row.loss is not None}

    @property
    def asked_again(self) -> dict[int, AskedAgain]:
        """What it said when it was asked again, by the place among the held-out prompts."""
        rows = (self.rows[number] for number in self.held_out.rows)
        return {place: row.again for place, row in enumerate(rows) if row.again}


def questions(
    sides: Sides, config: RunConfig, given: Mapping[str, Any], stop: Callable[[], bool]
) -> list[QuestionItems]:
    """The loss and the metrics of every run. `given` are the settings that the user gave: they go before a run's own."""
    examples = data_load.load(config.data.path, config.data, held_out=True).examples
    if not isinstance(examples[0], Chat | Text):
        kind = type(examples[0]).__name__.lower()
        raise InputError(f"these are {kind} rows", where=examples[0].origin, fix="give chats or texts")
    chosen_metrics(config.eval.metrics, ())
    user_metrics.check(config.eval.metrics, config.reward)
    for name in chain.from_iterable(sides.values()):  # wrong names are told before the first model answers
        warn_of_seen(name, resolve_model(name, base_for(name, config.base)).config, examples)
    measured = {
        label: [_measured(name, examples, config, given, stop) for name in names] for label, names in sides.items()
    }
    all_runs = [side for runs in measured.values() for side in runs]
    if len({side.template for side in all_runs}) > 1:
        log.note(
            "the models are asked by different templates or system prompts, each by its own; --text.template and --system "
            "set one for all"
        )
    items = loss_question(measured, all_runs, examples)
    rows = sorted(set.intersection(*(set(side.answers) for side in all_runs)))
    if rows:
        items += metric_questions(measured, all_runs, rows, examples, config)
    return items


def _measured(
    name: str, examples: Sequence[Example], config: RunConfig, given: Mapping[str, Any], stop: Callable[[], bool]
) -> MeasuredRun:
    opened = open_model(name, device=config.device, dtype=config.dtype, base=base_for(name, config.base))
    method = likelihood_method(examples[0])
    run_settings = {"method": method, "eval": config.eval.model_dump(), "seed": config.seed}
    settings = resolve(
        opened.config.model_dump(), run_settings, {k: v for k, v in given.items() if k.startswith("text.")}
    )
    template = load_template(settings.text.template, opened.tokenizer, settings.text.template_kwargs)
    encoded = encode(examples, template, opened.tokenizer, settings.text, skip_bad=config.data.skip_bad)
    device = next(opened.model.parameters()).device
    evaluator = Evaluator(
        opened.model, opened.tokenizer, template, settings, packing_of(settings, opened.model), device
    )
    held_out = evaluator.held_out(examples, encoded.trees)
    measured = evaluator.measure(held_out, stop, (), title=name, again=True)
    rows = measured_rows(held_out, measured)
    cut = {tree.row for tree in encoded.trees if tree.cut}
    if cut_rows := len(cut & {number for number, row in rows.items() if row.loss is not None}):
        log.note(
            f"{name}: {cut_rows} rows were longer than --text.max_length {settings.text.max_length}; their loss is left out"
        )
    rows = {number: replace(row, loss=None, units=0) if number in cut else row for number, row in rows.items()}
    side = MeasuredRun(rows, f"{template.name} {settings.text.system or ''}", replace(held_out, trees=()))
    del opened, evaluator
    gc.collect()
    return side


def loss_question(
    measured: Mapping[str, Sequence[MeasuredRun]], all_runs: Sequence[MeasuredRun], examples: Sequence[Example]
) -> list[QuestionItems]:
    """The loss in nats per token where all count the same tokens, else per byte of text: tokens of different
    vocabularies are no common measure."""
    losses = {label: [side.losses for side in runs] for label, runs in measured.items()}
    every = list(chain.from_iterable(losses.values()))
    rows = sorted(set.intersection(*map(set, every)))
    if not rows:
        return []
    units = [[one[row][1] for row in rows] for one in every]
    same = all(counts == units[0] for counts in units)
    weights = units[0] if same else [max(1, len(_learned_text(examples[row]).encode())) for row in rows]
    values = {label: np.array([[one[row][0] for row in rows] for one in runs]) for label, runs in losses.items()}
    title = "loss per token" if same else "loss per byte"
    question = paired.Question("loss", values, np.array(weights, dtype=float), title, higher_is_better=False)
    return [
        QuestionItems(
            question, [Item(str(examples[row].origin), reference=_learned_text(examples[row])) for row in rows]
        )
    ]


def _learned_text(example: Example) -> str:
    """The text whose loss is measured, as far as the row itself goes."""
    if isinstance(example, Chat):
        return "\n".join(message.content for message in example.messages if message.role == "assistant")
    assert isinstance(example, Text)
    return example.text


def metric_questions(
    measured: Mapping[str, Sequence[MeasuredRun]], all_runs: Sequence[MeasuredRun], rows: Sequence[int],
    examples: Sequence[Example], config: RunConfig,
) -> list[QuestionItems]:  # fmt: skip
    first = [all_runs[0].rows[row] for row in rows]
    references = [row.reference for row in first]
    prompts = [row.prompt for row in first]
    known = [e.messages[-1].content for e in examples if isinstance(e, Chat) and e.messages[-1].role == "assistant"]
    names = chosen_metrics(config.eval.metrics, known)
    scores = {
        label: [
            score.score(
                [side.rows[row].answer or "" for row in rows],
                references,
                prompts,
                names,
                [side.rows[row].ended or "" for row in rows],
                config.reward,
            )
            for side in runs
        ]
        for label, runs in measured.items()
    }
    items = [
        Item(str(examples[row.row].origin), row.prompt, row.reference,
             {label: runs[0].rows[row.row].answer or "" for label, runs in measured.items()})
        for row in first
    ]  # fmt: skip
    right = next((name for name in names if name in CORRECTNESS), None)
    answer, share = commonest(references)
    out = []
    for name in names:
        values = {label: np.array([run[name] for run in runs]) for label, runs in scores.items()}
        ranked = name == right if right else name not in METRICS or METRICS[name].whole is None
        baseline = {"answer": answer, "share": share} if name == "accuracy" and answer else None
        out.append(
            QuestionItems(
                paired.Question(name, values, **score.about_metric(name)), items, ranked=ranked, baseline=baseline
            )
        )
    return out + _repeat_questions(measured, names)


def _repeat_questions(measured: Mapping[str, Sequence[MeasuredRun]], names: Sequence[str]) -> list[QuestionItems]:
    """What `eval.repeat` measured; the prompts that were asked again are the same for all, or nothing is compared."""
    figures = {
        label: [
            repeated_prompts.repeat_figures(
                side.held_out, [side.rows[row].answer or "" for row in side.held_out.rows], side.asked_again, names
            )
            for side in runs
        ]
        for label, runs in measured.items()
    }
    rows_asked_again = {
        tuple(number for number, row in side.rows.items() if row.again) for runs in measured.values() for side in runs
    }
    if len(rows_asked_again) > 1:
        log.note("the models were not asked the same prompts again: what --eval.repeat measures is left out")
        return []
    return [
        QuestionItems(
            paired.Question(
                name, {label: np.array([run[name] for run in runs]) for label, runs in figures.items()},
                **repeated_prompts.about(name),
            ),
            (),
        )
        for name in next(iter(figures.values()))[0]
    ]  # fmt: skip
