"""Who is compared: models, runs, files of answers and the data's own answers, all on the same prompts."""

from __future__ import annotations

import gc
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.config.data import DataConfig
from luthier.core import log, seeds
from luthier.core.errors import InputError
from luthier.core.storage.files import writing
from luthier.core.storage.sums import checked, with_sum
from luthier.core.types.examples import Messages
from luthier.data import load as data_load
from luthier.data.read import read_rows
from luthier.evals.judging.judgments import prompt_key, prompt_of, prompt_value
from luthier.rewards.selection import prompt_record
from luthier.runs import answers
from luthier.runs.locate import base_for, resolve_model
from luthier.runs.open import open_model

REFERENCE = "reference"  # as a contestant: the answers of the data


@dataclass(frozen=True)
class Prompts:
    """What all are asked, with the data's own answer where there is one. `too_long` counts what is left out because it does not
    fit the context of a contestant."""

    messages: tuple[Messages, ...]
    references: tuple[str | None, ...]
    too_long: int = 0


@dataclass(frozen=True)
class AnswerOptions:
    """How contestants come to their answers. `base` and `system` are those of `open_model`.
    `out` is the file that the answers of models are kept beside."""

    data: DataConfig
    rows: int
    max_new_tokens: int
    out: Path
    seed: int
    device: str
    dtype: str
    base: str | None = None
    system: str | None = None


def label_contestants(contestants: Sequence[str], where: str) -> dict[str, str]:
    """label -> name, from NAME or LABEL=NAME; a path is labelled by its last part, or whole where that stands twice.

    Raises InputError, with the command `where` as its example, for fewer than two and for two of one label.
    """
    pairs = []
    for text in contestants:
        label, sign, name = text.partition("=")
        pairs.append((label, name) if sign and label and name and not Path(text).exists() else (None, text))
    short_names = Counter(Path(name).name for label, name in pairs if label is None)
    labels = [label or (Path(name).name if short_names[Path(name).name] == 1 else name) for label, name in pairs]
    repeated = next((label for label, count in Counter(labels).items() if count > 1), None)
    if repeated:
        raise InputError(f"two are called '{repeated}'", fix="give them labels: LABEL=NAME")
    if len(pairs) < 2:
        raise InputError("a comparison needs two or more", fix=f"for example `{where} smollm2-135m runs/mine`")
    return dict(zip(labels, (name for _, name in pairs), strict=True))


def answer_prompts(
    names: Mapping[str, str], options: AnswerOptions, stop: Callable[[], bool]
) -> tuple[Prompts, dict[str, list[str]]]:
    """The prompts that all contestants answer, and their answers by label.

    Raises InputError for bad files and when no prompt is left. What models write is kept, and not written again.
    """
    answer_files = {label: read_answers(Path(name)) for label, name in names.items() if _is_answer_file(name)}
    if options.data.path:
        prompts = _prompts_of_data(options)
    elif len(answer_files) == len(names):
        all_prompts = {
            key: prompt for file_answers in answer_files.values() for key, (prompt, _) in file_answers.items()
        }
        prompts = Prompts(tuple(all_prompts.values()), (None,) * len(all_prompts))
    else:
        raise InputError("no prompts are given", where="--data", fix="give rows with prompts")
    answered_by_all = [
        (prompt, reference)
        for prompt, reference in zip(prompts.messages, prompts.references, strict=True)
        if all(prompt_key(prompt) in file_answers for file_answers in answer_files.values())
    ]
    if not answered_by_all:
        raise InputError("no prompt is answered by all", fix="the prompts must be the same texts")
    messages, references = zip(*answered_by_all, strict=True)
    prompts = Prompts(messages, references)
    answers_by_label = {
        label: _answers_of(label, name, prompts, answer_files.get(label), options, stop)
        for label, name in names.items()
    }
    return _drop_too_long(prompts, answers_by_label)


def _drop_too_long(
    prompts: Prompts, answers_by_label: Mapping[str, Sequence[str | None]]
) -> tuple[Prompts, dict[str, list[str]]]:
    """The prompts that fit the context of every contestant, and the answers to them: the others are left out, as pairs are that do
    not fit the judge's."""
    fitting = [
        i for i in range(len(prompts.messages)) if all(given[i] is not None for given in answers_by_label.values())
    ]
    left_out = len(prompts.messages) - len(fitting)
    if not fitting:
        raise InputError("no prompt fits the context of every contestant", fix="give shorter ones")
    if left_out:
        log.warn(
            f"{left_out} of {len(prompts.messages)} prompts do not fit the context of a contestant, and are left out"
        )
    chosen = Prompts(
        tuple(prompts.messages[i] for i in fitting), tuple(prompts.references[i] for i in fitting), left_out
    )
    return chosen, {label: [str(given[i]) for i in fitting] for label, given in answers_by_label.items()}


def _is_answer_file(name: str) -> bool:
    """Whether a contestant is a file of answers; a .gguf file is a model."""
    return Path(name).is_file() and not name.lower().endswith(".gguf")


def _answers_of(
    label: str, name: str, prompts: Prompts, file_answers: Mapping[Any, tuple[Messages, str]] | None, options: AnswerOptions,
    stop: Callable[[], bool],
) -> Sequence[str | None]:  # fmt: skip
    """The answers to the prompts; None for those that do not fit a model's context."""
    if file_answers is not None:
        return [file_answers[prompt_key(prompt)][1] for prompt in prompts.messages]
    if name != REFERENCE:
        return generate_or_reuse(label, name, prompts.messages, options, stop)
    if None in prompts.references:
        raise InputError(
            "a prompt without an answer in the data", where=REFERENCE, fix="give rows with answers: --data"
        )
    return [str(reference) for reference in prompts.references]


def _prompts_of_data(options: AnswerOptions) -> Prompts:
    """`rows` prompts of the data, drawn with the seed, in the order of the files."""
    questions = [
        row_question
        for example in data_load.load(options.data.path, options.data, held_out=True).examples
        if (row_question := prompt_record(example))
    ]
    unique = list({prompt_key(row_question.messages): row_question for row_question in questions}.values())
    if not unique:
        raise InputError(
            "no row has a prompt to answer", where=options.data.path[0], fix="give chats, or prompts with answers"
        )
    if with_extras := sum(bool(row_question.tools or row_question.template_kwargs) for row_question in unique):
        log.warn(f"{with_extras} prompts have tools or template values; the models are prompted without them")
    order = seeds.generator(options.seed, "prompts").permutation(len(unique))[: options.rows]
    chosen = [unique[i] for i in sorted(order)]
    return Prompts(
        tuple(row_question.messages for row_question in chosen),
        tuple(row_question.reference for row_question in chosen),
    )


def read_answers(path: Path) -> dict[Any, tuple[Messages, str]]:
    """The answers in a file, by prompt."""
    out = {}
    for row in read_rows([str(path)]):
        if "made" in row.fields:
            checked(row.fields, row.origin, "put the file back from a copy, or remove it to answer anew")
        prompt, answer = prompt_of(row), row.fields.get("answer")
        if not isinstance(answer, str):
            raise InputError(
                "a row without a text 'answer'", where=row.origin, fix='write {"prompt": ..., "answer": ...}'
            )
        out[prompt_key(prompt)] = (prompt, answer)
    return out


def generate_or_reuse(
    label: str, name: str, prompts: Sequence[Messages], options: AnswerOptions, stop: Callable[[], bool]
) -> list[str | None]:
    """A model's likeliest answers. They are kept in a file that can be given as a contestant itself; what stands there
    of the same weights is not written again."""
    sampling = {"max_new_tokens": options.max_new_tokens}
    resolved = resolve_model(name, base_for(name, options.base))
    system = resolved.config.text.system if options.system is None else options.system or None
    conditions = [resolved.digests(), sampling, resolved.config.text.template, system]
    conditions += [resolved.config.text.template_kwargs] if resolved.config.text.template_kwargs else []
    conditions += [options.dtype] if options.dtype != "auto" else []
    fingerprint = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]
    file_label = "".join(c if c.isalnum() or c in "-_." else "-" for c in label)
    path = options.out.with_name(f"{options.out.stem}.{file_label}.answers.jsonl")
    known: dict[Any, tuple[Messages, str]] = {}
    if path.is_file() and all(row.fields.get("made") == fingerprint for row in read_rows([str(path)])):
        known = read_answers(path)
    missing = [prompt for prompt in prompts if prompt_key(prompt) not in known]
    if missing:
        opened = open_model(
            name, device=options.device, dtype=options.dtype, base=base_for(name, options.base), system=options.system
        )
        too_long = answers.too_long(opened, missing)
        missing = [prompt for i, prompt in enumerate(missing) if i not in too_long]
        texts = answers.write(opened, missing, sampling, stop, label) if missing else []
        del opened
        gc.collect()
        known |= {prompt_key(prompt): (prompt, text[0]) for prompt, text in zip(missing, texts, strict=True)}
    if missing:
        with writing(path) as handle:
            for prompt, text in known.values():
                record = {"prompt": prompt_value(prompt), "answer": text, "model": label, "made": fingerprint}
                handle.write(json.dumps(with_sum(record), ensure_ascii=False) + "\n")
    return [known.get(prompt_key(prompt), (prompt, None))[1] for prompt in prompts]
