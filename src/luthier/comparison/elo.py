"""Ratings of models from files of judgments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luthier.core.errors import InputError
from luthier.evals.judging import judgments
from luthier.evals.judging.agreement import alpha, annotator_statistics, outcomes_by_pair
from luthier.evals.stats.elo import Anchor, rate


def ratings(
    paths: Sequence[str], *, anchor: str | None = None, length: bool = False, rounds: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Read judgments and rate their models: the keys of `luthier elo --json`. `anchor` is 'MODEL=RATING' or 'MODEL'."""
    found = judgments.read(paths)
    duels = judgments.duels(found)
    table = rate(duels, anchor=_anchor(anchor), length=length, rounds=rounds, seed=seed)
    agreement = alpha(outcomes_by_pair(duels))
    return {
        "judgments": len(found), "duels": len(duels), **table.as_dict(), "agreement": agreement.as_dict() if agreement else None,
        "annotators": [statistics.as_dict() for statistics in annotator_statistics(found, duels)],
    }  # fmt: skip


def _anchor(text: str | None) -> Anchor | None:
    if text is None:
        return None
    model, sign, value = text.rpartition("=")
    if not sign:
        return Anchor(text, 1000.0)
    try:
        return Anchor(model, float(value))
    except ValueError:
        raise InputError(f"'{value}' is not a rating", where="--anchor", fix="such as --anchor base=1000") from None
