"""The whole way on a model and data that every machine has: explain Python functions in one line."""

from __future__ import annotations

from typing import Any

from luthier.app import train
from luthier.app.card import card_of
from luthier.app.prepare import Examples, open_texts, use_threads
from luthier.app.show import pieces
from luthier.app.stdlib_pairs import pairs
from luthier.core.config import RunConfig, resolve

ROWS, TEST = 1000, 96
DEFAULTS: dict[str, Any] = {
    "out": "runs/quickstart",
    "train.lr": 1e-3,
    "train.checkpoint": 5,
    "eval.samples": TEST,
    "eval.max_new_tokens": 48,
    "text.max_length": 512,
}


def settings(overrides: dict[str, Any]) -> RunConfig:
    """The quickstart's settings, with what the user changed."""
    return resolve(DEFAULTS, overrides)


def quickstart(config: RunConfig, rows: int, show: Any) -> dict[str, Any]:
    """Make the data, show it, and run it. `show` is told of 'card' and 'examples' too."""
    use_threads(config)
    learn, test = pairs(limit=rows, test=TEST, seed=config.seed)
    examples = Examples("function -> first line of its docstring", learn, test, ())
    texts = open_texts(config)
    show("card", card_of(learn, texts.tokenizer, config.text.max_length, layout=examples.layout, test=test).as_dict())
    show("examples", pieces(learn[:3], texts, config))
    return train.run(config, examples, show)
