"""Near duplicates by MinHash (Broder 1997) with locality-sensitive hashing, in NumPy.

A text is the set of its shingles: runs of 5 words, or of 5 characters where it has few words or is written
without spaces. Case, punctuation and spacing do not count. The similarity of two texts is the Jaccard
similarity of their sets, |A & B| / |A | B|. MinHash only proposes pairs, by bands of equal minima; each
proposed pair is then measured exactly, so nothing is called similar that is not. What can be missed: two
texts of similarity s share no band with probability (1 - s^5)^14, 0.4 % at s = 0.8; in a bucket each text is
compared with the first and the previous one only; and a text of words is never compared with one of characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BANDS, DEPTH, WIDTH = 14, 5, 5
FEW_WORDS, LONG_WORD = 20, 15
BLOCK = 1 << 20  # characters hashed at once

Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Near(NamedTuple):
    """Texts `first` < `second`, by index, and their similarity."""

    first: int
    second: int
    similarity: float


def near_pairs(texts: Sequence[str], threshold: float = 0.8) -> list[Near]:
    """Pairs of texts at least `threshold` similar, in order of the second: for each text of a group of similar
    ones some earlier one is named, not every pair. Deterministic."""
    none = np.zeros((0, BANDS * DEPTH), np.uint32)
    candidates = _candidates(np.concatenate([none, *map(_signatures, _blocks(texts))]))
    wanted = np.unique(candidates)
    sets: dict[int, Hashes] = {}
    for block in _blocks([texts[i] for i in wanted]):
        hashes, ends = shingles(block)
        for part in np.split(hashes, ends[:-1]):
            sets[int(wanted[len(sets)])] = np.unique(part)
    found = (Near(int(i), int(j), _jaccard(sets[int(i)], sets[int(j)])) for i, j in candidates)
    return sorted(
        (pair for pair in found if pair.similarity >= threshold), key=lambda pair: (pair[1], -pair[2], pair[0])
    )


def _by_second(near: Near) -> tuple[int, float, int]:
    return near.second, -near.similarity, near.first


def repetition(text: str) -> float:
    """The share of a text's shingles that stood before in it; 0 for a text of fewer than 50."""
    hashes, _ = shingles([text])
    return 1 - len(np.unique(hashes)) / len(hashes) if len(hashes) >= 50 else 0.0


def shingles(texts: Sequence[str]) -> tuple[Hashes, Counts]:
    """Hashes of all shingles of all texts, end to end, and where those of each text end."""
    codes = np.frombuffer("".join(f"{text}\n" for text in texts).lower().encode("utf-32-le", "surrogatepass"), np.uint32)
    # Lower case may be longer than the text ('İ'), so the ends are those of the lower-case texts.
    owner = np.repeat(np.arange(len(texts)), [len(text.lower()) + 1 for text in texts])
    is_word = _is_word(codes)
    starts = np.flatnonzero(is_word & ~np.concatenate([[False], is_word[:-1]]))
    words = np.bincount(owner[starts], minlength=len(texts))
    letters = np.bincount(owner[is_word], minlength=len(texts))
    by_letters = (words < FEW_WORDS) | (letters > LONG_WORD * words)
    word_hashes, word_owner = _windows(_word_hashes(codes, is_word, starts), owner[starts])
    # Letters, with one space before each word but the first of its text.
    spaced = is_word.copy()
    spaced[starts[1:][owner[starts[1:]] == owner[starts[:-1]]] - 1] = True
    letter_codes = np.where(is_word, codes, 32)[spaced].astype(np.uint64)
    letter_hashes, letter_owner = _windows(letter_codes, owner[spaced])
    of_words, of_letters = ~by_letters[word_owner], by_letters[letter_owner]
    hashes = np.concatenate([word_hashes[of_words], letter_hashes[of_letters]])
    owners = np.concatenate([word_owner[of_words], letter_owner[of_letters]])
    hashes = hashes[np.argsort(owners, kind="stable")]
    return hashes, np.cumsum(np.bincount(owners, minlength=len(texts)))


def _is_word(codes: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Letters and digits; above ASCII, everything but the common punctuation."""
    table = np.zeros(128, dtype=np.bool_)
    table[[code for code in range(128) if chr(code).isalnum()]] = True
    other = (codes >= 0xC0) & ~((codes >= 0x2000) & (codes < 0x2070)) & ~((codes >= 0x3000) & (codes < 0x3030))
    other &= ~((codes >= 0xFF00) & (codes < 0xFF10))
    return np.where(codes < 128, table[np.minimum(codes, 127)], other)


def _word_hashes(codes: NDArray[np.uint32], is_word: NDArray[np.bool_], starts: Counts) -> Hashes:
    """A polynomial hash of each word's letters."""
    if not len(starts):
        return np.zeros(0, np.uint64)
    at = np.zeros(len(codes), np.int64)
    at[starts] = starts
    place = np.arange(len(codes)) - np.maximum.accumulate(at)
    powers = np.cumprod(np.full(64, _GOLDEN, np.uint64))
    return _mixed(np.add.reduceat(np.where(is_word, codes * powers[place & 63], 0), starts))


def _windows(values: Hashes, owner: Counts) -> tuple[Hashes, Counts]:
    """A hash of every run of WIDTH values within one text."""
    count = max(0, len(values) - WIDTH + 1)
    total = np.zeros(count, np.uint64)
    for offset in range(WIDTH):
        total = total * _GOLDEN + _mixed(values[offset : offset + count])
    inside = owner[:count] == owner[len(owner) - count :]
    return _mixed(total[inside]), owner[:count][inside]


def _mixed(values: Hashes) -> Hashes:
    """Every bit of the input changes half of the output (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    """[texts, BANDS * DEPTH]: the smallest hash of each text's shingles under each of so many hash functions.
    A text without shingles gets zeros, which `_candidates` leaves alone."""
    hashes, ends = shingles(texts)
    begins = np.concatenate([[0], ends[:-1]])
    full = np.flatnonzero(ends > begins)
    out = np.zeros((len(texts), BANDS * DEPTH), np.uint32)
    if len(full):
        keys = _mixed(np.arange(1, 2 * BANDS * DEPTH + 1, dtype=np.uint64) * _GOLDEN).reshape(-1, 2)
        for column, (factor, shift) in enumerate(keys):
            values = ((hashes * (factor | np.uint64(1)) + shift) >> np.uint64(32)).astype(np.uint32)
            out[full, column] = np.minimum.reduceat(values, begins[full])
    return out


def _candidates(signatures: NDArray[np.uint32]) -> Counts:
    """[pairs, 2]: texts that share a band, each with the first and with the previous one of its bucket."""
    full = np.flatnonzero(signatures.any(axis=1))
    found = [np.zeros((0, 2), np.int64)]
    for band in range(BANDS):
        key = np.zeros(len(full), np.uint64)
        for column in range(band * DEPTH, (band + 1) * DEPTH):
            key = _mixed(key * _GOLDEN + signatures[full, column])
        order = np.argsort(key, kind="stable")
        same = np.concatenate([[False], key[order][1:] == key[order][:-1]])
        index = np.arange(len(order))
        first = np.maximum.accumulate(np.where(same, 0, index)) if len(order) else index
        second = index[same]
        for earlier in (first[same], second - 1):
            found.append(np.stack([full[order[earlier]], full[order[second]]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _jaccard(first: Hashes, second: Hashes) -> float:
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def _blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block
