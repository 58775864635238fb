"""A token tree for people: token by token, which are learned, where nodes begin, where the answer stops.

One drawing, two inks: colours for a terminal, brackets for a pipe. What data holds is shown, never
obeyed: control characters, escape sequences and direction marks are written out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthier.core.types.trees import TokenTree
from luthier.text.template import Template
from luthier.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rich.text import Text

NEWLINE, TAB, STOP, PARTIAL, BREAK = "↵", "⇥", "■", "…", "¦"

TRAINED = ("black on #a6e3a1", "black on #c9f0c4")
UNTRAINED = ("grey42", "grey58")
SPECIAL, STOPPING, FRAME = "magenta", "bold white on #1f7a3a", "grey50"


@dataclass(frozen=True, slots=True)
class ShownToken:
    """One token. `text` is what it adds: "" for the first bytes of a character that later tokens complete.

    `special` marks control tokens, `stop` the learned token that ends an answer.
    """

    text: str
    id: int
    trained: bool
    node: int
    special: bool
    stop: bool


def show(tree: TokenTree, tokenizer: Tokenizer, template: Template | None = None) -> list[ShownToken]:
    """The tokens of `tree` in the order of its nodes. Without `template`, the tokenizer's stop tokens count."""
    stop_ids = template.stop_ids if template else tokenizer.stop_ids
    control = set(tokenizer.control.values())
    out = []
    for number, node in enumerate(tree.nodes):
        for text, index, trained in zip(_texts(node.ids, tokenizer), node.ids, node.trained, strict=True):
            out.append(ShownToken(text, index, trained, number, index in control, trained and index in stop_ids))
    return out


def summary(tree: TokenTree, tokenizer: Tokenizer, template: Template | None = None) -> str:
    """One line: where the row stands, its tokens, how many are learned, the stop token, the template."""
    pieces = show(tree, tokenizer, template)
    stops = list(dict.fromkeys(piece.text for piece in pieces if piece.stop))
    parts = [
        str(tree.origin),
        f"{len(tree)} tokens",
        f"{tree.trained} trained ({tree.trained / max(1, len(tree)):.0%})",
        f"stop token {' '.join(stops)} trained" if stops else "no stop token trained",
    ]
    if tree.cut:
        parts.append(f"{tree.cut} tokens cut off")
    if template:
        parts.append(f"template {template.name}")
    return " · ".join(parts)


def leaf_names(tree: TokenTree) -> dict[int, str]:
    """What each answer of a tree is to the others: node -> chosen or rejected, its rank, wanted or unwanted."""
    ranks = tree.leaf_columns.get("rank")
    if ranks is not None:
        better = ("chosen", "rejected") if len(ranks) == 2 and ranks[0] != ranks[1] else None
        words = [
            better[rank != min(ranks)] if better else f"rank {rank:g} of {len(ranks)}{_tied(rank, ranks)}"
            for rank in ranks
        ]
        return dict(zip(tree.leaves, words, strict=True))
    if isinstance(label := tree.columns.get("label"), bool):
        return {tree.leaves[-1]: "wanted" if label else "unwanted"}
    return {}


def _tied(rank: float, ranks: Sequence[float]) -> str:
    return ", tied" if list(ranks).count(rank) > 1 else ""


def render_plain(tree: TokenTree, tokenizer: Tokenizer, template: Template | None = None, *, width: int = 100) -> str:
    """The tree as plain text: [learned] tokens in brackets, others between broken bars, newlines as ↵."""
    out = [summary(tree, tokenizer, template)]
    for frame, line in _lines(tree, tokenizer, template, width):
        text = ""
        for piece in line:
            if piece.trained:
                text += f"[{_visible(piece)}]"
            else:
                text += (BREAK if text and not text.endswith("]") else "") + _visible(piece)
        out.append(frame + text)
    return "\n".join(out)


def render_rich(tree: TokenTree, tokenizer: Tokenizer, template: Template | None = None, *, width: int = 100) -> Text:
    """The tree in colour: learned tokens on green, others grey, two shades in turn so that borders show."""
    from rich.text import Text

    out = Text(no_wrap=True, overflow="ignore")
    out.append(summary(tree, tokenizer, template), "bold")
    count = 0
    for frame, line in _lines(tree, tokenizer, template, width):
        out.append(f"\n{frame}", FRAME)
        for piece in line:
            shade = TRAINED[count % 2] if piece.trained else UNTRAINED[count % 2]
            if piece.special:
                shade = STOPPING if piece.stop else shade if piece.trained else SPECIAL
            out.append(_visible(piece), shade)
            count += 1
    return out


def _lines(
    tree: TokenTree, tokenizer: Tokenizer, template: Template | None, width: int
) -> Iterator[tuple[str, list[ShownToken]]]:
    """Lines of at most about `width` cells, each with its frame; they break after newlines and between tokens."""
    pieces = show(tree, tokenizer, template)
    depths: list[int] = []
    leaves = leaf_names(tree)
    for number, node in enumerate(tree.nodes):
        depths.append(depths[node.parent] + 1 if node.parent >= 0 else 0)
        indent = "  " * depths[-1]
        role = f", continues node {node.parent}" if node.parent >= 0 else ""
        name = f" ({leaves[number]})" if number in leaves else ""
        if len(tree.nodes) > 1 or name:
            yield f"{indent}┌ node {number}{name}{role}: {len(node.ids)} tokens, {sum(node.trained)} trained", []
        own = [piece for piece in pieces if piece.node == number]
        for line in _wrap(own, width - len(indent) - 2):
            yield f"{indent}│ ", line


def _wrap(pieces: Sequence[ShownToken], width: int) -> Iterator[list[ShownToken]]:
    from rich.cells import cell_len

    line: list[ShownToken] = []
    used = 0
    for piece in pieces:
        cells = cell_len(_visible(piece)) + 2
        if line and used + cells > width:
            yield line
            line, used = [], 0
        line.append(piece)
        used += cells
        if piece.text.endswith("\n"):
            yield line
            line, used = [], 0
    if line:
        yield line


def _visible(piece: ShownToken) -> str:
    """The token's text on one line, with nothing in it that a terminal would act on."""
    out = "".join(map(_glyph, piece.text)) if piece.text else PARTIAL
    return out + STOP if piece.stop else out


def _glyph(character: str) -> str:
    if character == "\n":
        return NEWLINE
    if character == "\t":
        return TAB
    if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and character != "\u200d":
        return f"\\u{ord(character):04x}"
    return character


def _texts(ids: Sequence[int], tokenizer: Tokenizer) -> Iterator[str]:
    """What each token adds to the text. A token alone may be half a character, and may lose its first space
    in decoding, so each is decoded together with the one before it."""
    context: list[int] = []
    pending: list[int] = []
    for index in ids:
        pending.append(index)
        before = tokenizer.decode(context, special=True)
        text = tokenizer.decode([*context, *pending], special=True)[len(before) :]
        if text.endswith("\ufffd") and len(pending) < 4:
            yield ""
            continue
        yield text
        context, pending = pending[-1:], []
