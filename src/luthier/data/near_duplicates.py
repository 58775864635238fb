"""Near duplicates by MinHash (Broder 1997) with locality-sensitive hashing, in NumPy.

A text is the set of its shingles: runs of 5 words, or of 5 characters where it has few words or is written
without spaces. Case, punctuation and spacing do not count. The similarity of two texts is the Jaccard
similarity of their sets, |A & B| / |A | B|. MinHash only proposes pairs, by bands of equal minima; each
proposed pair is then measured exactly, so nothing is called similar that is not. What can be missed: two
texts of similarity s share no band with probability (1 - s^5)^14, 0.4 % at s = 0.8; in a bucket each text is
compared with the first and the 64 previous ones only, so that thousands of texts from one mould cost no
square; and a text of words is never compared with one of characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BANDS, DEPTH, WIDTH = 14, 5, 5
FEW_WORDS, LONG_WORD = 20, 15
PROPOSALS, ESTIMATE_SLACK = 64, 0.15
BLOCK = 1 << 20  # characters hashed at once

Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Near(NamedTuple):
    """Texts `first` < `second`, by index, and their similarity."""

    first: int
    second: int
    similarity: float


def near_pairs(
    texts: Sequence[str], threshold: float = 0.8, accept: Callable[[int, int], bool] = lambda first, second: True
) -> list[Near]:
    """For each text that has one, an earlier text at least `threshold` similar that `accept` takes, in order.

    Deterministic; which of several similar texts is named is not specified.
    """
    none = np.zeros((0, BANDS * DEPTH), np.uint32)
    signatures = np.concatenate([none, *map(_signatures, _blocks(texts))])
    bands = [_buckets(signatures, band) for band in range(BANDS)]
    found: dict[int, Near] = {}
    tried: set[tuple[int, int]] = set()
    sets: dict[int, Hashes] = {}
    alone = np.ones(len(texts), np.bool_)  # texts without a similar one so far
    for back in range(PROPOSALS + 1):
        for members, first in bands:
            pairs = _proposed(members, first, back)
            pairs = pairs[alone[pairs[:, 1]]]
            pairs = pairs[_estimates(signatures, pairs) >= threshold - ESTIMATE_SLACK]
            new = [(i, j) for i, j in pairs.tolist() if (i, j) not in tried and accept(i, j)]
            tried.update(new)
            _fill(sets, texts, (i for pair in new for i in pair))
            for i, j in new:
                if (similarity := _jaccard(sets[i], sets[j])) >= threshold:
                    found[j] = Near(i, j, similarity)
                    alone[j] = False
    return [found[j] for j in sorted(found)]


def repetitions(texts: Sequence[str]) -> list[float]:
    """The share of each text's shingles that stood before in it; 0 for a text of fewer than 50."""
    shares = []
    for block in _blocks(texts):
        hashes, ends = shingles(block)
        for part in np.split(hashes, ends[:-1]):
            shares.append(1 - len(np.unique(part)) / len(part) if len(part) >= 50 else 0.0)
    return shares


def shingles(texts: Sequence[str]) -> tuple[Hashes, Counts]:
    """Hashes of all shingles of all texts, end to end, and where those of each text end."""
    codes = np.frombuffer(
        "".join(f"{text}\n" for text in texts).lower().encode("utf-32-le", "surrogatepass"), np.uint32
    )
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
    A text without shingles gets zeros, which `_buckets` leaves out."""
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


def _buckets(signatures: NDArray[np.uint32], band: int) -> tuple[Counts, Counts]:
    """Texts ordered so that those with equal minima in one band stand together, in their order; and for each
    place the place where its bucket begins. Texts without shingles are left out."""
    full = np.flatnonzero(signatures.any(axis=1))
    key = np.zeros(len(full), np.uint64)
    for column in range(band * DEPTH, (band + 1) * DEPTH):
        key = _mixed(key * _GOLDEN + signatures[full, column])
    order = np.argsort(key, kind="stable")
    begins = np.ones(len(order), np.bool_)
    begins[1:] = key[order][1:] != key[order][:-1]
    return full[order], np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))


def _proposed(members: Counts, first: Counts, back: int) -> Counts:
    """[pairs, 2]: each text with the one so many places before it in its bucket; with the first one for 0."""
    second = np.arange(len(members))
    earlier = second - back if back else first
    inside = (earlier >= first) & (earlier < second)
    return np.stack([members[earlier[inside]], members[second[inside]]], axis=1)


def _estimates(signatures: NDArray[np.uint32], pairs: Counts) -> NDArray[np.float64]:
    """The share of equal minima, which is the similarity to within about 0.05."""
    parts = np.array_split(pairs, len(pairs) // 50_000 + 1)
    return np.concatenate([(signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1) for part in parts])


def _fill(sets: dict[int, Hashes], texts: Sequence[str], wanted: Iterable[int]) -> None:
    """Put the shingles of the wanted texts into `sets`."""
    new = sorted(set(wanted) - sets.keys())
    place = iter(new)
    for block in _blocks([texts[i] for i in new]):
        hashes, ends = shingles(block)
        for part in np.split(hashes, ends[:-1]):
            sets[next(place)] = np.unique(part)


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
