"""Token by token: what a model would learn from a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from luthier.config.run import RunConfig
from luthier.core.types.examples import Example
from luthier.runs.tokenizer_and_template import TextFormat
from luthier.text import token_view
from luthier.text.encode import Encoded, encode


def encoded(examples: Sequence[Example], texts: TextFormat, config: RunConfig) -> Encoded:
    """The trees that training would see, and the rows that it would not."""
    return encode(examples, texts.template, texts.tokenizer, config.text, skip_bad=config.data.skip_bad)


def coloured(examples: Sequence[Example], texts: TextFormat, config: RunConfig, width: int = 100) -> list[Text]:
    """Each tree with a summary line, learned tokens coloured; then the rows that are left out, and what the template leaves out."""
    found = encoded(examples, texts, config)
    trees = [token_view.render_rich(tree, texts.tokenizer, texts.template, width=width) for tree in found.trees]
    return trees + [Text(line, style="yellow") for line in _left_out(found)]


def plain(examples: Sequence[Example], texts: TextFormat, config: RunConfig) -> str:
    """The same for pipes: learned tokens marked in text."""
    found = encoded(examples, texts, config)
    trees = [token_view.render_plain(tree, texts.tokenizer, texts.template) for tree in found.trees]
    return "\n\n".join(trees + _left_out(found))


def _left_out(found: Encoded) -> list[str]:
    rows = [f"{row.origin} · left out: {row.reason}" for row in found.dropped]
    return rows + [f"in {count} rows the template {what}" for what, count in sorted(found.unwritten.items())]


def records(examples: Sequence[Example], texts: TextFormat, config: RunConfig) -> list[dict[str, Any]]:
    """The same for scripts."""
    found = encoded(examples, texts, config)
    trees = [
        {
            "origin": str(tree.origin),
            "trained": tree.trained,
            "leaves": {str(node): name for node, name in token_view.leaf_names(tree).items()},
            "tokens": [
                {"text": piece.text, "id": piece.id, "trained": piece.trained, "node": piece.node}
                for piece in token_view.show(tree, texts.tokenizer, texts.template)
            ],
        }
        for tree in found.trees
    ]
    return trees + [{"origin": str(row.origin), "left_out": row.reason} for row in found.dropped]
