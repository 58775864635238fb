"""Which words of an answer the reference does not have, and which of the reference the answer lacks."""

from __future__ import annotations

from difflib import SequenceMatcher

import regex
from markupsafe import Markup, escape

from luthier.core.screen import clean

MAX_PIECES = 1000  # words and what is between them; what is longer is shown without marks: comparing takes n x m
MAX_CHARACTERS = 1500  # characters of one text on a page

# Scripts that put no space between words are compared character by character.
_UNSPACED_SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORDS = regex.compile(rf"(?V1)[{_UNSPACED_SCRIPTS}]|[\w--[{_UNSPACED_SCRIPTS}]]+|\s+|[^\w\s]")


def marked(text: str, other: str, label: str) -> Markup:
    """`text` as HTML, its words that are not in `other` in <mark title=label>; difflib's alignment, word by word.

    White space between two marked words is marked with them, so that a phrase is one mark.
    """
    parts, against = _WORDS.findall(beginning(text)), _WORDS.findall(clean(other).strip())
    if not parts:
        return Markup('<span class="none">(empty)</span>')
    if not against or max(len(parts), len(against)) > MAX_PIECES:
        return escape("".join(parts)) + how_much_is_cut(text)
    same: set[int] = set()
    for plain_html in SequenceMatcher(None, parts, against, autojunk=False).get_matching_blocks():
        same.update(range(plain_html.a, plain_html.a + plain_html.size))
    odd = [i not in same and not part.isspace() for i, part in enumerate(parts)]
    for i in range(1, len(parts) - 1):
        odd[i] = odd[i] or (parts[i].isspace() and odd[i - 1] and odd[i + 1])
    out = Markup()
    for i, part in enumerate(parts):
        if odd[i] and not (i and odd[i - 1]):
            out += Markup('<mark title="{}">').format(label)
        out += escape(part)
        if odd[i] and not (i + 1 < len(parts) and odd[i + 1]):
            out += Markup("</mark>")
    return out + how_much_is_cut(text)


def beginning(text: str) -> str:
    """The part of a text that a page shows, without control characters."""
    return clean(text).strip()[:MAX_CHARACTERS]


def how_much_is_cut(text: str) -> Markup:
    """How much of a text is left out."""
    left = len(clean(text).strip()) - MAX_CHARACTERS
    return Markup('<span class="none"> … {} more characters</span>').format(f"{left:,}") if left > 0 else Markup()


def plain_html(text: str) -> Markup:
    """A text as HTML without marks, its beginning when it is long."""
    return (
        escape(beginning(text)) + how_much_is_cut(text) if text.strip() else Markup('<span class="none">(empty)</span>')
    )
