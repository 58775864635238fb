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
from luthier.rewards.selection import question
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


def named(contestants: Sequence[str], where: str) -> dict[str, str]:
    """label -> name, from NAME or LABEL=NAME; a path is labelled by its last part, or whole where that stands twice.

    Raises InputError, with the command `where` as its example, for fewer than two and for two of one label.
    """
    pairs = []
    for text in contestants:
        label, sign, name = text.partition("=")
        pairs.append((label, name) if sign and label and name and not Path(text).exists() else (None, text))
    short = Counter(Path(name).name for label, name in pairs if label is None)
    labels = [label or (Path(name).name if short[Path(name).name] == 1 else name) for label, name in pairs]
    double = next((label for label, count in Counter(labels).items() if count > 1), None)
    if double:
        raise InputError(f"two are called '{double}'", fix="give them labels: LABEL=NAME")
    if len(pairs) < 2:
        raise InputError("a comparison needs two or more", fix=f"for example `{where} smollm2-135m runs/mine`")
    return dict(zip(labels, (name for _, name in pairs), strict=True))


def answered(
    names: Mapping[str, str], asking: AnswerOptions, stop: Callable[[], bool]
) -> tuple[Prompts, dict[str, list[str]]]:
    """The prompts that all contestants answer, and their answers by label.

    Raises InputError for bad files and when no prompt is left. What models write is kept, and not written again.
    """
    files = {label: _from_file(Path(name)) for label, name in names.items() if _is_answers(name)}
    if asking.data.path:
        prompts = _from_data(asking)
    elif len(files) == len(names):
        found = {key: prompt for answers_ in files.values() for key, (prompt, _) in answers_.items()}
        prompts = Prompts(tuple(found.values()), (None,) * len(found))
    else:
        raise InputError("which prompts are answered?", where="--data", fix="give rows with prompts")
    both = [
        (prompt, reference)
        for prompt, reference in zip(prompts.messages, prompts.references, strict=True)
        if all(prompt_key(prompt) in answers_ for answers_ in files.values())
    ]
    if not both:
        raise InputError("no prompt is answered by all", fix="the prompts must be the same texts")
    messages, references = zip(*both, strict=True)
    prompts = Prompts(messages, references)
    given = {label: _answers(label, name, prompts, files.get(label), asking, stop) for label, name in names.items()}
    return _fitting(prompts, given)


def _fitting(prompts: Prompts, given: Mapping[str, Sequence[str | None]]) -> tuple[Prompts, dict[str, list[str]]]:
    """The prompts that fit the context of every contestant, and the answers to them: the others are left out, as pairs are that do
    not fit the judge's."""
    fit = [i for i in range(len(prompts.messages)) if all(answers_[i] is not None for answers_ in given.values())]
    left_out = len(prompts.messages) - len(fit)
    if not fit:
        raise InputError("no prompt fits the context of every contestant", fix="give shorter ones")
    if left_out:
        log.warn(
            f"{left_out} of {len(prompts.messages)} prompts do not fit the context of a contestant, and are left out"
        )
    chosen = Prompts(tuple(prompts.messages[i] for i in fit), tuple(prompts.references[i] for i in fit), left_out)
    return chosen, {label: [str(answers_[i]) for i in fit] for label, answers_ in given.items()}


def _is_answers(name: str) -> bool:
    """Whether a contestant is a file of answers; a .gguf file is a model."""
    return Path(name).is_file() and not name.lower().endswith(".gguf")


def _answers(
    label: str, name: str, prompts: Prompts, file: Mapping[Any, tuple[Messages, str]] | None, asking: AnswerOptions,
    stop: Callable[[], bool],
) -> Sequence[str | None]:  # fmt: skip
    """The answers to the prompts; None for those that do not fit a model's context."""
    if file is not None:
        return [file[prompt_key(prompt)][1] for prompt in prompts.messages]
    if name != REFERENCE:
        return _written(label, name, prompts.messages, asking, stop)
    if None in prompts.references:
        raise InputError(
            "a prompt without an answer in the data", where=REFERENCE, fix="give rows with answers: --data"
        )
    return [str(reference) for reference in prompts.references]


def _from_data(asking: AnswerOptions) -> Prompts:
    """`rows` prompts of the data, drawn with the seed, in the order of the files."""
    found = [
        asked
        for example in data_load.load(asking.data.path, asking.data, held_out=True).examples
        if (asked := question(example))
    ]
    unique = list({prompt_key(asked.messages): asked for asked in found}.values())
    if not unique:
        raise InputError(
            "no row has a prompt to answer", where=asking.data.path[0], fix="give chats, or prompts with answers"
        )
    if beside := sum(bool(asked.tools or asked.template_kwargs) for asked in unique):
        log.warn(f"{beside} prompts have tools or template values; the models are prompted without them")
    order = seeds.generator(asking.seed, "prompts").permutation(len(unique))[: asking.rows]
    chosen = [unique[i] for i in sorted(order)]
    return Prompts(tuple(asked.messages for asked in chosen), tuple(asked.reference for asked in chosen))


def _from_file(path: Path) -> dict[Any, tuple[Messages, str]]:
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


def _written(
    label: str, name: str, prompts: Sequence[Messages], asking: AnswerOptions, stop: Callable[[], bool]
) -> list[str | None]:
    """A model's likeliest answers. They are kept in a file that can be given as a contestant itself; what stands there
    of the same weights is not written again."""
    sampling = {"max_new_tokens": asking.max_new_tokens}
    start = resolve_model(name, base_for(name, asking.base))
    system = start.config.text.system if asking.system is None else asking.system or None
    made = [start.digests(), sampling, start.config.text.template, system]
    made += [start.config.text.template_kwargs] if start.config.text.template_kwargs else []
    made += [asking.dtype] if asking.dtype != "auto" else []
    mark = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in label)
    path = asking.out.with_name(f"{asking.out.stem}.{plain}.answers.jsonl")
    found: dict[Any, tuple[Messages, str]] = {}
    if path.is_file() and all(row.fields.get("made") == mark for row in read_rows([str(path)])):
        found = _from_file(path)
    missing = [prompt for prompt in prompts if prompt_key(prompt) not in found]
    if missing:
        opened = open_model(
            name, device=asking.device, dtype=asking.dtype, base=base_for(name, asking.base), system=asking.system
        )
        long = answers.too_long(opened, missing)
        missing = [prompt for i, prompt in enumerate(missing) if i not in long]
        texts = answers.write(opened, missing, sampling, stop, label) if missing else []
        del opened
        gc.collect()
        found |= {prompt_key(prompt): (prompt, text[0]) for prompt, text in zip(missing, texts, strict=True)}
    if missing:
        with writing(path) as handle:
            for prompt, text in found.values():
                record = {"prompt": prompt_value(prompt), "answer": text, "model": label, "made": mark}
                handle.write(json.dumps(with_sum(record), ensure_ascii=False) + "\n")
    return [found.get(prompt_key(prompt), (prompt, None))[1] for prompt in prompts]
