"""What held-out rows cannot show: too few of them, and those that training sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from luthier.core.types.examples import Example
from luthier.data.split import leaks

FEWEST_ROWS = 6  # held-out rows: of fewer, not even a change of all in one direction is beyond chance (2 / 2^5 > 0.05)
NEAR_SIMILARITY = 0.8  # least similarity of rows that are nearly equal, as `luthier data` has it
MAX_COMPARED = 50_000  # rows to learn from that near copies of held-out rows are looked for among


def held_out_warnings(train: Sequence[Example], test: Sequence[Example]) -> Iterator[str]:
    """What held-out rows cannot show: too few of them, and those that training sees. Near copies are looked for among so many
    rows to learn from; what is left out is said."""
    if not test:
        yield "no row is held out, so what is learned is not measured; give --data.eval FILE, or more rows"
        return
    if len(test) < FEWEST_ROWS:
        rows = "1 row" if len(test) == 1 else f"{len(test)} rows"
        yield f"{rows} held out, too few to show any difference: give --data.eval FILE, or a larger --data.holdout"
    overlaps = Counter(
        leak.kind for leak in leaks(train, test, near=NEAR_SIMILARITY if len(train) <= MAX_COMPARED else None)
    )
    if overlaps:
        yield overlap_warning(overlaps["exact"], overlaps["near"])
    if len(train) > MAX_COMPARED:
        yield (
            f"nearly equal rows are not looked for among {len(train):,} rows to learn from; `luthier data --data.eval` finds them"
        )


def overlap_warning(exact: int, near: int) -> str:
    """The sentence about held-out rows that training sees too."""
    return f"held-out prompts that training has seen: {exact} exact, {near} nearly the same; scores on these will be too good"
