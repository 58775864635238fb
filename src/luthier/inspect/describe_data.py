"""What is in this data: the card of a data set, and new files from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.config.run import RunConfig
from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.storage.files import together
from luthier.core.storage.opening import require_new
from luthier.core.types.examples import Example
from luthier.data import load as data_load
from luthier.data.clean import CleanSettings, clean
from luthier.data.columns_read import ColumnsRead
from luthier.data.data_card import Card, card, sample
from luthier.data.formats import rows_in
from luthier.data.split import split
from luthier.data.warnings import warnings_of
from luthier.data.write import check_lines, write_jsonl
from luthier.model.folder.tokenizer import load_tokenizer
from luthier.model.hub import sources
from luthier.text.tokenizer import Tokenizer

STREAM_ROWS = 20_000  # rows of a stream that are looked at


@dataclass(frozen=True)
class DataDescription:
    """A card, and the data it describes (None when it was streamed), how it was read, and what of that deserves a word.
    `seen` counts all rows."""

    card: Card
    reading: ColumnsRead
    warnings: tuple[str, ...]
    loaded: data_load.Loaded | None
    seen: int
    skipped: int
    unused: int

    def as_dict(self) -> dict[str, Any]:
        """The keys of `luthier data --json`."""
        card = self.card.as_dict()
        counts = {"seen": self.seen, "skipped": self.skipped, "unused": self.unused}
        return card | self.reading.as_dict() | {"warnings": [*self.warnings, *card["warnings"]]} | counts


def card_of(
    examples: Sequence[Example], tokenizer: Tokenizer | None, limit: int, *, layout: str,
    test: Sequence[Example] | None = None, dropped: dict[str, int] | None = None,
) -> Card:  # fmt: skip
    """The card, lengths in tokens; in characters without a tokenizer."""
    count = (lambda text: len(tokenizer.encode(text))) if tokenizer else None
    return card(examples, count=count, limit=limit, test=test, layout=layout, dropped=dropped)


def describe(config: RunConfig) -> DataDescription:
    """Describe the data, against `data.eval` too when given. Of a stream, a fair sample of its rows."""
    data = config.data
    if not data.path:
        raise InputError("no data given", fix="luthier data PATH, such as luthier data rows.jsonl")
    test = (
        data_load.load(data.eval, data.model_copy(update={"limit": None}), held_out=True).examples
        if data.eval
        else None
    )
    source = data_load.stream(data.path, data) if data.stream else data_load.load(data.path, data)
    examples, seen = sample(source, STREAM_ROWS) if isinstance(source, data_load.Stream) else (source.examples, None)
    left = source.skipped.reasons + source.unused.reasons
    made = card_of(
        examples, _tokenizer(config), config.text.max_length, layout=source.layout.name, test=test, dropped=dict(left)
    )
    loaded = source if isinstance(source, data_load.Loaded) else None
    warnings = warnings_of(examples, source.reading)
    return DataDescription(
        made, source.reading, warnings, loaded, seen or len(examples), source.skipped.count, source.unused.count
    )


def _tokenizer(config: RunConfig) -> Tokenizer | None:
    """The model's. None when it is the one that nobody asked for and it is not at hand: a card needs no model."""
    try:
        return Tokenizer(load_tokenizer(sources.resolve(config.model).folder))
    except InputError as error:
        if config.model != RunConfig().model:
            raise
        log.warn(f"lengths are in characters, because there is no tokenizer: {error}")
        return None


def translate(loaded: data_load.Loaded, name: str, path: Path) -> dict[str, dict[str, Any]]:
    """Write the examples to a new file as rows of a format of `formats`; what was written, as `rewrite` tells it."""
    check_lines(path)
    require_new(path, "give another file to --to")
    return {name: {"path": str(path), "rows": write_jsonl(rows_in(name, loaded.examples), path)}}


def rewrite(
    loaded: data_load.Loaded, folder: Path, config: RunConfig, cleaning: CleanSettings | None, splitting: bool
) -> dict[str, dict[str, Any]]:
    """Write new files of the rows with their own fields; what was written: name -> path, rows, and why for dropped rows.

    Cleaning writes clean.jsonl and dropped.jsonl (every other row with its place and reason, those that reading left
    out too); splitting writes train.jsonl and test.jsonl, of the cleaned rows when both are asked for, no prompt on
    both sides.
    """
    names = ["clean", "dropped"] * (cleaning is not None) + ["train", "test"] * splitting
    paths = [folder / f"{name}.jsonl" for name in names]
    for path in paths:
        require_new(path, "give another folder with --out")
    with together(*paths):
        return _write(loaded, config, folder, cleaning, splitting)


def _write(
    loaded: data_load.Loaded, config: RunConfig, folder: Path, cleaning: CleanSettings | None, splitting: bool
) -> dict[str, dict[str, Any]]:
    written: dict[str, dict[str, Any]] = {}
    kept: Sequence[Example] = loaded.examples

    def write(name: str, examples: Sequence[Example]) -> None:
        path = folder / f"{name}.jsonl"
        written[name] = {"path": str(path), "rows": write_jsonl((loaded.row_of(e) for e in examples), path)}

    if cleaning is not None:
        cleaned = clean(loaded.examples, cleaning)
        kept = cleaned.kept
        write("clean", kept)
        rows = [
            {
                "reason": d.reason,
                "filter": d.filter,
                "origin": str(d.example.origin),
                "row": loaded.row_of(d.example).fields,
            }
            for d in cleaned.dropped
        ]
        why = dict(cleaned.counts)
        for name, left in (("bad row", loaded.skipped), ("no example", loaded.unused)):
            rows += [{"reason": reason, "filter": name, "origin": str(origin)} for origin, reason in left.first]
            why |= {name: left.count} if left.count else {}
        path = folder / "dropped.jsonl"
        written["dropped"] = {"path": str(path), "rows": write_jsonl(rows, path), "why": why}
    if splitting:
        train, test = split(kept, config.data.holdout, config.seed)
        write("train", train)
        write("test", test)
    return written
