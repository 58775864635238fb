"""A task and a model -> one record a document, in the order in which they become known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf
from typing import Any

from luthier.core.errors import InputError
from luthier.evals.benchmarks.documents import Document
from luthier.evals.benchmarks.encode import HarnessTokenizer
from luthier.evals.benchmarks.files import Material
from luthier.evals.benchmarks.prompts import Prompt, Render, Shots, prompt
from luthier.evals.benchmarks.tasks import Task
from luthier.evals.likelihood import Likelihood, LikelihoodScorer
from luthier.evals.prefix_forest import Ids

WINDOW = 128  # documents that are made ready and packed together, measured anew after a kill between them
WINDOW_CHARACTERS = 1 << 17  # of texts, after which a window ends
MAX_NEW_TOKENS = 256  # longest generated answer
STOPS = ("Question:", "</s>", "<|im_end|>")

Record = dict[str, Any]
Write = Callable[[Sequence[Ids], Sequence[str]], list[str]]  # (prompts, where to stop) -> answers
Chosen = tuple[int, Document, Prompt]


@dataclass(frozen=True)
class Engine:
    """What measures: `write` continues prompts by the likeliest tokens, `chat` renders messages or is None."""

    scorer: LikelihoodScorer
    coder: HarnessTokenizer
    write: Write
    chat: Render | None = None


def chosen(documents: Sequence[Document], limit: int | None) -> list[int]:
    """The documents to measure: all, or the first `limit` of each group, as the harness limits each of its tasks."""
    seen: Counter[str] = Counter()
    out = []
    for index, document in enumerate(documents):
        seen[document.group] += 1
        if limit is None or seen[document.group] <= limit:
            out.append(index)
    return out


def measure(
    task: Task, material: Material, engine: Engine, *, shots: int, limit: int | None = None, done: Collection[int] = ()
) -> Iterator[Record]:
    """The records of the task's documents, without those that are `done`. See docs/benchmarks.md for their fields.

    Documents are measured in windows, each by itself: one of which any document is not done is measured as a whole, so that
    every bit is that of a measurement which was never interrupted.
    """
    draws = Shots(task, material, shots)
    for window in windows(material.documents, chosen(material.documents, limit), task):
        drawn = [(index, material.documents[index], draws.draw(material.documents[index])) for index in window]
        if all(index in done for index in window):
            continue
        engine.scorer.forget()
        asked = [(i, document, prompt(task, document, examples, engine.chat)) for i, document, examples in drawn]
        for record in MEASURES[task.kind](task, asked, engine):
            if record["doc"] not in done:
                yield record


def windows(documents: Sequence[Document], places: Sequence[int], task: Task) -> Iterator[list[int]]:
    """The documents at these places, as many as are measured together; of long texts fewer."""
    window: list[int] = []
    size = 0
    for index in places:
        window.append(index)
        size += len(documents[index].answer) if task.kind == "text" else 0
        if len(window) == WINDOW or size >= WINDOW_CHARACTERS:
            yield window
            window, size = [], 0
    if window:
        yield window


def _scored(window: Sequence[Chosen], engine: Engine) -> Iterator[tuple[int, Document, list[Likelihood]]]:
    """The documents of a window with an answer for each of their choices."""
    pairs = [part.pairs for _, _, part in window]
    owners = [(owner, choice) for owner, part in enumerate(pairs) for choice in range(len(part))]
    requests = engine.coder.requests([pair for part in pairs for pair in part])
    for (owner, choice), request in zip(owners, requests, strict=True):
        if not request.continuation:  # it would be sure, and win; the harness stops here too
            what = f"choice {choice + 1} is empty, or one token with the end of the question"
            raise InputError(what, where=window[owner][1].origin, fix="leave the document out")
    answers: dict[int, dict[int, Likelihood]] = {}
    for place, answer in engine.scorer.answer(requests):
        owner, choice = owners[place]
        found = answers.setdefault(owner, {})
        found[choice] = answer
        if len(found) == len(pairs[owner]):
            index, document, _ = window[owner]
            yield index, document, [found[i] for i in sorted(answers.pop(owner))]


def _choices(task: Task, window: Sequence[Chosen], engine: Engine) -> Iterator[Record]:
    for index, document, answers in _scored(window, engine):
        logp = [answer.logp for answer in answers]
        choices = document.choices if len(document.choices) > 1 else document.contexts
        record = _record(index, document) | {"choices": list(choices), "gold": document.gold, "logp": logp}
        record["pick"] = _best(logp)
        if document.true:
            record |= {"true": list(document.true), "mc2": share_of(logp, document.true)}
        if "acc_norm" in task.metrics:
            lengths = [len(choice) for choice in choices]
            record["pick_norm"] = _best([a / b if b else -inf for a, b in zip(logp, lengths, strict=True)])
        record |= {name: float(record[pick] == document.gold) for name, pick in PICKS.items() if name in task.metrics}
        yield record | {"cut": max(answer.cut for answer in answers)}


PICKS = {"acc": "pick", "acc_norm": "pick_norm"}


def _last_words(task: Task, window: Sequence[Chosen], engine: Engine) -> Iterator[Record]:
    for index, document, (answer,) in _scored(window, engine):
        yield _record(index, document) | {
            "gold": document.answer, "logp": answer.logp, "acc": float(answer.greedy), "cut": answer.cut,
        }  # fmt: skip


def _generated(task: Task, window: Sequence[Chosen], engine: Engine) -> Iterator[Record]:
    prompts = engine.coder.encode([part.contexts[0] for _, _, part in window])
    room = engine.scorer.room - MAX_NEW_TOKENS
    if room < 1:
        raise InputError(
            f"the model's context of {engine.scorer.room} tokens has no room for answers of {MAX_NEW_TOKENS}",
            fix=f"leave {task.name} out",
        )
    answers = engine.write([ids[-room:] for ids in prompts], STOPS)
    for (index, document, _), ids, answer in zip(window, prompts, answers, strict=True):
        found = {"exact_match": strict_answer(answer), "exact_match_flexible": flexible_answer(answer)}
        scores = {name: float(bare_number(text) == bare_number(document.answer)) for name, text in found.items()}
        yield _record(index, document) | {
            "gold": document.answer, "answer": answer, "found": found, "cut": max(0, len(ids) - room), **scores,
        }  # fmt: skip


def _perplexities(task: Task, window: Sequence[Chosen], engine: Engine) -> Iterator[Record]:
    tokens = engine.coder.encode([document.answer for _, document, _ in window])
    for place, logp in engine.scorer.rolling(tokens, engine.coder.prefix):
        index, document, _ = window[place]
        yield {
            "doc": index, "origin": str(document.origin), "logp": logp, "tokens": len(tokens[place]),
            "words": len(re.split(r"\s+", document.original)), "bytes": len(document.original.encode()), "cut": 0,
        }  # fmt: skip


MEASURES: dict[str, Callable[[Task, Sequence[Chosen], Engine], Iterator[Record]]] = {
    "choices": _choices,
    "words": _last_words,
    "generated": _generated,
    "text": _perplexities,
}


def _record(index: int, document: Document) -> Record:
    group = {"group": document.group} if document.group else {}
    return {"doc": index, "origin": str(document.origin), **group, "question": document.asked}


def _best(values: Sequence[float]) -> int:
    """The first of the largest."""
    return max(range(len(values)), key=values.__getitem__)


def share_of(logp: Sequence[float], true: Sequence[bool]) -> float:
    """The share of the probability of all answers that the true ones have (TruthfulQA's mc2)."""
    top = max(logp)
    shares = [exp(value - top) for value in logp]
    return sum(share for share, right in zip(shares, true, strict=True) if right) / sum(shares)


def strict_answer(answer: str) -> str:
    """GSM8K: the number after the first `#### `."""
    found = re.search(r"#### (-?[0-9.,]+)", answer)
    return found[1].strip() if found else "[invalid]"


def flexible_answer(answer: str) -> str:
    """GSM8K: the last thing that looks like a number."""
    found = re.findall(r"-?[$0-9.,]{2,}|-?[0-9]+", answer)
    return str(found[-1]).strip() if found else "[invalid]"


def bare_number(text: str) -> str:
    """A number without commas, dollar signs, what leads to it, and a final stop."""
    for pattern in (",", r"\$", "(?s).*#### ", r"\.$"):
        text = re.sub(pattern, "", text)
    return text.lower()
