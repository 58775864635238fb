"""Measure a model on held-out rows: loss, generated answers and their scores, what it lost of itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from luthier.core import log, seeds
from luthier.core.config import RunConfig
from luthier.core.errors import RunError, Stopped
from luthier.core.types import Chat, Example, Message, Node, TokenTree
from luthier.evals import forgetting as forgot
from luthier.evals import score
from luthier.model.forward import forward
from luthier.model.generate import Sample, generate
from luthier.model.sample import Sampling
from luthier.text.encode import encode_prompt_ids
from luthier.train.loop import example_losses
from luthier.train.steps import Packing, scoring_batches

Cancelled = Callable[[], bool]
General = Sequence[tuple[tuple[int, ...], tuple[int, ...]]]  # (prompt ids, answer ids)
BATCH = 64  # answers that are generated at once
GENERAL_TOKENS = 48  # of each of the model's own answers, whose loss of likelihood is measured


@dataclass(frozen=True)
class HeldOut:
    """What is measured: trees for the loss; prompts, with their rows, ids and references, for generation."""

    trees: Sequence[TokenTree]
    rows: Sequence[int] = ()
    prompts: Sequence[str] = ()
    prompt_ids: Sequence[tuple[int, ...]] = ()
    references: Sequence[str] = ()


@dataclass(frozen=True)
class Measured:
    """One measurement: (row, summed nats, tokens) of each row, generated answers, and (log-likelihood, tokens) of
    the `general` answers."""

    losses: tuple[tuple[int, float, int], ...] = ()
    answers: tuple[str, ...] = ()
    general: tuple[tuple[float, int], ...] = ()
    general_ids: General = ()

    @property
    def loss(self) -> float | None:
        """Mean loss in nats per token over all held-out tokens, whatever the batches."""
        tokens = sum(count for _, _, count in self.losses)
        return sum(nats for _, nats, _ in self.losses) / tokens if tokens else None


class Ruler:
    """Measures one model again and again in the same way."""

    def __init__(
        self, model: Any, tokenizer: Any, template: Any, config: RunConfig, packing: Packing, device: torch.device
    ):
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.config, self.packing, self.device = config, packing, device

    def held_out(self, examples: Sequence[Example], trees: Sequence[TokenTree]) -> HeldOut:
        """Choose the rows: `eval.rows` for the loss, `eval.samples` with an answer to generate it.

        Drawn with the run's seed, because held-out files are often sorted by label or source.
        """
        order = [int(row) for row in seeds.generator(self.config.seed, "held out").permutation(len(examples))]
        measured = set(order[: self.config.eval.rows])
        kept = [tree for tree in trees if tree.row in measured]
        encoded = {tree.row for tree in trees}  # what the template or the length limit refused is not asked either
        asked: list[tuple[int, str, tuple[int, ...], str]] = []
        for row in order:
            example = examples[row]
            if len(asked) == self.config.eval.samples or not isinstance(example, Chat):
                break
            *before, last = example.messages
            if row not in encoded or last.role != "assistant" or last.tool_calls or not before:
                continue
            prompt = tuple(self._prompt(before, example.tools))
            if len(prompt) <= self.config.text.max_length:
                asked.append((row, before[-1].as_dict()["content"], prompt, last.content))
        rows, prompts, ids, references = zip(*sorted(asked), strict=True) if asked else ((), (), (), ())
        return HeldOut(kept, rows, prompts, ids, references)

    def losses(self, trees: Sequence[TokenTree], stop: Cancelled, title: str) -> tuple[tuple[int, float, int], ...]:
        """(row, summed negative log-likelihood in nats, tokens), rows in order; a row of several trees is one."""
        sums: dict[int, tuple[float, int]] = {tree.row: (0.0, 0) for tree in trees}
        self.model.eval()
        with log.progress(title, len(trees)) as bar, torch.no_grad():
            for batch in scoring_batches(trees, self.packing):
                if stop():
                    raise Stopped("stopped while measuring")
                batch = batch.to(self.device)
                for row, nats, count in example_losses(batch, forward(self.model, batch)):
                    sums[row] = (sums[row][0] + nats, sums[row][1] + count)
                bar.advance(len(batch.rows))
        if any(not math.isfinite(nats) for nats, _ in sums.values()):
            raise RunError("the held-out loss is not finite", mend="try --dtype float32")
        return tuple((row, nats, count) for row, (nats, count) in sorted(sums.items()))

    def answers(self, prompt_ids: Sequence[Sequence[int]], longest: int, stop: Cancelled, title: str) -> list[Sample]:
        """Greedy answers to prompts."""
        if not prompt_ids:
            return []
        sampling = Sampling(
            max_new_tokens=longest, stop_ids=tuple(sorted(self.template.stop_ids)), stop=self.template.stops
        )
        made = 0
        with log.progress(title, None) as bar:

            def moved(count: int) -> None:
                nonlocal made
                made += count
                bar.advance(count)

            out = generate(
                self.model, prompt_ids, sampling, self.tokenizer.decode, batch=BATCH, progress=moved, cancelled=stop
            )
        if stop():
            raise Stopped("stopped while generating")
        return out

    def measure(self, held_out: HeldOut, stop: Cancelled, general: General | None, *, title: str) -> Measured:
        """Everything: loss, answers, and the likelihood of the `general` answers, which are made now when None."""
        losses = self.losses(held_out.trees, stop, f"{title}: held-out loss")
        answers = self.answers(held_out.prompt_ids, self.config.eval.max_new_tokens, stop, f"{title}: answers, tokens")
        pairs = self._own_answers(stop, title) if general is None else general
        trees = [
            TokenTree((Node(prompt + answer, (False,) * len(prompt) + (True,) * len(answer)),), row=i)
            for i, (prompt, answer) in enumerate(pairs)
        ]
        kept = self.losses(trees, stop, f"{title}: its own earlier answers") if trees else ()
        return Measured(
            losses=losses,
            answers=tuple(sample.text for sample in answers),
            general=tuple((-nats, count) for _, nats, count in kept),
            general_ids=pairs,
        )

    def _prompt(self, messages: Sequence[Message], tools: Any) -> list[int]:
        return encode_prompt_ids(messages, tools, self.template, self.tokenizer, system=self.config.text.system)

    def _own_answers(self, stop: Cancelled, title: str) -> General:
        prompts = [tuple(self._prompt([Message("user", text)], ())) for text in forgot.GENERAL_PROMPTS]
        samples = self.answers(prompts, GENERAL_TOKENS, stop, f"{title}: general answers, tokens")
        return [(prompts[s.prompt], s.ids) for s in samples]


def to_records(held_out: HeldOut, measured: Measured) -> list[dict[str, Any]]:
    """A measurement as JSONL lines: held-out rows first, then the general answers."""
    records: dict[int, dict[str, Any]] = {}
    for row, nats, count in measured.losses:
        records[row] = {"row": row, "nats": nats, "tokens": count}
    for i, answer in enumerate(measured.answers):
        record = records.setdefault(held_out.rows[i], {"row": held_out.rows[i]})
        record |= {"prompt": held_out.prompts[i], "reference": held_out.references[i], "answer": answer}
    general = [
        {"general": list(answer), "prompt_ids": list(prompt), "logp": logp, "tokens": count}
        for (logp, count), (prompt, answer) in zip(measured.general, measured.general_ids, strict=True)
    ]
    return [records[row] for row in sorted(records)] + general


def from_records(records: Sequence[dict[str, Any]]) -> Measured:
    """The reverse of `to_records`."""
    rows = [record for record in records if "general" not in record]
    general = [record for record in records if "general" in record]
    return Measured(
        losses=tuple((r["row"], r["nats"], r["tokens"]) for r in rows if "nats" in r),
        answers=tuple(r["answer"] for r in rows if "answer" in r),
        general=tuple((r["logp"], r["tokens"]) for r in general),
        general_ids=tuple((tuple(r["prompt_ids"]), tuple(r["general"])) for r in general),
    )


def scores(held_out: HeldOut, measured: Measured, names: Sequence[str]) -> score.Scores:
    """Every metric of every answer: name -> one number per answer."""
    return score.score(measured.answers, held_out.references, held_out.prompts, names)


def compare(
    held_out: HeldOut, before: Measured, after: Measured, names: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """The table before | after: the held-out loss first, then the metrics of the answers, each with its interval."""
    rows = []
    if before.losses:
        old = [nats for _, nats, _ in before.losses]
        new = [nats for _, nats, _ in after.losses]
        rows.append(score.loss_row(old, new, [count for _, _, count in before.losses], seed=seed))
    if before.answers:
        rows += score.table(scores(held_out, before, names), scores(held_out, after, names), seed=seed)
    return rows
