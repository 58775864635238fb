"""What a difference with its interval shows, in one place: every table, page and JSON that says how a number moved says it so.

better, worse         the interval leaves zero out, and the test agrees (higher, lower: where neither is better)
no difference shown   it does not
too few to tell       there are too few items for any difference to be shown
not seen in N         what is counted was seen in none of the N items, before or after
"""

from __future__ import annotations

BETTER, WORSE, HIGHER, LOWER = "better", "worse", "higher", "lower"
NONE_SHOWN, TOO_FEW, NOT_SEEN = "no difference shown", "too few to tell", "not seen"
ORDER = (WORSE, BETTER, LOWER, HIGHER, NONE_SHOWN, TOO_FEW, NOT_SEEN)  # regressions first
SHOWN = (WORSE, BETTER, LOWER, HIGHER)
LEVEL = 0.05  # the largest p-value, corrected for being many, of a difference that is called
NO_FORGETTING = "none shown"  # the size of a loss that no interval shows


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


def not_seen(before: float, after: float, n: int, unit: str) -> str | None:
    """'not seen in N' of a share ('%') of N items that is 0 before and after; None of any other number."""
    return f"{NOT_SEEN} in {n:,}" if unit == "%" and n and not before and not after else None


def verdict_kind(words: str) -> str:
    """The verdict without its number of items: one of ORDER."""
    return NOT_SEEN if words.startswith(f"{NOT_SEEN} in ") else words


def loss_size(drift: float, low: float | None, high: float | None, moderate: float, large: float) -> str:
    """How large a loss is: 'none shown' when its interval reaches zero or below, else 'small', 'moderate' from there on, or
    'large'. Of too few items for an interval, by the loss alone."""
    if drift <= 0 or verdict(drift, low, high, better=False) == NONE_SHOWN:
        return NO_FORGETTING
    return "small" if drift < moderate else "moderate" if drift < large else "large"
