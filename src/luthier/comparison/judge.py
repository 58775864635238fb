"""Pairs of answers, judged by a model: contestants -> answers -> judgments on disk -> who wins, and how far to trust it.

Judgments are appended as they come; the same command goes on with what is not judged yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from luthier.comparison.contestants import AnswerOptions, Prompts, answer_prompts, label_contestants
from luthier.core import log
from luthier.core.errors import InputError, RunError, Stopped
from luthier.core.journal import Journal
from luthier.core.stop import stopping
from luthier.core.storage.opening import holding
from luthier.core.storage.sums import SUM, sum_of
from luthier.core.verdicts import BETTER, WORSE, verdict
from luthier.data.write import check_lines
from luthier.evals.judging import judgments
from luthier.evals.judging.agreement import alpha, annotator_statistics, outcomes_by_pair, position_bias
from luthier.evals.judging.judges import Judge, JudgeSpec, in_unfinished_batches
from luthier.evals.judging.judgments import Duel, Judgment, prompt_key
from luthier.evals.judging.prompt import Comparison, comparisons_in_both_orders
from luthier.evals.stats.intervals import share_interval
from luthier.evals.stats.significance import holm, sign_test


@dataclass(frozen=True)
class JudgmentOptions:
    """What the user wants judged: NAME or LABEL=NAME of models, runs, files of answers, or 'reference'."""

    contestants: tuple[str, ...]
    judge: JudgeSpec
    answering: AnswerOptions
    human: tuple[str, ...] = ()

    @property
    def out(self) -> Path:
        return self.answering.out


def judge(options: JudgmentOptions) -> dict[str, Any]:
    """Judge every pair of contestants on every prompt, in both orders: the keys of `luthier judge --json`."""
    check_lines(options.out)
    names = label_contestants(options.contestants, "luthier judge")
    open_judge = options.judge.open()
    human_judgments = judgments.read(options.human) if options.human else []
    with stopping() as stop, journal_of(options.out) as journal:
        prompts, answers = answer_prompts(names, options.answering, stop)
        judging_model = open_judge()
        digest = judging_model.digest()
        ties = _ties_of_equal_answers(prompts, answers, judging_model.name)
        comparisons = comparisons_in_both_orders(prompts.messages, answers)
        earlier = _kept(options.out, {c.key(judging_model.name) for c in comparisons} | {j.key for j in ties}, digest)
        judged_keys = {judgment.key for judgment in earlier}
        added = [journal(judgment) for judgment in ties if judgment.key not in judged_keys]
        keys = [comparison.key(judging_model.name) for comparison in comparisons]
        remaining = [
            comparisons[i]
            for i in in_unfinished_batches([key in judged_keys for key in keys], judging_model.batch_size)
        ]
        missing = sum(key not in judged_keys for key in keys)
        if earlier:
            log.note(f"{len(earlier):,} judgments are in {options.out} already")
        unreadable = 0
        try:
            for comparison, choice in _judge_remaining(judging_model, remaining, len(comparisons), stop):
                if comparison.key(judging_model.name) in judged_keys:
                    continue
                if choice is None:
                    unreadable += 1
                else:
                    judgment = comparison.judgment(choice, judging_model.name)
                    added.append(journal(replace(judgment, info={**judgment.info, "judge": digest})))
        except (RunError, Stopped) as error:
            done = f"{len(earlier) + len(added):,} of {len(comparisons) + len(ties):,} judgments are in {options.out}"
            raise type(error)(f"{error.what}; {done}", where=error.where, fix=_how_to_resume(error)) from None
    if unreadable:
        log.warn(f"{unreadable} of {len(comparisons)} comparisons could not be read or did not fit, and are left out")
    all_judgments = [*earlier, *added]
    in_both_orders = _both_orders(all_judgments)
    in_one_order = len(all_judgments) - len(in_both_orders)
    if in_one_order:
        log.warn(
            f"{in_one_order} pairs were judged in one order only and are not counted here; `luthier elo` counts what the file holds"
        )
    return _result(in_both_orders, human_judgments, judging_model.name) | {
        "judge": judging_model.name, "out": str(options.out), "prompts": len(prompts.messages), "asked": missing,
        "kept": len(earlier), "equal": len(ties), "unreadable": unreadable, "half_judged": in_one_order,
        "too_long": prompts.too_long,
    }  # fmt: skip


def _how_to_resume(error: RunError | Stopped) -> str:
    again = "run the same command again to continue"
    return f"{error.fix}; {again}" if error.fix else again


def _ties_of_equal_answers(prompts: Prompts, answers: Mapping[str, Sequence[str]], annotator: str) -> list[Judgment]:
    """Answers that are the same text are a tie that nobody needs to be asked about."""
    return [
        Judgment(prompt, (one, other), (answers[one][i], answers[other][i]), (0, 1), (1, 1), annotator, {"equal": True})
        for i, prompt in enumerate(prompts.messages)
        for one, other in combinations(sorted(answers), 2)
        if answers[one][i].strip() == answers[other][i].strip()
    ]


def _judge_remaining(
    judging_model: Judge, remaining: Sequence[Comparison], total: int, stop: Callable[[], bool]
) -> Iterator[tuple[Comparison, Any]]:
    with log.progress(f"judged by {judging_model.name}", total) as bar:
        bar.start_at(total - len(remaining))
        for index, choice in judging_model.compare(remaining, stop):
            yield remaining[index], choice
            bar.advance(1)


@contextmanager
def journal_of(path: Path) -> Iterator[Callable[[Judgment], Judgment]]:
    """The file that judgments are appended to, held by this process. Their sums are in their `info`: others read them too."""
    busy = InputError("another process writes this file", where=path, fix="wait for it, or give another --out")
    with holding(path, busy):
        journal = Journal(path, "remove the line, and it is judged again", sums=False)
        journal.end()

        def keep(judgment: Judgment) -> Judgment:
            judgment = replace(judgment, info={**judgment.info, SUM: sum_of(judgment.as_record())})
            journal.add(judgment.as_record())
            return judgment

        yield keep
        journal.sync()


def _kept(path: Path, wanted: set[Any], digest: str) -> list[Judgment]:
    """The judgments of an earlier start that this comparison needs, by this very judge: another one may have its name."""
    if not path.stat().st_size:
        return []
    there = [judgment for judgment in map(_as_written, judgments.read([str(path)])) if judgment.key in wanted]
    own = [judgment for judgment in there if judgment.info.get("equal") or judgment.info.get("judge") == digest]
    if len(own) < len(there):
        log.warn(
            f"{len(there) - len(own):,} judgments in {path} are by another judge of this name, or were made with another "
            "request: they are not used here, but `luthier elo` cannot tell them apart; give another --out"
        )
    return list({judgment.key: judgment for judgment in own}.values())


def _as_written(judgment: Judgment) -> Judgment:
    """The judgment without its sum. Raises InputError when it is not what this command wrote."""
    bare = replace(judgment, info={name: value for name, value in judgment.info.items() if name != SUM})
    if SUM in judgment.info and judgment.info[SUM] != sum_of(bare.as_record()):
        raise InputError(
            "this judgment was changed since it was written", where=judgment.origin,
            fix="remove the line, and it is judged again",
        )  # fmt: skip
    return bare


def _both_orders(judged: Sequence[Judgment]) -> list[Judgment]:
    """The judgments without those of a pair that could be read in one order only: there place alone may have decided. Answers
    that are the same text are judged once."""
    pairs = [(prompt_key(judgment.prompt), judgment.models, judgment.answers) for judgment in judged]
    orders = Counter(pairs)
    return [
        judgment
        for judgment, pair in zip(judged, pairs, strict=True)
        if judgment.info.get("equal") or orders[pair] == 2
    ]


def _result(model_judgments: Sequence[Judgment], human_judgments: Sequence[Judgment], annotator: str) -> dict[str, Any]:
    """Who wins, what sways the judge, and how far people agree with it."""
    all_duels = judgments.duels([*model_judgments, *human_judgments])
    model_duels = [duel for duel in all_duels if duel.annotator == annotator]
    pairs: dict[tuple[str, str], list[Duel]] = {}
    for duel in model_duels:
        pairs.setdefault((duel.first, duel.second), []).append(duel)
    agreement = None
    if human_judgments:
        judged = {duel.unit for duel in model_duels}
        agreement = alpha(outcomes_by_pair([duel for duel in all_duels if duel.unit in judged]), annotator)
        if agreement is None:
            log.warn("no pair of answers was also judged by people: prompts and answers must be the same texts")
    bias = position_bias(model_judgments)
    rows = [pair_result(*models, duels) for models, duels in pairs.items()]
    rows = [row | {"verdict": None} for row in rows] if bias.dominates else with_verdicts(rows)
    return {
        "verdict": None if bias.dominates else "; ".join(map(_sentence, rows)),
        "why": bias.reason,
        "place": asdict(bias),
        "pairs": rows,
        "annotators": [
            statistics.as_dict() for statistics in annotator_statistics([*model_judgments, *human_judgments], all_duels)
        ],
        "human": agreement.as_dict() if agreement else None,
    }


def pair_result(first: str, second: str, duels: Sequence[Duel]) -> dict[str, Any]:
    """How the first model of a pair fares: wins, losses, ties, and the share of the points with its interval."""
    counts = Counter(duel.outcome for duel in duels)
    share = share_interval([duel.outcome for duel in duels])
    return {
        "models": [first, second], "wins": counts[1.0], "losses": counts[0.0], "ties": counts[0.5],
        "score": share.value, "low": share.low, "high": share.high, "n": share.n,
        "p": sign_test(counts[1.0], counts[0.0]),
    }  # fmt: skip


def with_verdicts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pairs with their verdicts, corrected for being many (Holm)."""
    out = []
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        low, high = (None if row[end] is None else row[end] - 0.5 for end in ("low", "high"))
        difference = row["score"] - 0.5 or float(row["wins"])  # as many wins as losses do not show that nothing differs
        words = verdict(difference, low, high, True, corrected)
        out.append(row | {"corrected": corrected, "verdict": words})
    return out


def _sentence(row: Mapping[str, Any]) -> str:
    first, second = row["models"]
    between = row["verdict"] not in (BETTER, WORSE)
    return f"{first} and {second}: {row['verdict']}" if between else f"{first} is {row['verdict']} than {second}"
