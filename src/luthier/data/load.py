"""Paths and settings -> examples: read, find the layout, convert."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from luthier.config.data import DataConfig
from luthier.core.errors import InputError
from luthier.core.types.examples import Example, Origin
from luthier.data.columns_read import Reading, describe
from luthier.data.convert import to_pairs
from luthier.data.detect import detect
from luthier.data.layout_codes import settle
from luthier.data.layout_table import Layout
from luthier.data.read import Row, read_rows

LOOK = 200  # rows that the layout is detected on
KEPT = 1000  # rows left out of a stream that are kept with place and reason


@dataclass
class Left:
    """Rows left out: how many for each reason, and the first `most` (None: all) with place and reason. Counts while
    rows are read."""

    most: int | None = KEPT
    first: list[tuple[Origin, str]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return self.reasons.total()

    def __call__(self, origin: Origin, reason: str) -> None:
        self.reasons[reason] += 1
        if self.most is None or len(self.first) < self.most:
            self.first.append((origin, reason))


@dataclass(frozen=True)
class Stream:
    """Examples with their rows, read as they are asked for, once.

    `about` says how the columns of the first rows were read. `skipped` are the bad rows (with skip_bad),
    `unused` the sound rows without an example, such as ties; `noted` counts what was put right in examples.
    """

    layout: Layout
    about: Reading
    pairs: Iterator[tuple[Row, Example]]
    skipped: Left
    unused: Left
    noted: Left

    def __iter__(self) -> Iterator[Example]:
        return (example for _, example in self.pairs)


@dataclass(frozen=True)
class Loaded:
    """All examples, their rows beside them; the rest as in `Stream`, with the place of every row that was left out.
    `about` says how the columns of all these rows were read."""

    layout: Layout
    about: Reading
    examples: Sequence[Example]
    rows: Sequence[Row] = field(repr=False)
    skipped: Left
    unused: Left

    def row_of(self, example: Example) -> Row:
        """The row of one of `examples` (the object itself, not an equal one) as it stood in its file."""
        return self.rows[self._index[id(example)]]

    @cached_property
    def _index(self) -> dict[int, int]:
        return {id(example): i for i, example in enumerate(self.examples)}


def load(paths: Sequence[str], settings: DataConfig, *, held_out: bool = False) -> Loaded:
    """Read everything; of splits, where so asked, the one that is `held_out`.

    Raises InputError as `read_rows`, `detect`, `settle` and `to_examples` do, and when no row is left."""
    skipped = Left(None)
    rows = list(_rows(paths, settings, skipped, held_out))
    layout = _layout(rows[:LOOK], rows, settings)
    return _loaded(_stream(layout, rows, rows, settings, skipped), None)


def head(paths: Sequence[str], settings: DataConfig, count: int) -> Loaded:
    """The first `count` examples, read as all of them would be: the layout and its codes are those of the first rows."""
    return _loaded(stream(paths, settings), count)


def stream(paths: Sequence[str], settings: DataConfig, *, most: int | None = KEPT, held_out: bool = False) -> Stream:
    """Find the layout on the first rows; the rest is read on demand, and nothing but the row at hand is held, and
    `most` of the rows left out (see `Left`).

    Raises InputError as `load` does, for rows after the first ones when they are reached.
    """
    skipped = Left(most)
    rows = _rows(paths, settings, skipped, held_out)
    first = list(itertools.islice(rows, LOOK))
    layout = _layout(first, first, settings)
    return _stream(layout, first, itertools.chain(first, rows), settings, skipped)


def _rows(paths: Sequence[str], settings: DataConfig, skipped: Left, held_out: bool) -> Iterator[Row]:
    on_bad, longest = skipped if settings.skip_bad else None, settings.max_row * 1_000_000
    rows = read_rows(paths, skipped=on_bad, held_out=held_out, longest=longest)
    return itertools.islice(rows, settings.limit)


def _layout(first: Sequence[Row], rows: Sequence[Row], settings: DataConfig) -> Layout:
    """The layout of the `first` rows, settled on `rows`. An error that speaks of an option names the file too."""
    try:
        layout = detect(first, settings.columns, declared=settings.layout)
        return settle(layout, rows, settings.columns, settings.values)
    except InputError as error:
        if isinstance(error.where, Origin):
            raise
        raise InputError(f"{error.what}, in {first[0].origin.file}", where=error.where, fix=error.fix) from None


def _stream(layout: Layout, known: Sequence[Row], rows: Iterable[Row], settings: DataConfig, skipped: Left) -> Stream:
    """The examples of `rows`, of which `known` are told of."""
    unused, noted = Left(skipped.most), Left(0)
    on_bad = skipped if settings.skip_bad else None
    pairs = to_pairs(
        rows, layout, settings.columns, group=settings.group, skipped=on_bad, unused=unused, noted=noted
    )  # fmt: skip
    return Stream(layout, describe(layout, known, settings.columns), pairs, skipped, unused, noted)


def _loaded(source: Stream, count: int | None) -> Loaded:
    pairs = list(itertools.islice(source.pairs, count))
    if not pairs:
        place, reason = (source.skipped.first + source.unused.first)[0]
        raise InputError(f"no usable row; the first: {reason}", where=place, fix="fix the rows or map the columns")
    examples, rows = tuple(example for _, example in pairs), tuple(row for row, _ in pairs)
    about = replace(source.about, corrected=dict(source.noted.reasons))
    return Loaded(source.layout, about, examples, rows, source.skipped, source.unused)
