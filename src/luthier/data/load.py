"""Paths and settings -> examples: read, find the layout, convert."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from luthier.core.config import DataConfig
from luthier.core.errors import InputError
from luthier.core.types import Example, Origin
from luthier.data.read import Report, Row, read_rows
from luthier.data.schema import Layout, describe, detect, to_pairs

LOOK = 200  # rows that the layout is detected on

Skipped = list[tuple[Origin, str]]


@dataclass(frozen=True)
class Stream:
    """Examples that are read as they are asked for, once. `skipped` and `unused` grow meanwhile; only the first
    thousand of each are kept, `counts` has them all."""

    layout: Layout
    about: dict[str, object]
    pairs: Iterator[tuple[Row, Example]]
    skipped: Skipped
    unused: Skipped
    counts: dict[str, int]

    def __iter__(self) -> Iterator[Example]:
        return (example for _, example in self.pairs)


@dataclass(frozen=True)
class Loaded:
    """All examples of some files, their rows beside them.

    `about` says how the columns were read (see `schema.describe`). `skipped` are the bad rows (with skip_bad),
    `unused` the sound rows without an example, such as ties; both with place and reason.
    """

    layout: Layout
    about: dict[str, object]
    examples: Sequence[Example]
    rows: Sequence[Row] = field(repr=False)
    skipped: Skipped
    unused: Skipped

    def row_of(self, example: Example) -> Row:
        """The row as it stood in its file, for one of `examples` (the object itself, not an equal one)."""
        return self.rows[self._index[id(example)]]

    @cached_property
    def _index(self) -> dict[int, int]:
        return {id(example): i for i, example in enumerate(self.examples)}


def load(paths: Sequence[str], settings: DataConfig) -> Loaded:
    """Read everything. Raises InputError as `read_rows`, `detect` and `to_examples` do, and when no row is left."""
    source = stream(paths, settings)
    pairs = list(source.pairs)
    if not pairs:
        first = (source.skipped or source.unused)[0]
        raise InputError(f"no usable row; the first: {first[1]}", where=first[0], mend="mend the rows or map the columns")
    return Loaded(
        source.layout,
        source.about,
        tuple(example for _, example in pairs),
        tuple(row for row, _ in pairs),
        source.skipped,
        source.unused,
    )


def stream(paths: Sequence[str], settings: DataConfig) -> Stream:
    """Find the layout on the first rows and read the rest on demand: nothing is held but the row at hand."""
    counts = {"skipped": 0, "unused": 0}
    skipped, unused = _noted(counts, "skipped"), _noted(counts, "unused")
    on_bad = skipped.report if settings.skip_bad else None
    rows = read_rows(paths, skipped=on_bad)
    if settings.limit is not None:
        rows = itertools.islice(rows, settings.limit)
    first = list(itertools.islice(rows, LOOK))
    if not first:
        place, reason = skipped.kept[0]
        raise InputError(f"no usable row; the first: {reason}", where=place, mend="mend the rows")
    layout = detect(first, settings.columns, declared=settings.layout)
    everything: Iterable[Row] = itertools.chain(first, rows)
    pairs = to_pairs(
        everything, layout, settings.columns, group=settings.group, skipped=on_bad, unused=unused.report
    )
    return Stream(layout, describe(layout, first, settings.columns), pairs, skipped.kept, unused.kept, counts)


@dataclass(frozen=True)
class _noted:
    counts: dict[str, int]
    name: str
    kept: Skipped = field(default_factory=list)

    def report(self, origin: Origin, reason: str) -> None:
        self.counts[self.name] += 1
        if self.counts[self.name] <= 1000:
            self.kept.append((origin, reason))
