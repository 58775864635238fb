"""Measure a model on held-out rows: loss, generated answers and their scores, what it lost of itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from luthier.config.evaluation import EVAL_ROWS, EVAL_SAMPLES
from luthier.config.run import RunConfig
from luthier.core import log, seeds
from luthier.core.errors import RunError, Stopped
from luthier.core.types.batch import Batch, Loss, Output
from luthier.core.types.examples import Chat, Conversation, Example, Message, Prompt
from luthier.core.types.trees import TokenTree
from luthier.evals import forgetting as forgot
from luthier.evals.consistency import paraphrases
from luthier.generate.generate import generate
from luthier.generate.request import Sample
from luthier.generate.sampling import Sampling
from luthier.methods.ops import leaf_length
from luthier.model import memory
from luthier.model.forward import DISTRIBUTION_TOKENS, distributions, forward
from luthier.rewards.specs import Rewards
from luthier.runs.answers import follow
from luthier.runs.held_out_rows import AskedAgain
from luthier.text.built_in_templates import in_words
from luthier.text.encode import encode, encode_prompt_ids
from luthier.training import annotate
from luthier.training.method_table import METHODS, Method, method
from luthier.training.passes import example_losses, measured
from luthier.training.rollout import with_defaults
from luthier.training.steps import Packing, scoring_batches, scoring_step
from luthier.tune import policy_models, repeated_prompts
from luthier.tune.held_out import HeldOut, Measured, answer_trees
from luthier.tune.retention import AnswerPairs, MeasuredRetention

Cancelled = Callable[[], bool]
DIGITS = 4  # of the log-probabilities that are kept


class Evaluator:
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
        self.on_pace: Callable[[float], None] | None = None  # told once how many seconds a token takes that is read
        self.rewards: Rewards | None = None  # set for methods that learn from them
        self.judge: Rewards | None = None

    def held_out(
        self, examples: Sequence[Example], trees: Sequence[TokenTree], beside: HeldOut | None = None
    ) -> HeldOut:
        """Choose the rows: so many for the loss, so many with an answer to generate it; others than those of `beside`.

        Drawn with the run's seed, because held-out files are often sorted by label or source.
        """
        excluded = {*beside.rows, *(tree.row for tree in beside.trees)} if beside else set()
        order = [int(row) for row in seeds.generator(self.config.seed, "held out").permutation(len(examples))]
        order = [row for row in order if row not in excluded]
        measured = set(order[: self.rows])
        loss_trees = [tree for tree in trees if tree.row in measured]
        if self.method.online:
            loss_trees = self._right_answers(examples, sorted(measured & {tree.row for tree in trees}))
        encoded = {tree.row for tree in trees}  # what the template or the length limit refused is not asked either
        to_generate: list[tuple[int, str, tuple[int, ...], str]] = []
        for row in order:
            example = examples[row]
            if len(to_generate) == self.samples or not isinstance(example, (Chat, Prompt)):
                break
            if isinstance(example, Prompt):
                if row in encoded:
                    ids = self.prompt_ids(example)
                    to_generate.append((row, _question(example.messages), ids, example.answer or ""))
                continue
            *before, last = example.messages
            if row not in encoded or last.role != "assistant" or last.tool_calls or not before:
                continue
            prompt = self.prompt_ids(example)
            if len(prompt) <= self.config.text.max_length:
                to_generate.append((row, _question(before), prompt, in_words(last).content))
        rows, prompts, all_ids, references = zip(*sorted(to_generate), strict=True) if to_generate else ((), (), (), ())
        return HeldOut(loss_trees, rows, prompts, all_ids, references, [examples[row] for row in rows])

    def losses(
        self, trees: Sequence[TokenTree], stop: Cancelled, title: str, method: Method | None = None
    ) -> tuple[tuple[tuple[int, float, int], ...], tuple[dict[str, Any], ...]]:
        """The loss of `method` (the run's own method; likelihood, where that learns from rewards) on every row, rows in
        order, a row of several trees being one: (row, loss, units), and what the method reports beside it."""
        if not trees:
            return (), ()
        method = method or (METHODS["sft"] if self.method.online else self.method)
        loss = loss_of(method, self.config)
        found: dict[int, tuple[float, int]] = {tree.row: (0.0, 0) for tree in trees}
        items: dict[int, dict[str, Any]] = {tree.row: {} for tree in trees}
        self.model.eval()
        with log.progress(title, len(trees)) as bar, torch.no_grad():
            step = scoring_step(trees, self.packing)
            if step.auxiliary:
                step = annotate.baseline(forward, self.model, step, self.device)

            def read(number: int, batch: Batch) -> Output:
                if stop():
                    raise Stopped("stopped while measuring")
                return forward(self.model, batch, method.needs)

            began = time.perf_counter()
            batches = (batch.to(self.device) for batch in step.micro)
            for number, (batch, output, result) in enumerate(measured(batches, read, loss, method.scope)):
                for row, value, units in example_losses(batch, result):
                    found[row] = (found[row][0] + value, found[row][1] + units)
                for name, values in _by_tree(batch, output, result).items():
                    for row, value in zip(batch.rows, values, strict=True):
                        if value == value:  # nan where the row has none
                            items[row][name] = value
                if self.on_pace and (
                    number == 1 or len(batch.rows) == len(trees)
                ):  # the first pays for what is done once
                    on_pace, self.on_pace = self.on_pace, None
                    on_pace((time.perf_counter() - began) / batch.real)
                bar.advance(len(batch.rows), memory=log.size(memory.peak(self.device)))
                began = time.perf_counter()
        if any(not math.isfinite(value) for value, _ in found.values()):
            raise RunError("the held-out loss is not finite", fix="try --dtype float32")
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
        self, held_out: HeldOut, stop: Cancelled, general: AnswerPairs | None, *, title: str, own: bool = False,
        again: bool = False,
    ) -> Measured:  # fmt: skip
        """Everything: loss, answers, and the likelihood of the `general` answers, which are the model's `own` when None; `again`
        asks what `eval.repeat` wants too."""
        memory.give_back()
        losses, items = self.losses(held_out.trees, stop, f"{title}: held-out loss")
        answers = self.answers(held_out.prompt_ids, self.config.eval.max_new_tokens, stop, f"{title}: answers")
        own_answers = self._own_answers(stop, title) if own or general is None else ()
        pairs = [(one.prompt_ids, one.ids) for one in own_answers] if general is None else general
        general_losses = self.losses(answer_trees(pairs), stop, f"{title}: its own earlier answers", METHODS["sft"])[0]
        texts = self.losses(held_out.general_texts, stop, f"{title}: general texts", METHODS["sft"])[0]
        asked_again = self.ask_again(held_out, stop, title) if again else {}
        memory.give_back()
        return Measured(
            losses=losses,
            items=items,
            answers=tuple(sample.text for sample in answers),
            ids=tuple(tuple(sample.ids) for sample in answers),
            ended=tuple(sample.ended for sample in answers),
            logps=tuple(tuple(round(logp, DIGITS) for logp in sample.logp) for sample in answers),
            scored=self._scored(held_out, answers),
            again=asked_again,
            retention=MeasuredRetention(
                pairs, tuple((-nats, count) for _, nats, count in general_losses), tuple(own_answers), texts
            ),
        )

    def ask_again(self, held_out: HeldOut, stop: Cancelled, title: str) -> dict[int, AskedAgain]:
        """By its place, each of up to `repeated_prompts.PROMPTS` prompts: `eval.repeat` samples, and the answers to one paraphrase
        less; nothing where that is 1."""
        config = self.config.eval
        if config.repeat < 2 or not held_out.prompts:
            return {}
        places = list(range(0, len(held_out.prompts), -(-len(held_out.prompts) // repeated_prompts.PROMPTS)))
        ids = [held_out.prompt_ids[place] for place in places]
        samples_drawn = self.answers(
            ids, config.max_new_tokens, stop, f"{title}: {config.repeat} samples each", n=config.repeat,
            temperature=config.temperature or repeated_prompts.TEMPERATURE,
        )  # fmt: skip
        samples: list[list[str]] = [[] for _ in places]
        for sample in samples_drawn:
            samples[sample.prompt].append(sample.text)
        others = [paraphrases(held_out.prompts[place], config.repeat - 1) for place in places]
        paraphrase_ids = [
            self.prompt_ids(repeated_prompts.paraphrased(held_out.examples[p], text))
            for p, texts in zip(places, others, strict=True)
            for text in texts
        ]
        paraphrase_answers = iter(self.answers(paraphrase_ids, config.max_new_tokens, stop, f"{title}: paraphrases"))
        return {
            place: AskedAgain(tuple(drawn), tuple(texts), tuple(next(paraphrase_answers).text for _ in texts))
            for place, drawn, texts in zip(places, samples, others, strict=True)
        }

    @torch.no_grad()
    def distributions(self, pairs: AnswerPairs, stop: Cancelled, bar: log.Bar) -> list[torch.Tensor]:
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
        found = policy_models.score_answers(self.rewards, prompts, answers, self.config.text.system)
        parts = found.parts if len(found.parts) > 1 else {}
        columns = {"reward": found.total, **{f"reward/{name}": values for name, values in parts.items()}}
        if self.judge:
            columns["judge"] = policy_models.score_answers(self.judge, prompts, answers, self.config.text.system).total
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

    def _own_answers(self, stop: Cancelled, title: str) -> list[forgot.OwnAnswer]:
        system, alone = self.config.text.system, Conversation()
        prompts = [tuple(self._prompt([Message("user", text)], alone, system)) for text in forgot.GENERAL_PROMPTS]
        samples = self.answers(prompts, forgot.GENERAL_TOKENS, stop, f"{title}: general answers")
        return [forgot.OwnAnswer(prompts[s.prompt], s.ids, s.text, s.ended) for s in samples]


def _question(messages: Sequence[Message]) -> str:
    """What is asked, for people to read: the last message that is no beginning of the answer."""
    return [message for message in messages if not message.begun or len(messages) == 1][-1].said


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
        for tree, value, length in zip(trees, output.score[:, 0].tolist(), lengths, strict=True):
            out["scores"][tree].append(value)
            out["lengths"][tree].append(int(length))
    return out
