"""The whole way on a model and data that every machine has: say in one line what a Python function does."""

from __future__ import annotations

from typing import Any

from luthier.app import train
from luthier.app.card import card_of
from luthier.app.prepare import STDLIB, chosen_method, open_texts, read_examples, use_threads
from luthier.app.show import coloured
from luthier.core.config import RunConfig, resolve

DEFAULTS: dict[str, Any] = {
    "out": "runs/quickstart",
    "data.path": [STDLIB],
    "data.limit": 900,
    "text.max_length": 512,
    "train.lr": 1e-3,
    "train.checkpoint": 5,
    "eval.rows": 80,
    "eval.samples": 80,
    "eval.max_new_tokens": 48,
}


def settings(overrides: dict[str, Any]) -> RunConfig:
    """The quickstart's settings, with what the user changed."""
    return resolve(DEFAULTS, overrides)


def quickstart(config: RunConfig, show: Any) -> dict[str, Any]:
    """Show the data, then run. `show` is told of 'card' and 'examples' beside what a run tells."""
    use_threads(config)
    examples = read_examples(config, chosen_method(config).example)
    texts = open_texts(config)
    card = card_of(examples.train, texts.tokenizer, config.text.max_length, layout=examples.layout, test=examples.test)
    show("card", card.as_dict())
    show("examples", coloured(examples.train[:3], texts, config))
    return train.run(config, show)
