"""Pairs of answers, judged by a model: contestants -> answers -> judgments on disk -> who wins, and how far to trust it.

Judgments are appended as they come; the same command goes on with what is not judged yet.
"""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import IO, Any

from luthier.comparison.contestants import AnswerOptions, Prompts, answered, named
from luthier.core import log
from luthier.core.errors import InputError, RunError, Stopped
from luthier.core.stop import stopping
from luthier.core.storage.opening import holding, telling
from luthier.core.storage.sums import SUM, sum_of
from luthier.core.verdicts import BETTER, TOO_FEW, WORSE, verdict
from luthier.data.write import check_lines
from luthier.evals.judging import judgments
from luthier.evals.judging.agreement import alpha, habits, place, units_of
from luthier.evals.judging.judges import Judge, JudgeSpec, unfinished
from luthier.evals.judging.judgments import Duel, Judgment, prompt_key
from luthier.evals.judging.prompt import Comparison, contests
from luthier.evals.stats.intervals import share_interval
from luthier.evals.stats.significance import holm, sign_test


@dataclass(frozen=True)
class JudgeOptions:
    """What the user wants judged: NAME or LABEL=NAME of models, runs, files of answers, or 'reference'."""

    contestants: tuple[str, ...]
    judge: JudgeSpec
    asking: AnswerOptions
    human: tuple[str, ...] = ()

    @property
    def out(self) -> Path:
        return self.asking.out


def judge(asked: JudgeOptions) -> dict[str, Any]:
    """Judge every pair of contestants on every prompt, in both orders: the keys of `luthier judge --json`."""
    check_lines(asked.out)
    names = named(asked.contestants, "luthier judge")
    open_judge = asked.judge.open()
    people = judgments.read(asked.human) if asked.human else []
    with stopping() as stop, _journal(asked.out) as journal:
        prompts, given = answered(names, asked.asking, stop)
        judge_ = open_judge()
        digest = judge_.digest()
        equal = _equal(prompts, given, judge_.name)
        comparisons = contests(prompts.messages, given)
        before = _kept(asked.out, {c.asked(judge_.name) for c in comparisons} | {j.asked for j in equal}, digest)
        known = {judgment.asked for judgment in before}
        fresh = [journal(judgment) for judgment in equal if judgment.asked not in known]
        asked_ = [contest.asked(judge_.name) for contest in comparisons]
        left = [comparisons[i] for i in unfinished([key in known for key in asked_], judge_.together)]
        missing = sum(key not in known for key in asked_)
        if before:
            log.note(f"{len(before):,} judgments are in {asked.out} already")
        unread = 0
        try:
            for contest, choice in _judged(judge_, left, len(comparisons), stop):
                if contest.asked(judge_.name) in known:
                    continue
                if choice is None:
                    unread += 1
                else:
                    judgment = contest.judged(choice, judge_.name)
                    fresh.append(journal(replace(judgment, info={**judgment.info, "judge": digest})))
        except (RunError, Stopped) as error:
            done = f"{len(before) + len(fresh):,} of {len(comparisons) + len(equal):,} judgments are in {asked.out}"
            raise type(error)(f"{error.what}; {done}", where=error.where, fix=_go_on(error)) from None
    if unread:
        log.warn(f"{unread} of {len(comparisons)} comparisons could not be read or did not fit, and are left out")
    all_judgments = [*before, *fresh]
    whole = _both_orders(all_judgments)
    half = len(all_judgments) - len(whole)
    if half:
        log.warn(
            f"{half} pairs were judged in one order only and are not counted here; `luthier elo` counts what the file holds"
        )
    return _result(whole, people, judge_.name) | {
        "judge": judge_.name, "out": str(asked.out), "prompts": len(prompts.messages), "asked": missing,
        "kept": len(before), "equal": len(equal), "unreadable": unread, "half_judged": half,
        "too_long": prompts.too_long,
    }  # fmt: skip


def _go_on(error: RunError | Stopped) -> str:
    again = "run the same command again to go on"
    return f"{error.fix}; {again}" if error.fix else again


def _equal(prompts: Prompts, given: Mapping[str, Sequence[str]], annotator: str) -> list[Judgment]:
    """Answers that are the same text are a tie that nobody needs to be asked about."""
    return [
        Judgment(prompt, (one, other), (given[one][i], given[other][i]), (0, 1), (1, 1), annotator, {"equal": True})
        for i, prompt in enumerate(prompts.messages)
        for one, other in combinations(sorted(given), 2)
        if given[one][i].strip() == given[other][i].strip()
    ]


def _judged(
    judge_: Judge, left: Sequence[Comparison], total: int, stop: Callable[[], bool]
) -> Iterator[tuple[Comparison, Any]]:
    with log.progress(f"judged by {judge_.name}", total) as bar:
        bar.start_at(total - len(left))
        for index, choice in judge_.pairs(left, stop):
            yield left[index], choice
            bar.advance(1)


@contextmanager
def _journal(path: Path) -> Iterator[Callable[[Judgment], Judgment]]:
    """The file that judgments are appended to, held by this process."""
    busy = InputError("another process writes this file", where=path, fix="wait for it, or give another --out")
    with holding(path, busy) as handle:
        _fix_end(handle)

        def keep(judgment: Judgment) -> Judgment:
            info = {**judgment.info, SUM: sum_of(judgment.as_record())}
            judgment = replace(judgment, info=info)
            with telling(path):
                handle.write(next(judgments.lines([judgment])).encode(errors="backslashreplace") + b"\n")
                handle.flush()
            return judgment

        yield keep
        os.fsync(handle.fileno())


def _fix_end(handle: IO[bytes]) -> None:
    """Drop a last line that a kill cut short; one that is whole only lacks its end, as some editors leave it."""
    handle.seek(0)
    last = b"".join(deque(handle, maxlen=1))
    if not last or last.endswith(b"\n"):
        return
    try:
        json.loads(last)
    except ValueError:
        handle.truncate(handle.tell() - len(last))
    else:
        handle.write(b"\n")
        handle.flush()


def _kept(path: Path, wanted: set[Any], digest: str) -> list[Judgment]:
    """The judgments of an earlier start that this comparison needs, by this very judge: another one may have its name."""
    if not path.stat().st_size:
        return []
    there = [judgment for judgment in map(_as_written, judgments.read([str(path)])) if judgment.asked in wanted]
    own = [judgment for judgment in there if judgment.info.get("equal") or judgment.info.get("judge") == digest]
    if len(own) < len(there):
        log.warn(
            f"{len(there) - len(own):,} judgments in {path} are by another judge of this name, or were made with another "
            "request: they are not used here, but `luthier elo` cannot tell them apart; give another --out"
        )
    return list({judgment.asked: judgment for judgment in own}.values())


def _as_written(judgment: Judgment) -> Judgment:
    """The judgment without its sum. Raises InputError when it is not what this command wrote."""
    bare = replace(judgment, info={name: value for name, value in judgment.info.items() if name != SUM})
    if SUM in judgment.info and judgment.info[SUM] != sum_of(bare.as_record()):
        raise InputError(
            "this judgment was changed since it was written", where=judgment.origin,
            fix="take the line out, and it is judged again",
        )  # fmt: skip
    return bare


def _both_orders(said: Sequence[Judgment]) -> list[Judgment]:
    """The judgments without those of a pair that could be read in one order only: there place alone may have decided. Answers
    that are the same text are judged once."""
    pairs = [(prompt_key(judgment.prompt), judgment.models, judgment.answers) for judgment in said]
    orders = Counter(pairs)
    return [
        judgment for judgment, pair in zip(said, pairs, strict=True) if judgment.info.get("equal") or orders[pair] == 2
    ]


def _result(said: Sequence[Judgment], people: Sequence[Judgment], annotator: str) -> dict[str, Any]:
    """Who wins, what sways the judge, and how far people agree with it."""
    all_ = judgments.duels([*said, *people])
    own = [duel for duel in all_ if duel.annotator == annotator]
    pairs: dict[tuple[str, str], list[Duel]] = {}
    for duel in own:
        pairs.setdefault((duel.first, duel.second), []).append(duel)
    agreed = None
    if people:
        judged = {duel.unit for duel in own}
        agreed = alpha(units_of([duel for duel in all_ if duel.unit in judged]), annotator)
        if agreed is None:
            log.warn("no pair of answers was judged by people too: prompts and answers must be the same texts")
    seen = place(said)
    rows = [_pair(*models, duels) for models, duels in pairs.items()]
    rows = [row | {"verdict": None} for row in rows] if seen.decides else _worded(rows)
    return {
        "verdict": None if seen.decides else "; ".join(map(_sentence, rows)),
        "why": seen.why,
        "place": asdict(seen),
        "pairs": rows,
        "annotators": [habit.as_dict() for habit in habits([*said, *people], all_)],
        "human": agreed.as_dict() if agreed else None,
    }


def _pair(first: str, second: str, duels: Sequence[Duel]) -> dict[str, Any]:
    """How the first model of a pair fares: wins, losses, ties, and the share of the points with its interval."""
    counts = Counter(duel.outcome for duel in duels)
    share = share_interval([duel.outcome for duel in duels])
    return {
        "models": [first, second], "wins": counts[1.0], "losses": counts[0.0], "ties": counts[0.5],
        "score": share.value, "low": share.low, "high": share.high, "n": share.n,
        "p": sign_test(counts[1.0], counts[0.0]),
    }  # fmt: skip


def _worded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pairs with their verdicts, corrected for being many (Holm)."""
    out = []
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        low, high = (None if row[end] is None else row[end] - 0.5 for end in ("low", "high"))
        words = TOO_FEW if low is None else verdict(row["score"] - 0.5, low, high, True, corrected)
        out.append(row | {"corrected": corrected, "verdict": words})
    return out


def _sentence(row: Mapping[str, Any]) -> str:
    first, second = row["models"]
    between = row["verdict"] not in (BETTER, WORSE)
    return f"{first} and {second}: {row['verdict']}" if between else f"{first} is {row['verdict']} than {second}"
