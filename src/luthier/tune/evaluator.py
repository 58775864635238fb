"""Measure a model on held-out rows: loss, generated answers and their scores, what it lost of itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from luthier.config.config import EVAL_ROWS, EVAL_SAMPLES, RunConfig
from luthier.core import log, seeds
from luthier.core.errors import RunError, Stopped
from luthier.core.types import Batch, Chat, Conversation, Example, Loss, Message, Node, Output, Prompt, TokenTree
from luthier.evals import forgetting as forgot
from luthier.evals.metrics import scores as score
from luthier.evals.stats.calibration import correlation, expected_calibration_error
from luthier.evals.stats.paired import before_after, paired
from luthier.generate.generate import Sample, generate
from luthier.generate.sampling import Sampling
from luthier.methods.ops import leaf_length
from luthier.model import memory
from luthier.model.forward import DISTRIBUTION_TOKENS, distributions, forward
from luthier.rewards.specs import Rewards
from luthier.runs.answers import follow
from luthier.text.built_in import in_words
from luthier.text.encode import encode, encode_prompt_ids
from luthier.train import annotate
from luthier.train.loop import example_losses
from luthier.train.rollout import with_defaults
from luthier.train.steps import Packing, scoring_batches, scoring_step
from luthier.train.table import METHODS, Method, method
from luthier.tune import actors, repeats

Cancelled = Callable[[], bool]
General = Sequence[tuple[tuple[int, ...], tuple[int, ...]]]  # (prompt ids, answer ids)
DIGITS = 4  # of the log-probabilities that are kept
GENERAL_TOKENS = 48  # of each of the model's own answers, whose loss of likelihood is measured


@dataclass(frozen=True)
class HeldOut:
    """What is measured: trees for the loss; prompts, with their rows, ids and references, for generation; general
    `texts` of the user's, whose likelihood is."""

    trees: Sequence[TokenTree]
    rows: Sequence[int] = ()
    prompts: Sequence[str] = ()
    prompt_ids: Sequence[tuple[int, ...]] = ()
    references: Sequence[str] = ()
    examples: Sequence[Example] = ()
    texts: Sequence[TokenTree] = ()


@dataclass(frozen=True)
class Measured:
    """One measurement: (row, loss, units) of each row, what the method reports of each beside it, generated answers,
    their token ids (which records do not keep), how each ended and log p of its tokens (see `Sample`; both absent from old
    records), their rewards, (log-likelihood, tokens) of the `general` answers, the model's `own` answers to the same
    prompts, the loss of general `texts`, and what it said when it was asked `again`."""

    losses: tuple[tuple[int, float, int], ...] = ()
    items: tuple[dict[str, Any], ...] = ()
    scored: tuple[dict[str, float], ...] = ()
    answers: tuple[str, ...] = ()
    ids: tuple[tuple[int, ...], ...] = ()
    ended: tuple[str, ...] = ()
    logps: tuple[tuple[float, ...], ...] = ()
    general: tuple[tuple[float, int], ...] = ()
    general_ids: General = ()
    own: tuple[forgot.Own, ...] = ()
    texts: tuple[tuple[int, float, int], ...] = ()
    again: tuple[repeats.Again, ...] = ()

    @property
    def reward(self) -> float | None:
        """Mean reward of the answers, for methods that learn from rewards."""
        return sum(row["reward"] for row in self.scored) / len(self.scored) if self.scored else None

    @property
    def loss(self) -> float | None:
        """Mean loss over all units (tokens, or examples), whatever the batches."""
        units = sum(count for _, _, count in self.losses)
        return sum(loss for _, loss, _ in self.losses) / units if units else None


class Ruler:
    """Measures one model again and again in the same way."""

    def __init__(
        self, model: Any, tokenizer: Any, template: Any, config: RunConfig, packing: Packing, device: torch.device
    ):
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.config, self.packing, self.device = config, packing, device
        self.method = method(config.method)
        self.system = config.text.system  # of held-out rows without one
        asked = config.eval
        self.rows, self.samples = asked.rows or EVAL_ROWS, EVAL_SAMPLES if asked.samples is None else asked.samples
        self.paced: Callable[[float], None] | None = None  # told once how many seconds a token takes that is read
        self.rewards: Rewards | None = None  # set for methods that learn from them
        self.judge: Rewards | None = None

    def held_out(
        self, examples: Sequence[Example], trees: Sequence[TokenTree], beside: HeldOut | None = None
    ) -> HeldOut:
        """Choose the rows: so many for the loss, so many with an answer to generate it; others than those of `beside`.

        Drawn with the run's seed, because held-out files are often sorted by label or source.
        """
        taken = {*beside.rows, *(tree.row for tree in beside.trees)} if beside else set()
        order = [int(row) for row in seeds.generator(self.config.seed, "held out").permutation(len(examples))]
        order = [row for row in order if row not in taken]
        measured = set(order[: self.rows])
        kept = [tree for tree in trees if tree.row in measured]
        if self.method.online:
            kept = self._right_answers(examples, sorted(measured & {tree.row for tree in trees}))
        encoded = {tree.row for tree in trees}  # what the template or the length limit refused is not asked either
        asked: list[tuple[int, str, tuple[int, ...], str]] = []
        for row in order:
            example = examples[row]
            if len(asked) == self.samples or not isinstance(example, (Chat, Prompt)):
                break
            if isinstance(example, Prompt):
                if row in encoded:
                    ids = self.prompt_ids(example)
                    asked.append((row, _question(example.messages), ids, example.answer or ""))
                continue
            *before, last = example.messages
            if row not in encoded or last.role != "assistant" or last.tool_calls or not before:
                continue
            prompt = self.prompt_ids(example)
            if len(prompt) <= self.config.text.max_length:
                asked.append((row, _question(before), prompt, in_words(last).content))
        rows, prompts, all_ids, references = zip(*sorted(asked), strict=True) if asked else ((), (), (), ())
        return HeldOut(kept, rows, prompts, all_ids, references, [examples[row] for row in rows])

    def losses(
        self, trees: Sequence[TokenTree], stop: Cancelled, title: str, by: Method | None = None
    ) -> tuple[tuple[tuple[int, float, int], ...], tuple[dict[str, Any], ...]]:
        """The loss of `by` (the run's own method; likelihood, where that learns from rewards) on every row, rows in
        order, a row of several trees being one: (row, loss, units), and what the method reports beside it."""
        if not trees:
            return (), ()
        by = by or (METHODS["sft"] if self.method.online else self.method)
        loss = loss_of(by, self.config)
        found: dict[int, tuple[float, int]] = {tree.row: (0.0, 0) for tree in trees}
        items: dict[int, dict[str, Any]] = {tree.row: {} for tree in trees}
        self.model.eval()
        with log.progress(title, len(trees)) as bar, torch.no_grad():
            step = scoring_step(trees, self.packing)
            if step.aside:
                step = annotate.baseline(forward, self.model, step, self.device)
            for number, cpu_batch in enumerate(step.micro):
                if stop():
                    raise Stopped("stopped while measuring")
                began = time.perf_counter()
                batch = cpu_batch.to(self.device)
                output = forward(self.model, batch, by.needs)
                result = loss(batch, output)
                for row, value, units in example_losses(batch, result):
                    found[row] = (found[row][0] + value, found[row][1] + units)
                for name, values in _by_tree(batch, output, result).items():
                    for row, value in zip(batch.rows, values, strict=True):
                        if value == value:  # nan where the row has none
                            items[row][name] = value
                if self.paced and (number == 1 or len(step.micro) == 1):  # the first pays for what is done once
                    told, self.paced = self.paced, None
                    told((time.perf_counter() - began) / cpu_batch.real)
                bar.advance(len(batch.rows), memory=log.size(memory.peak(self.device)))
        if any(not math.isfinite(value) for value, _ in found.values()):
            raise RunError("the held-out loss is not finite", mend="try --dtype float32")
        rows = sorted(found)
        return tuple((row, *found[row]) for row in rows), tuple(items[row] for row in rows)

    def answers(
        self, prompt_ids: Sequence[Sequence[int]], longest: int, stop: Cancelled, title: str, *, n: int = 1,
        temperature: float | None = None,
    ) -> list[Sample]:  # fmt: skip
        """n answers to each prompt, drawn at `eval.temperature` or another: the same random numbers each time."""
        if not prompt_ids:
            return []
        sampling = Sampling(
            temperature=self.config.eval.temperature if temperature is None else temperature, n=n,
            seed=self.config.seed % 2**31, max_new_tokens=longest, stop_ids=tuple(sorted(self.template.stop_ids)),
            stop=self.template.stops,
        )  # fmt: skip
        with log.progress(title) as bar:
            shown = partial(follow, bar, self.device)
            out = generate(self.model, prompt_ids, sampling, self.tokenizer.decode, progress=shown, cancelled=stop)
        if stop():
            raise Stopped("stopped while generating")
        return out

    def measure(
        self, held_out: HeldOut, stop: Cancelled, general: General | None, *, title: str, own: bool = False,
        again: bool = False,
    ) -> Measured:  # fmt: skip
        """Everything: loss, answers, and the likelihood of the `general` answers, which are the model's `own` when None; `again`
        asks what `eval.repeat` wants too."""
        losses, items = self.losses(held_out.trees, stop, f"{title}: held-out loss")
        answers = self.answers(held_out.prompt_ids, self.config.eval.max_new_tokens, stop, f"{title}: answers")
        said = self._own_answers(stop, title) if own or general is None else ()
        pairs = [(one.prompt_ids, one.ids) for one in said] if general is None else general
        kept = self.losses(answer_trees(pairs), stop, f"{title}: its own earlier answers", METHODS["sft"])[0]
        texts = self.losses(held_out.texts, stop, f"{title}: general texts", METHODS["sft"])[0]
        return Measured(
            losses=losses,
            items=items,
            answers=tuple(sample.text for sample in answers),
            ids=tuple(tuple(sample.ids) for sample in answers),
            ended=tuple(sample.ended for sample in answers),
            logps=tuple(tuple(round(logp, DIGITS) for logp in sample.logp) for sample in answers),
            scored=self._scored(held_out, answers),
            general=tuple((-nats, count) for _, nats, count in kept),
            general_ids=pairs,
            own=tuple(said),
            texts=texts,
            again=repeats.ask(self, held_out, stop, title) if again else (),
        )

    @torch.no_grad()
    def distributions(self, pairs: General, stop: Cancelled, bar: log.Bar) -> list[torch.Tensor]:
        """log p of the whole vocabulary at every token of each answer: [tokens, vocabulary] on the CPU. `bar` counts answers."""
        self.model.eval()
        found: dict[int, torch.Tensor] = {}
        few = replace(self.packing, tokens=min(self.packing.tokens, DISTRIBUTION_TOKENS))
        for batch in scoring_batches(answer_trees(pairs), few):
            if stop():
                raise Stopped("stopped while measuring")
            logp = distributions(self.model, batch.to(self.device)).cpu()
            found |= {row: logp[batch.tree == tree] for tree, row in enumerate(batch.rows)}
            bar.advance(len(batch.rows))
        return [found[i] for i in range(len(pairs))]

    def _right_answers(self, examples: Sequence[Example], rows: Sequence[int]) -> list[TokenTree]:
        """Trees of prompts with their right answers, where there are any: what a policy's likelihood is measured on."""
        answered = [(row, e) for row in rows if isinstance(e := examples[row], Prompt) and e.answer]
        chats = [
            Chat(
                (*e.messages, Message("assistant", e.answer or "")),
                origin=e.origin, tools=e.tools, template_kwargs=e.template_kwargs,
            )
            for _, e in answered
        ]  # fmt: skip
        if not chats:
            return []
        found = encode(chats, self.template, self.tokenizer, self.config.text, skip_bad=True).trees
        return [replace(tree, row=answered[tree.row][0]) for tree in found]

    def _scored(self, held_out: HeldOut, answers: Sequence[Sample]) -> tuple[dict[str, float], ...]:
        if self.rewards is None or not answers:
            return ()
        prompts = [example for example in held_out.examples if isinstance(example, Prompt)]
        found = actors.score(self.rewards, prompts, answers, self.config.text.system)
        parts = found.parts if len(found.parts) > 1 else {}
        columns = {"reward": found.total, **{f"reward/{name}": values for name, values in parts.items()}}
        if self.judge:
            columns["judge"] = actors.score(self.judge, prompts, answers, self.config.text.system).total
        return tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))

    def prompt_ids(self, example: Example) -> tuple[int, ...]:
        """A row as it is asked: a prompt, or a conversation without its last answer."""
        if isinstance(example, Prompt):
            return tuple(self._prompt(example.messages, example, self.system))
        assert isinstance(example, Chat)
        return tuple(self._prompt(example.messages[:-1], example, self.system))

    def _prompt(self, messages: Sequence[Message], beside: Conversation, system: str | None) -> list[int]:
        return encode_prompt_ids(
            messages, beside.tools, self.template, self.tokenizer, system=system, kwargs=beside.template_kwargs
        )

    def _own_answers(self, stop: Cancelled, title: str) -> list[forgot.Own]:
        system, alone = self.config.text.system, Conversation()
        prompts = [tuple(self._prompt([Message("user", text)], alone, system)) for text in forgot.GENERAL_PROMPTS]
        samples = self.answers(prompts, GENERAL_TOKENS, stop, f"{title}: general answers")
        return [forgot.Own(prompts[s.prompt], s.ids, s.text, s.ended) for s in samples]


def _question(messages: Sequence[Message]) -> str:
    """What is asked, for people to read: the last message that is no beginning of the answer."""
    return [message for message in messages if not message.begun or len(messages) == 1][-1].said


def answer_trees(pairs: General) -> list[TokenTree]:
    """Prompts with answers, of which the answers count."""
    return [
        TokenTree((Node(prompt + answer, (False,) * len(prompt) + (True,) * len(answer)),), row=i)
        for i, (prompt, answer) in enumerate(pairs)
    ]


def to_records(held_out: HeldOut, measured: Measured) -> list[dict[str, Any]]:
    """A measurement as JSONL lines: held-out rows first, then what was measured of general answers and texts."""
    records: dict[int, dict[str, Any]] = {}
    for (row, loss, count), items in zip(measured.losses, measured.items, strict=True):
        records[row] = {"row": row, "loss": loss, "units": count, **({"items": items} if items else {})}
    for i, answer in enumerate(measured.answers):
        record = records.setdefault(held_out.rows[i], {"row": held_out.rows[i]})
        record |= {"prompt": held_out.prompts[i], "reference": held_out.references[i], "answer": answer}
        if measured.ended:
            record |= {"ended": measured.ended[i], "logps": list(measured.logps[i])}
        if measured.scored:
            record["rewards"] = measured.scored[i]
    for one in measured.again:
        records[held_out.rows[one.place]]["again"] = repeats.to_record(one)
    general = [
        {"general": list(answer), "prompt_ids": list(prompt), "logp": logp, "tokens": count}
        for (logp, count), (prompt, answer) in zip(measured.general, measured.general_ids, strict=True)
    ]
    general += [
        {"own": list(one.ids), "prompt_ids": list(one.prompt_ids), "said": one.text, "ended": one.ended}
        for one in measured.own
    ]
    general += [{"text": row, "loss": loss, "units": count} for row, loss, count in measured.texts]
    return [records[row] for row in sorted(records)] + general


def from_records(records: Sequence[dict[str, Any]]) -> Measured:
    """The reverse of `to_records`."""
    rows = [record for record in records if "row" in record]
    answered = [record for record in rows if "answer" in record]
    general = [record for record in records if "general" in record]
    return Measured(
        losses=tuple((r["row"], r["loss"], r["units"]) for r in rows if "loss" in r),
        items=tuple(r.get("items", {}) for r in rows if "loss" in r),
        answers=tuple(r["answer"] for r in rows if "answer" in r),
        ended=tuple(r["ended"] for r in rows if "ended" in r),
        logps=tuple(tuple(r["logps"]) for r in rows if "logps" in r),
        scored=tuple(r["rewards"] for r in rows if "rewards" in r),
        general=tuple((r["logp"], r["tokens"]) for r in general),
        general_ids=tuple((tuple(r["prompt_ids"]), tuple(r["general"])) for r in general),
        own=tuple(
            forgot.Own(tuple(r["prompt_ids"]), tuple(r["own"]), r["said"], r["ended"]) for r in records if "own" in r
        ),
        texts=tuple((r["text"], r["loss"], r["units"]) for r in records if "text" in r),
        again=tuple(repeats.from_record(i, r["again"]) for i, r in enumerate(answered) if "again" in r),
    )


def fits(held_out: HeldOut, measured: Measured) -> bool:
    """Whether a measurement that was read is one of all of these rows and prompts."""
    answers = len(measured.answers)
    beside = (measured.ended, measured.logps, measured.scored)
    return (
        len(measured.losses) in (0, len(held_out.trees))
        and answers in (0, len(held_out.prompts))
        and all(len(values) in (0, answers) for values in beside)
    )


def scores(held_out: HeldOut, measured: Measured, names: Sequence[str], config: RunConfig) -> score.Scores:
    """Every metric of every answer: name -> one number per answer."""
    asked = held_out.references, held_out.prompts
    return score.score(measured.answers, *asked, names, measured.ended, config.reward)


def means(held_out: HeldOut, measured: Measured, names: Sequence[str], config: RunConfig) -> list[dict[str, Any]]:
    """The mean of each metric as a row with `before` alone; none where nothing was generated."""
    found = score.means(scores(held_out, measured, names, config)) if measured.answers else []
    return score.beside(found, held_out.references)


def compare(
    held_out: HeldOut, before: Measured, after: Measured, names: Sequence[str], config: RunConfig
) -> list[dict[str, Any]]:
    """The table before | after: the held-out loss, what the method reports of each row, then the metrics of the
    answers, and of those given `again`, each with its interval; verdicts are corrected for all of them."""
    asked = []
    if before.losses:
        old, new = ([loss for _, loss, _ in measured.losses] for measured in (before, after))
        asked.append(score.loss_question(old, new, [count for _, _, count in before.losses]))
    for name in score.ITEMS:
        old, new = ([i[name] for i in measured.items if name in i] for measured in (before, after))
        if old:
            asked.append(paired(name, old, new, score.about_item(name)))
    for name in before.scored[0] if before.scored else ():
        old, new = ([row[name] for row in measured.scored] for measured in (before, after))
        asked.append(paired(name, old, new, score.about_item(name)))
    if not before.answers:
        return before_after(asked, config.seed)
    asked += score.questions(scores(held_out, before, names, config), scores(held_out, after, names, config))
    then, now = (repeats.figures(held_out, m.answers, m.again, names) for m in (before, after))
    return score.beside(before_after([*asked, *repeats.questions(then, now)], config.seed), held_out.references)


def worth(held_out: HeldOut, measured: Measured) -> dict[str, Any]:
    """What a reward model's held-out scores are worth: how its chances come true, and how much length pulls them."""
    pairs = {tree.row: tree.pairs for tree in held_out.trees}
    scores, lengths, differences = [], [], []
    for (row, _, _), items in zip(measured.losses, measured.items, strict=True):
        scores += items["scores"]
        lengths += items["lengths"]
        differences += [items["scores"][a] - items["scores"][b] for a, b in pairs[row]]
    return {
        "pairs": len(differences),
        "calibration_error": expected_calibration_error(differences) if differences else None,
        "length_correlation": correlation(scores, lengths),
    }


def loss_of(by: Method, config: RunConfig) -> Callable[[Batch, Output], Loss]:
    """The method's loss with the run's settings."""
    if not by.section:
        return by.loss
    settings = with_defaults(config.policy, by.needs.value) if by.online else getattr(config, by.section)
    return partial(by.loss, settings=settings)


def _by_tree(batch: Batch, output: Output, loss: Loss) -> dict[str, list[Any]]:
    """What is kept of each tree: the items of its loss, and the scores and lengths of its answers."""
    out: dict[str, list[Any]] = {name: values.tolist() for name, values in loss.items.items()}
    if output.score is not None:
        lengths = leaf_length(batch).tolist()
        trees = batch.leaf_tree.tolist()
        out |= {"scores": [[] for _ in batch.rows], "lengths": [[] for _ in batch.rows]}
        for tree, value, length in zip(trees, output.score.tolist(), lengths, strict=True):
            out["scores"][tree].append(value)
            out["lengths"][tree].append(int(length))
    return out
