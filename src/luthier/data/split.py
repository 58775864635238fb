"""Training and held-out parts by hash, and what leaks from one to the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from luthier.core.seeds import derive
from luthier.core.types.examples import Example
from luthier.data.example_text import full_text, prompt_key
from luthier.data.near_duplicates import near_pairs

HOLDOUT_SHARE = 0.05  # held out by default
HELD_OUT_ROWS, SMALL_DATA_SHARE = 32, 0.16  # rows held out at least, of 200 or more; and the share of fewer


class Leak(NamedTuple):
    """A held-out example that training has seen: the same prompt ('exact') or nearly the same words ('near')."""

    train: Example
    test: Example
    kind: str


def place(example: Example, seed: int) -> float:
    """Where the example falls in [0, 1): held out when below the held-out share.

    A function of its group alone, or of its prompt where it has no group (of its text where it has no
    prompt): equal ones fall together, and rows added later move no other.
    """
    return derive(seed, "split", example.group or prompt_key(example)) / 2.0**63


def split(examples: Sequence[Example], holdout: float | None, seed: int) -> tuple[list[Example], list[Example]]:
    """(train, held out), each in the order given. The held-out share is near `holdout`, not exact: see `place`; None is the
    rule of `border`."""
    least = border(examples, holdout, seed)
    places = [place(example, seed) for example in examples]
    train = [example for example, spot in zip(examples, places, strict=True) if spot >= least]
    return train, [example for example, spot in zip(examples, places, strict=True) if spot < least]


def border(examples: Sequence[Example], holdout: float | None, seed: int) -> float:
    """The place below which examples are held out: whole groups, always.

    By default 5 %, and more of few rows, because fewer than some thirty show hardly anything: at least 32 rows where there are
    200 or more, 16 % of fewer. Then rows that are added later may move the border, and with it rows between the parts.
    With few groups one part could be empty; then it gets the group that is nearest to it, when there are two. Nor does the
    default hold out more than half of the rows, where groups are large, unless the first group alone is more.
    """
    sizes = Counter(place(example, seed) for example in examples)
    spots = sorted(sizes)
    if len(spots) < 2:
        return 0.0 if holdout is None else holdout
    wanted = max(HOLDOUT_SHARE * len(examples), min(HELD_OUT_ROWS, SMALL_DATA_SHARE * len(examples)))
    if holdout is None and wanted > HOLDOUT_SHARE * len(examples):
        held_out = list(accumulate(sizes[spot] for spot in spots))  # below the place that follows
        enough = next(i for i, count in enumerate(held_out) if count >= wanted - 0.5)
        if enough and held_out[enough] > len(examples) / 2:
            enough -= 1
        return spots[min(enough + 1, len(spots) - 1)]
    share = HOLDOUT_SHARE if holdout is None else holdout
    if 0 < share <= spots[0]:
        return spots[1]
    return spots[-1] if spots[-1] < share else share


def leaks(train: Sequence[Example], test: Sequence[Example], *, near: float | None = 0.8) -> list[Leak]:
    """For each held-out example, one training example with the same prompt (or text, without a prompt), or
    else one whose words (see `near`) are at least so similar (None: only the same). One leak a held-out row."""
    seen: dict[str, Example] = {}
    for example in train:
        seen.setdefault(prompt_key(example), example)
    found = {i: Leak(seen[key], e, "exact") for i, e in enumerate(test) if (key := prompt_key(e)) in seen}
    if near is None:
        return [found[i] for i in sorted(found)]
    texts, first = [full_text(example) for example in (*train, *test)], len(train)
    for pair in near_pairs(texts, near, lambda i, j: i < first <= j and j - first not in found):
        found[pair.second - first] = Leak(train[pair.first], test[pair.second - first], "near")
    return [found[i] for i in sorted(found)]
