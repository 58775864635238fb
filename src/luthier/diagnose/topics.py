"""What kind of text a row has: its length, and what it is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isqrt, log

import numpy as np
from numpy.typing import NDArray

from luthier.core.seeds import generator
from luthier.diagnose.nearest import words

MIN_TEXTS = 40  # texts; fewer are of one topic
MAX_TOPICS = 12  # topics
VOCABULARY = 2000
BLOCK = 10_000  # texts that the topics are learned from, and that are placed at once
DIRECTIONS = 64
STARTS, ROUNDS = 4, 40

Floats = NDArray[np.float32]
Counts = NDArray[np.int64]


def length_bands(texts: Sequence[str]) -> list[str]:
    """The quarter of the texts that each belongs to by its number of words: 'up to 9 words', '10 to 24 words', ...

    Texts of equal length share a band, so there are fewer than four where many are equally long.
    """
    counts = sorted(len(words(text)) for text in texts)
    if not counts:
        return []
    quarters = [counts[max(0, len(counts) * part // 4 - 1)] for part in (1, 2, 3)]
    edges = sorted({edge for edge in quarters if edge < counts[-1]}) or [counts[-1]]
    names = [f"up to {_number(edges[0])}"]
    for before, edge in pairwise(edges):
        names.append(f"{before + 1} to {_number(edge)}" if edge > before + 1 else _number(edge))
    names.append(f"over {_number(edges[-1])}")
    return [names[np.searchsorted(edges, len(words(text)))] for text in texts]


def _number(count: int) -> str:
    return "1 word" if count == 1 else f"{count} words"


def topics(texts: Sequence[str], *, seed: int = 0) -> list[str]:
    """The topic of each text, named by its three most typical words, such as 'card, arrive, delivery'.

    Texts are rows of TF-IDF, (1 + ln f) ln(N / n), of length 1, over the words that are in the most texts but in no more than half
    of them. They are taken along their 64 strongest directions (latent semantic analysis, Deerwester et al. 1990) and
    clustered by cosine: k-means from k-means++ starts, k = sqrt(n / 2), at most 12. "" for all when there are fewer than 40 texts,
    and for a text with none of the words. The same seed gives the same topics.
    """
    said = [Counter(words(text)) for text in texts]
    random = generator(seed, "topics", len(texts))
    sample = [said[i] for i in np.sort(random.permutation(len(said))[:BLOCK])]
    columns, weights = _vocabulary(sample)
    if len(texts) < MIN_TEXTS or not columns:
        return [""] * len(texts)
    learned = _tf_idf(sample, columns, weights)
    directions = _directions(learned, random)
    points = _unit(learned @ directions)
    centres = _centres(points, min(MAX_TOPICS, isqrt(len(sample) // 2)), random)
    names = _names(learned, (points @ centres.T).argmax(axis=1), len(centres), list(columns))
    found: list[str] = []
    for start in range(0, len(said), BLOCK):
        block = _tf_idf(said[start : start + BLOCK], columns, weights)
        nearest = (_unit(block @ directions) @ centres.T).argmax(axis=1)
        found += [names[topic] if row.any() else "" for topic, row in zip(nearest, block, strict=True)]
    return found


def _vocabulary(said: Sequence[Counter[str]]) -> tuple[dict[str, int], Floats]:
    """The column of each word that is used, and ln(N / n) of it."""
    texts = Counter(word for counts in said for word in counts)
    common = [(word, n) for word, n in texts.items() if 2 <= n <= len(said) / 2]
    chosen = sorted(common, key=lambda pair: (-pair[1], pair[0]))[:VOCABULARY]
    weights = np.array([log(len(said) / n) for _, n in chosen], dtype=np.float32)
    return {word: column for column, (word, _) in enumerate(chosen)}, weights


def _tf_idf(said: Sequence[Counter[str]], columns: Mapping[str, int], weights: Floats) -> Floats:
    """[texts, words] of length 1, or 0 for a text without any of the words."""
    out = np.zeros((len(said), len(columns)), dtype=np.float32)
    for row, counts in zip(out, said, strict=True):
        for word, count in counts.items():
            if (column := columns.get(word)) is not None:
                row[column] = (1 + log(count)) * weights[column]
    return _unit(out)


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, np.float32(1e-12))


def _directions(rows: Floats, random: np.random.Generator) -> Floats:
    """[words, directions] the strongest right singular vectors, by subspace iteration from a random start (Halko,
    Martinsson & Tropp 2011)."""
    width = min(DIRECTIONS, *rows.shape)
    found = random.standard_normal((rows.shape[1], min(width + 10, rows.shape[1]))).astype(np.float32)
    for _ in range(4):
        found, _ = np.linalg.qr(rows.T @ (rows @ found))
    return (found @ np.linalg.svd(rows @ found, full_matrices=False)[2].T)[:, :width]


def _centres(points: Floats, k: int, random: np.random.Generator) -> Floats:
    """[k, directions] of length 1: the best of several starts, by the mean cosine of a point to its centre."""
    best, most = points[:k], -np.inf
    for _ in range(STARTS):
        centres = _spread(points, k, random)
        for _ in range(ROUNDS):
            nearest = (points @ centres.T).argmax(axis=1)
            sums = np.stack([points[nearest == topic].sum(axis=0) for topic in range(k)])
            moved = np.where(sums.any(axis=1, keepdims=True), _unit(sums), centres)
            if np.allclose(moved, centres, atol=1e-5):
                break
            centres = moved
        if (fit := float((points @ centres.T).max(axis=1).mean())) > most:
            best, most = centres, fit
    return best


def _spread(points: Floats, k: int, random: np.random.Generator) -> Floats:
    """k of the points, each drawn by its squared distance from those before it (Arthur & Vassilvitskii 2007)."""
    chosen = [int(random.integers(len(points)))]
    for _ in range(k - 1):
        far = np.clip(1 - (points @ points[chosen].T).max(axis=1), 0, None).astype(np.float64)
        chosen.append(int(random.choice(len(points), p=far / far.sum())) if far.any() else 0)
    return points[chosen]


def _names(rows: Floats, topic: NDArray[np.int64], count: int, vocabulary: Sequence[str]) -> list[str]:
    """For each topic the three words with the most m ln(m / M), m their mean TF-IDF in its texts, M in all."""
    overall = rows.mean(axis=0)
    names = []
    for number in range(count):
        mean = rows[topic == number].mean(axis=0) if (topic == number).any() else overall
        typical = np.argsort(-mean * np.log(np.maximum(mean, 1e-12) / overall), kind="stable")
        names.append(", ".join(vocabulary[column] for column in typical[:3]))
    return names
