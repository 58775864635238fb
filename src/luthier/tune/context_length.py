"""Rows that are longer than the model's context are refused before anything is computed of them."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.config.run import RunConfig
from luthier.core.types.trees import TokenTree
from luthier.model.folder import limits
from luthier.model.folder.configuration import load_config
from luthier.runs.method import chosen_method
from luthier.runs.tokenizer_and_template import TextFormat


def check_context(trees: Sequence[TokenTree], texts: TextFormat, config: RunConfig) -> None:
    """Raise InputError where a path of a tree is longer than the model's context. Prompts of online methods need room for an
    answer."""
    shape = load_config(texts.resolved.source.folder)
    longest = max(trees, key=_length, default=None)
    most, more = limits.context(shape), 1 if chosen_method(config).online else 0
    if longest is None or most is None:
        return
    fix = f"--text.max_length {most - more} cuts rows there"
    limits.check_rows(_length(longest) + more, shape, where=longest.origin, fix=fix)


def _length(tree: TokenTree) -> int:
    """Tokens of the longest path from a root to a leaf."""
    ends: list[int] = []
    for node in tree.nodes:
        ends.append((ends[node.parent] if node.parent >= 0 else 0) + len(node.ids))
    return max(ends)
