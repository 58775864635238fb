"""A run's errors beside those of an earlier run: what the fixes of its data changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from luthier.core.verdicts import verdict
from luthier.diagnose.errors import SOUND, diagnose, indicators, ordered, shown_names, table, title
from luthier.diagnose.run_data import read_answers, read_data
from luthier.diagnose.slices import slices
from luthier.runs.held_out_rows import HeldOutRow

Indicators = Mapping[str, Sequence[float]]


def compare_runs(run: Path, old: Path) -> dict[str, Any]:
    """The tuned answers of `run` beside those of `old`: the keys of `luthier errors --compare --json`.

    Both are measured by what the data of `run` shows of the task. Paired where both answered the same held-out
    prompts, in whatever order; else the interval of each row is that of two samples, at 95 % of its own.
    """
    now, then = read_answers(run), read_answers(old)
    diagnosis = diagnose(now, read_data(now).train)
    old_diagnosis = replace(diagnose(then, (), diagnosis.task), wrong=diagnosis.wrong)
    after, before = indicators(diagnosis, "after"), indicators(old_diagnosis, "after")
    order = _pairing(then.rows, now.rows)
    if order is None:
        rows = ordered([_unpaired(name, before[name], after[name]) for name in shown_names(before, after)])
    else:
        paired = {name: [values[i] for i in order] for name, values in before.items()}
        rows = table(paired, after, now.config.seed)
    return {
        "run": str(run), "against": str(old), "paired": order is not None,
        "answers": {"before": len(then.rows), "after": len(now.rows)}, "rows": rows,
    }  # fmt: skip


def _pairing(then: Sequence[HeldOutRow], now: Sequence[HeldOutRow]) -> list[int] | None:
    """For each record of `now` the place of that with its prompt and reference in `then`; None where these differ."""
    places: dict[tuple[str, str], list[int]] = {}
    for i, record in enumerate(then):
        places.setdefault(_key(record), []).append(i)
    if Counter(map(_key, then)) != Counter(map(_key, now)):
        return None
    return [places[_key(record)].pop(0) for record in now]


def _key(row: HeldOutRow) -> tuple[str, str]:
    return row.prompt, row.reference


def _unpaired(name: str, before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """A row of the table from answers to other prompts: this run is a slice of the answers of both."""
    of = [{"run": "this"}] * len(after) + [{"run": ""}] * len(before)
    found = slices(of, [*after, *before])
    old, new = (sum(values) / len(values) for values in (before, after))
    low, high = (found[0].low, found[0].high) if found else (None, None)
    return {
        "name": name, "title": title(name), "unit": "%", "higher_is_better": name == SOUND, "before": old, "after": new,
        "difference": new - old, "low": low, "high": high, "n": len(after), "verdict": verdict(new - old, low, high, name == SOUND),
    }  # fmt: skip
