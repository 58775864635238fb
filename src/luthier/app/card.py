"""What is in this data: the card of a data set, with tokens counted by a model's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luthier.core.config import RunConfig
from luthier.core.errors import InputError
from luthier.core.types import Example
from luthier.data import load as data_load
from luthier.data.card import Card, card
from luthier.data.clean import CleanSettings, clean
from luthier.data.split import split
from luthier.data.write import write_jsonl
from luthier.model import load as model_load
from luthier.model import sources
from luthier.text.tokenizer import Tokenizer


def open_tokenizer(model: str) -> Tokenizer:
    """The tokenizer of a model, without its weights."""
    return Tokenizer(model_load.load_tokenizer(sources.resolve(model).folder))


def card_of(
    examples: Sequence[Example], tokenizer: Tokenizer, limit: int, *, layout: str, test: Sequence[Example] | None = None
) -> Card:
    """The card, lengths in tokens."""
    return card(
        examples,
        count=lambda text: len(tokenizer.encode(text)),
        limit=limit,
        test=test,
        layout=layout,
    )


def describe(config: RunConfig, *, count: bool = True) -> tuple[data_load.Loaded, Card]:
    """Load the data and describe it; against `data.eval` too, when given. `count=False` counts characters."""
    if not config.data.path:
        raise InputError("no data given", mend="luthier data PATH, such as luthier data rows.jsonl")
    loaded = data_load.load(config.data.path, config.data)
    test = data_load.load(config.data.eval, config.data).examples if config.data.eval else None
    tokenizer = open_tokenizer(config.model)
    return loaded, card_of(loaded.examples, tokenizer, config.text.max_length, layout=loaded.layout.name, test=test)


def write_split(loaded: data_load.Loaded, folder: Path, holdout: float, seed: int) -> dict[str, Any]:
    """Write train.jsonl and test.jsonl, the rows with their own fields, no prompt on both sides."""
    train, test = split(loaded.examples, holdout, seed)
    paths = {"train": folder / "train.jsonl", "test": folder / "test.jsonl"}
    return {
        name: {"path": str(paths[name]), "rows": write_jsonl((loaded.row_of(e) for e in part), paths[name])}
        for name, part in (("train", train), ("test", test))
    }


def write_clean(loaded: data_load.Loaded, folder: Path, settings: CleanSettings) -> dict[str, Any]:
    """Write clean.jsonl, and dropped.jsonl with every dropped row, its place and the reason."""
    cleaned = clean(loaded.examples, settings)
    kept, dropped = folder / "clean.jsonl", folder / "dropped.jsonl"
    write_jsonl((loaded.row_of(e) for e in cleaned.kept), kept)
    write_jsonl(
        (
            {
                "reason": d.reason,
                "filter": d.filter,
                "origin": str(d.example.origin),
                "row": loaded.row_of(d.example).fields,
            }
            for d in cleaned.dropped
        ),
        dropped,
    )
    return {
        "kept": {"path": str(kept), "rows": len(cleaned.kept)},
        "dropped": {"path": str(dropped), "rows": len(cleaned.dropped), "why": cleaned.counts},
    }
