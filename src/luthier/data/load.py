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
from luthier.data import suggest
from luthier.data.columns_read import ColumnsRead, describe_columns
from luthier.data.convert import rows_with_examples
from luthier.data.detect import UnknownLayout, detect
from luthier.data.layout_codes import with_codes
from luthier.data.layout_table import Layout
from luthier.data.mapping import check_files
from luthier.data.read import Row, files_of, read_rows

LAYOUT_ROWS = 200  # rows that the layout is detected on
MAX_LISTED = 1000  # rows left out of a stream that are kept with place and reason


@dataclass
class LeftOut:
    """Rows left out: how many for each reason, and the first `most` (None: all) with place and reason. Counts while
    rows are read."""

    most: int | None = MAX_LISTED
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

    `reading` says how the columns of the first rows were read. `skipped` are the bad rows (with skip_bad),
    `unused` the sound rows without an example, such as ties; `corrections` counts what was put right in examples.
    """

    layout: Layout
    reading: ColumnsRead
    pairs: Iterator[tuple[Row, Example]]
    skipped: LeftOut
    unused: LeftOut
    corrections: LeftOut

    def __iter__(self) -> Iterator[Example]:
        return (example for _, example in self.pairs)


@dataclass(frozen=True)
class Loaded:
    """All examples, their rows beside them; the rest as in `Stream`, with the place of every row that was left out.
    `reading` says how the columns of all these rows were read."""

    layout: Layout
    reading: ColumnsRead
    examples: Sequence[Example]
    rows: Sequence[Row] = field(repr=False)
    skipped: LeftOut
    unused: LeftOut

    def row_of(self, example: Example) -> Row:
        """The row of one of `examples` (the object itself, not an equal one) as it stood in its file."""
        return self.rows[self._index[id(example)]]

    @cached_property
    def _index(self) -> dict[int, int]:
        return {id(example): i for i, example in enumerate(self.examples)}


def load(paths: Sequence[str], settings: DataConfig, *, held_out: bool = False) -> Loaded:
    """Read everything; of splits, where so asked, the one that is `held_out`.

    Raises InputError as `read_rows`, `detect`, `with_codes` and `to_examples` do, and when no row is left."""
    skipped = LeftOut(None)
    rows = list(_rows(paths, settings, skipped, held_out))
    layout = _layout(rows[:LAYOUT_ROWS], rows, settings)
    return _loaded(_examples(layout, rows, rows, settings, skipped), None)


def head(paths: Sequence[str], settings: DataConfig, count: int) -> Loaded:
    """The first `count` examples, read as all of them would be: the layout and its codes are those of the first rows."""
    return _loaded(stream(paths, settings), count)


def stream(
    paths: Sequence[str], settings: DataConfig, *, most: int | None = MAX_LISTED, held_out: bool = False
) -> Stream:
    """Find the layout on the first rows; the rest is read on demand, and nothing but the row at hand is held, and
    `most` of the rows left out (see `LeftOut`).

    Raises InputError as `load` does, for rows after the first ones when they are reached.
    """
    skipped = LeftOut(most)
    rows = _rows(paths, settings, skipped, held_out)
    first = list(itertools.islice(rows, LAYOUT_ROWS))
    layout = _layout(first, first, settings)
    return _examples(layout, first, itertools.chain(first, rows), settings, skipped)


def _rows(paths: Sequence[str], settings: DataConfig, skipped: LeftOut, held_out: bool) -> Iterator[Row]:
    report_skipped, longest = skipped if settings.skip_bad else None, settings.max_row * 1_000_000
    if any(":" in field for field in settings.columns):
        held = files_of(settings.eval, held_out=True)
        check_files(settings.columns, {*files_of(paths, held_out), *files_of(settings.path), *held})
    rows = read_rows(paths, skipped=report_skipped, held_out=held_out, longest=longest)
    return itertools.islice(rows, settings.limit)


def _layout(first: Sequence[Row], rows: Sequence[Row], settings: DataConfig) -> Layout:
    """The layout of the `first` rows, with the codes of `rows`. An error that speaks of an option names the file too."""
    try:
        layout = detect(first, settings.mapping, declared=settings.read_as)
        return with_codes(layout, rows, settings.mapping, settings.values)
    except UnknownLayout as error:
        raise error if settings.mapping else suggest.mended(error, first) from None
    except InputError as error:
        if isinstance(error.where, Origin):
            raise
        raise InputError(f"{error.what}, in {first[0].origin.file}", where=error.where, fix=error.fix) from None


def _examples(
    layout: Layout, known: Sequence[Row], rows: Iterable[Row], settings: DataConfig, skipped: LeftOut
) -> Stream:
    """The examples of `rows`, of which `known` are told of."""
    unused, corrections = LeftOut(skipped.most), LeftOut(0)
    report_skipped = skipped if settings.skip_bad else None
    pairs = rows_with_examples(
        rows, layout, settings.mapping, group=settings.group, skipped=report_skipped, unused=unused, corrections=corrections
    )  # fmt: skip
    return Stream(layout, describe_columns(layout, known, settings.mapping), pairs, skipped, unused, corrections)


def _loaded(source: Stream, count: int | None) -> Loaded:
    pairs = list(itertools.islice(source.pairs, count))
    if not pairs:
        origin, reason = (source.skipped.first + source.unused.first)[0]
        raise InputError(f"no usable row; the first: {reason}", where=origin, fix="fix the rows or map the columns")
    examples, rows = tuple(example for _, example in pairs), tuple(row for row, _ in pairs)
    reading = replace(source.reading, corrected=dict(source.corrections.reasons))
    return Loaded(source.layout, reading, examples, rows, source.skipped, source.unused)
