"""Best-of-n and rejection sampling: prompts -> n answers each -> rewards -> training data."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.seeds import derive, generator
from luthier.core.stop import Stop, stopping
from luthier.core.storage.files import sha256
from luthier.core.storage.opening import require_new, require_writable
from luthier.core.threads import use_threads
from luthier.data import load as data_load
from luthier.data.write import digest_of_rows, write_jsonl
from luthier.evals.stats.intervals import mean_interval, share_interval
from luthier.generate.generate import context, generate
from luthier.generate.sampling import Sampling
from luthier.rewards.best_of_n import best, expected_best, sizes, worst
from luthier.rewards.sample_journal import SampledAnswer, SampleJournal, keeping, writes
from luthier.rewards.selection import OutputFormat, PromptRecord, prompt_record, require_references, select_rows
from luthier.rewards.specs import Rewards, RewardScores, parse
from luthier.runs.locate import resolve_model
from luthier.runs.open import Opened, open_model
from luthier.runs.reward_model import Scorer, open_scorer
from luthier.text.drafts import with_system
from luthier.text.encode import encode_prompt_ids

PROMPTS_AT_ONCE = 32  # prompts sampled before their answers are kept and scored; their place in it seeds the answers
EXAMPLES = 2


@dataclass(frozen=True)
class SampleOptions:
    """What to sample and what to write. `above`: prompts whose best answer is not above it are dropped; `only_ended`:
    answers that were cut are not written."""

    write: OutputFormat
    out: Path
    n: int
    temperature: float
    top_p: float
    max_new_tokens: int
    batch: int
    above: float | None = None
    only_ended: bool = False

    @property
    def partial(self) -> Path:
        """Where answers are kept until all are there."""
        return self.out.with_suffix(".partial.jsonl")


def sample(config: RunConfig, options: SampleOptions) -> dict[str, Any]:
    """Sample, score and write; returns the keys of `luthier sample --json` (docs/rewards.md).

    The answer (prompt, number) depends on the model, the prompt's place and the seed, not on `batch`, on n, nor on
    where an earlier start was killed. When nothing is left to write, no file is, and the answers stay kept.

    Raises InputError for rows without a prompt or, where a reward compares with it, without a right answer.
    """
    began = time.monotonic()
    _check(options)
    use_threads(config.threads)
    with stopping() as stop, parse(config.reward.use, config.reward, partial(_reward_model, config)) as rewards:
        loaded = data_load.load(config.data.path, config.data)
        questions = [asked for example in loaded.examples if (asked := prompt_record(example))]
        dropped = Counter({"no prompt": len(loaded.examples) - len(questions)})
        if not questions:
            raise InputError(
                f"rows of layout '{loaded.layout.name}' have no prompt to answer", where=loaded.examples[0].origin,
                fix="give rows with a prompt, or map its column, such as --data.columns prompt=COLUMN",
            )  # fmt: skip
        require_references(rewards, [(asked.reference, asked.origin) for asked in questions])
        opened = open_model(
            config.model, device=config.device, dtype=config.dtype, base=config.base, system=config.text.system
        )
        questions, long = _encoded(questions, opened, opened.config.text.system)
        dropped["prompt too long"] = long
        with keeping(options.partial, _identity(config, options, opened, questions), _reward_identity(rewards)) as kept:
            _sample_all(kept, questions, opened, rewards, config.seed, options, stop)
            scored = [rewards.weigh(kept.parts[row]) for row in range(len(questions))]
            given = [kept.answers[row] for row in range(len(questions))]
            written = _write(questions, given, scored, options, dropped, kept)
            if written["out"]:
                options.partial.unlink()
    figures = _figures(questions, given, scored, rewards, config.seed)
    left = {"skipped": loaded.skipped.count, "dropped": {name: count for name, count in dropped.items() if count}}
    return written | figures | left | {"seconds": time.monotonic() - began}


def _check(options: SampleOptions) -> None:
    if writes(options.partial, options.out):
        require_writable(options.out)
    else:
        require_new(options.out, "give another --out")
    if options.n < 2 and options.write in ("pairs", "rankings"):
        raise InputError(
            f"{options.write} need two answers or more", where="--samples", fix="give more, such as --samples 8"
        )
    if options.temperature == 0 and options.n > 1:
        raise InputError("all answers to a prompt are equal at 0", where="--temperature", fix="give 1, or --samples 1")


def _encoded(questions: Sequence[PromptRecord], opened: Opened, system: str | None) -> tuple[list[PromptRecord], int]:
    """The questions under the system prompt with their ids, and how many leave no room for an answer."""
    most = context(opened.model)
    out = []
    for asked in questions:
        messages = with_system(asked.messages, system)
        try:
            ids = encode_prompt_ids(
                messages, asked.tools, opened.template, opened.tokenizer, kwargs=asked.template_kwargs
            )
        except InputError as error:
            raise InputError(error.what, where=asked.origin, fix=error.fix) from None
        if most is None or len(ids) < most:
            out.append(replace(asked, messages=messages, ids=tuple(ids)))
    if not out:
        raise InputError(f"no prompt is shorter than the model's context of {most:,} tokens", fix="shorten them")
    return out, len(questions) - len(out)


def _identity(
    config: RunConfig, options: SampleOptions, opened: Opened, questions: Sequence[PromptRecord]
) -> dict[str, Any]:
    """What decides the answers, by name; the file that keeps them begins with it."""
    model, prompts = resolve_model(config.model, config.base).digests(), [asked.ids for asked in questions]
    return {
        "model": hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest(),
        "prompts": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
        "type": str(next(opened.model.parameters()).dtype), "seed": config.seed, "n": options.n,
        "temperature": options.temperature, "top_p": options.top_p, "max_new_tokens": options.max_new_tokens,
    }  # fmt: skip


def _reward_model(config: RunConfig, run: str) -> Scorer:
    return open_scorer(run, device=config.device, dtype=config.dtype)


def _reward_identity(rewards: Rewards) -> str:
    """A digest of what decides the parts of the reward. Weights do not: they are applied anew."""
    names, files = [part.name for part in rewards.parts], [sha256(file) for file in rewards.files]
    models = [part.component.resolved.digests() for part in rewards.parts if isinstance(part.component, Scorer)]
    return hashlib.sha256(json.dumps([names, files, models]).encode()).hexdigest()


def _sample_all(
    kept: SampleJournal,
    questions: Sequence[PromptRecord],
    opened: Opened,
    rewards: Rewards,
    seed: int,
    options: SampleOptions,
    stop: Stop,
) -> None:
    """Answer and score what is not kept yet."""
    if kept.answers:
        log.note(f"resuming: the answers to {len(kept.answers)} of {len(questions)} prompts are there already")
    with log.progress("prompts", len(questions)) as bar:
        for start in range(0, len(questions), PROMPTS_AT_ONCE):
            here = range(start, min(start + PROMPTS_AT_ONCE, len(questions)))
            if all(row in kept.parts for row in here):
                bar.start_at(here.stop)
                continue
            if not all(row in kept.answers for row in here):
                some = [questions[row] for row in here]
                answers = _answers(some, opened, derive(seed, "sample", start), options, stop, bar)
                made = zip(here, answers, strict=True)
                kept.add_answers({row: given for row, given in made if row not in kept.answers})
            # All of them, as if there had been no kill: a reward model reads many answers in one pass.
            scored = rewards.score([questions[row].answer(given) for row in here for given in kept.answers[row]])
            n = options.n
            kept.add_parts(
                {row: {name: values[n * i : n * i + n] for name, values in scored.parts.items()}
                 for i, row in enumerate(here) if row not in kept.parts}
            )  # fmt: skip
            bar.advance(len(here), reward=fmean(scored.total))


def _answers(
    questions: Sequence[PromptRecord], opened: Opened, seed: int, options: SampleOptions, stop: Stop, bar: log.Bar
) -> list[list[SampledAnswer]]:
    """n answers to each question."""
    template = opened.template
    sampling = Sampling(
        temperature=options.temperature, top_p=options.top_p, max_new_tokens=options.max_new_tokens, n=options.n,
        seed=seed, stop_ids=tuple(sorted(template.stop_ids)), stop=template.stops,
    )  # fmt: skip
    samples = generate(
        opened.model, [asked.ids for asked in questions], sampling, opened.tokenizer.decode,
        batch=options.batch, progress=lambda pace: bar.advance(0, answers=pace.words), cancelled=stop,
    )  # fmt: skip
    stop.check()
    given = [SampledAnswer(s.text, len(s.ids) - (s.ended == "stop"), s.ended != "length") for s in samples]
    return [given[i : i + options.n] for i in range(0, len(given), options.n)]


def _write(
    questions: Sequence[PromptRecord], given: Sequence[Sequence[SampledAnswer]], scored: Sequence[RewardScores], options: SampleOptions,
    dropped: Counter[str], partial: SampleJournal,
) -> dict[str, Any]:  # fmt: skip
    """Write what is kept, and count in `dropped` why the rest is not."""
    out: list[dict[str, Any]] = []
    kept = cut = 0
    for asked, answers, score in zip(questions, given, scored, strict=True):
        chosen = select_rows(
            options.write, asked, answers, score.total, score.parts, above=options.above, only_ended=options.only_ended
        )
        if isinstance(chosen, str):
            dropped[chosen] += 1
            continue
        out += chosen.rows
        kept += 1
        cut += not answers[chosen.best].ended
    if out:
        partial.about_to_write(digest_of_rows(out))
        write_jsonl(out, options.out)
    return {
        "out": str(options.out) if out else None, "partial": None if out else str(options.partial), "write": options.write,
        "rows": len(out), "kept": kept, "kept_cut": cut,
    }  # fmt: skip


def _figures(
    questions: Sequence[PromptRecord],
    given: Sequence[Sequence[SampledAnswer]],
    scored: Sequence[RewardScores],
    rewards: Rewards,
    seed: int,
) -> dict[str, Any]:
    """What the answers are worth: one, and the best of several; and some to look at."""
    n = len(given[0])
    bounded = all(0 <= value <= 1 for score in scored for value in score.total)
    interval = share_interval if bounded else mean_interval
    curve = []
    for k in sizes(n):
        mean = interval([expected_best(score.total, k) for score in scored])
        curve.append({"of": k, "reward": mean.value, "low": mean.low, "high": mean.high})
    everything = [answer for answers in given for answer in answers]
    order = generator(seed, "examples").permutation(len(questions)).tolist()
    shown = sorted(order, key=lambda row: len(set(scored[row].total)) == 1)[:EXAMPLES]  # those with a choice first
    return {
        "prompts": len(questions), "n": n, "answers": len(everything), "tokens": sum(a.tokens for a in everything),
        "ended": sum(a.ended for a in everything) / len(everything), "best_of": curve,
        "parts": {part.name: _part(part.name, part.weight, given, scored) for part in rewards.parts},
        "examples": [_example(questions[row], given[row], scored[row]) for row in shown],
    }  # fmt: skip


def _part(
    name: str, weight: float, given: Sequence[Sequence[SampledAnswer]], scored: Sequence[RewardScores]
) -> dict[str, float]:
    """A part's mean over all answers, and over the best answer of each prompt."""
    values = [value for score in scored for value in score.parts[name]]
    chosen = [score.parts[name][_best(answers, score)] for answers, score in zip(given, scored, strict=True)]
    return {"weight": weight, "mean": fmean(values), "best": fmean(chosen)}


def _example(asked: PromptRecord, given: Sequence[SampledAnswer], score: RewardScores) -> dict[str, Any]:
    def one(i: int) -> dict[str, Any]:
        return {"text": given[i].text, "reward": score.total[i]}

    pair = {"best": one(_best(given, score)), "worst": one(worst(score.total))}
    return {"prompt": asked.prompt, "reference": asked.reference} | pair


def _best(given: Sequence[SampledAnswer], score: RewardScores) -> int:
    return best(score.total, [answer.ended for answer in given])
