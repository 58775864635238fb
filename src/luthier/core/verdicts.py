"""The words for a difference, in one place: every table, page and JSON that says how a number moved says it so."""

from __future__ import annotations

BETTER, WORSE, HIGHER, LOWER = "better", "worse", "higher", "lower"
NONE_SHOWN, TOO_FEW = "no difference shown", "too few to tell"
ORDER = (WORSE, BETTER, LOWER, HIGHER, NONE_SHOWN, TOO_FEW)  # regressions first
SHOWN = (WORSE, BETTER, LOWER, HIGHER)
LEVEL = 0.05  # the largest p-value, corrected for being many, of a difference that is called


def verdict(
    difference: float, low: float | None, high: float | None, better: bool | None, corrected: float | None = None
) -> str:
    """What an interval, and a p-value where there is one, show: 'better' or 'worse' ('higher' or 'lower' where neither is
    better) when the interval leaves zero out and the p-value is at most LEVEL; else 'no difference shown'.

    Without an interval it is 'too few to tell'; no difference at all is shown as that.
    """
    if low is None or high is None:
        return TOO_FEW if difference else NONE_SHOWN
    if low <= 0 <= high or (corrected is not None and corrected > LEVEL):
        return NONE_SHOWN
    if better is None:
        return HIGHER if difference > 0 else LOWER
    return BETTER if (difference > 0) == better else WORSE
