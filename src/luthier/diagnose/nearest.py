"""The texts most like a text, by the words they share: BM25."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import regex

# A run of letters and digits (with what follows an apostrophe) is a word; where words are written without spaces
# between them, each character is one.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_RUN = rf"[\w--[{_UNSPACED}]]+"
_WORD = regex.compile(rf"(?V1)[{_UNSPACED}]\p{{M}}*|{_RUN}(?:['’]{_RUN})*")


def words(text: str) -> list[str]:
    """The words of a text, case folded, without punctuation."""
    return _WORD.findall(text.casefold())


class Nearest:
    """An index of texts. `find` is deterministic; equal scores are in the order of the texts.

    BM25 (Robertson et al. 1994) as Lucene computes it, by bm25s (Lù 2024): over the words of the query, the sum of

        ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 (1 - b + b l / mean l)),   k1 = 1.5, b = 0.75,

    for N texts of which n hold the word, in this one f times among l words.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        self._vocabulary: dict[str, int] = {}
        ids = [[self._vocabulary.setdefault(word, len(self._vocabulary)) for word in words(text)] for text in texts]
        self._index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
        if self._vocabulary:  # it has no index of no words
            self._index.index((ids, self._vocabulary), show_progress=False)

    def find(self, query: str, k: int) -> list[tuple[int, float]]:
        """(index, score) of the k texts nearest to the query, best first; fewer when fewer share a word with it."""
        known = [self._vocabulary[word] for word in words(query) if word in self._vocabulary]
        if not known or not k:
            return []
        scores = self._index.get_scores_from_ids(known)
        bar = np.partition(scores, -k)[-k] if k < len(scores) else 0.0
        found = np.flatnonzero((scores >= bar) & (scores > 0))
        best = found[np.argsort(-scores[found], kind="stable")][:k]
        return [(int(i), float(scores[i])) for i in best]
