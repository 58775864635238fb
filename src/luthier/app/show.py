"""Token by token: what a model would learn from a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from luthier.app.prepare import Texts
from luthier.core.config import RunConfig
from luthier.core.types import Example, TokenTree
from luthier.text import show
from luthier.text.encode import encode


def trees_of(examples: Sequence[Example], texts: Texts, config: RunConfig) -> list[TokenTree]:
    """The trees that training would see."""
    return encode(examples, texts.template, texts.tokenizer, config.text, skip_bad=config.data.skip_bad).trees


def coloured(examples: Sequence[Example], texts: Texts, config: RunConfig, width: int = 100) -> list[Text]:
    """Each tree with a summary line, learned tokens coloured."""
    trees = trees_of(examples, texts, config)
    return [show.render_rich(tree, texts.tokenizer, texts.template, width=width) for tree in trees]


def plain(examples: Sequence[Example], texts: Texts, config: RunConfig) -> str:
    """The same for pipes: learned tokens marked in text."""
    trees = trees_of(examples, texts, config)
    return "\n\n".join(show.render_plain(tree, texts.tokenizer, texts.template) for tree in trees)


def records(examples: Sequence[Example], texts: Texts, config: RunConfig) -> list[dict[str, Any]]:
    """The same for scripts."""
    return [
        {
            "origin": str(tree.origin),
            "trained": tree.trained,
            "tokens": [
                {"text": piece.text, "id": piece.id, "trained": piece.trained, "node": piece.node}
                for piece in show.show(tree, texts.tokenizer, texts.template)
            ],
        }
        for tree in trees_of(examples, texts, config)
    ]
