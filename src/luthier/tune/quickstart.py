"""The whole way on a model and data that every machine has: say in one line what a Python function does."""

from __future__ import annotations

import time
from typing import Any

from luthier.config.run import RunConfig
from luthier.core.threads import use_threads
from luthier.core.types.run_result import RunResult
from luthier.inspect.describe_data import card_of
from luthier.inspect.show_tokens import coloured
from luthier.runs.method import chosen_method
from luthier.runs.rows import read_examples
from luthier.runs.tokenizer_and_template import open_text_format
from luthier.tune import train


def quickstart(config: RunConfig, show: Any) -> RunResult:
    """Show the data, then run. `show` is told of 'card' and 'examples' beside what a run tells."""
    began = time.monotonic()
    use_threads(config.threads)
    examples = read_examples(config, chosen_method(config).example)
    texts = open_text_format(config)
    card = card_of(examples.train, texts.tokenizer, config.text.max_length, layout=examples.layout, test=examples.test)
    show("card", card.as_dict())
    show("examples", coloured(examples.train[:3], texts, config))
    return train.run(config, show, began)
