"""Near duplicates: similarities derived by hand, recall against all pairs, and repetition."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.data.near_duplicates import near_pairs, repetitions, shingles

WORDS = [f"word{i}" for i in range(400)]


def document(draw, words=60):
    return [draw.choice(WORDS) for _ in range(words)]


def count(text):
    hashes, ends = shingles([text])
    assert ends.tolist() == [len(hashes)]
    return len(np.unique(hashes))


def test_number_of_shingles():
    assert count(" ".join(f"w{i}" for i in range(30))) == 26  # runs of 5 words of 30
    assert count("abcdefgh") == 4  # runs of 5 letters of 8
    assert count("ab, cde f") == 4  # 'ab cde f' has 8 letters and blanks
    assert count("abcd") == count("") == count("?!") == 0
    assert count("第一二三四五六七") == 4  # no spaces: letters, however long


def test_case_punctuation_and_spacing_do_not_count():
    text = " ".join(f"w{i}" for i in range(30))
    (pair,) = near_pairs([text, text.upper().replace(" ", ",\n ") + "."])
    assert pair == (0, 1, 1.0)


def test_similarity_is_the_jaccard_similarity():
    """One word of 100 changed in the middle: 5 of 96 runs differ on each side, (96 - 5) / (96 + 5)."""
    words = [f"w{i}" for i in range(100)]
    (pair,) = near_pairs([" ".join(words), " ".join([*words[:50], "other", *words[51:]])], 0.5)
    assert pair.similarity == pytest.approx(91 / 101)
    assert near_pairs([" ".join(words), " ".join([*words[:50], "other", *words[51:]])], 0.91) == []


@pytest.mark.medium
def test_finds_what_comparing_all_pairs_finds():
    draw = random.Random(0)
    texts = []
    for _ in range(60):
        words = document(draw)
        texts.append(" ".join(words))
        for changes in (1, 2, 4, 8):
            other = list(words)
            for place in draw.sample(range(len(words)), changes):
                other[place] = "changed"
            texts.append(" ".join(other))
    draw.shuffle(texts)
    hashes, ends = shingles(texts)
    sets = [set(part.tolist()) for part in np.split(hashes, ends[:-1])]
    similar = {j: max(len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i in range(j)) for j in range(1, len(texts))}
    expected = {j for j, similarity in similar.items() if similarity >= 0.7}
    found = near_pairs(texts, 0.7)
    for i, j, similarity in found:
        assert i < j
        assert similarity == pytest.approx(len(sets[i] & sets[j]) / len(sets[i] | sets[j]))
    assert len(expected) > 60
    assert {pair.second for pair in found} <= expected
    assert len(expected - {pair.second for pair in found}) <= 0.1 * len(expected)


@pytest.mark.medium
def test_many_texts_from_one_mould_are_found_without_a_square():
    texts = ["the very same text of a row"] * 5000
    assert [pair.first for pair in near_pairs(texts)] == [0] * 4999


def test_pairs_that_are_not_accepted_hide_no_others():
    text = " ".join(f"w{i}" for i in range(30))
    pairs = near_pairs([text, text, text], accept=lambda i, j: (i, j) == (1, 2))
    assert pairs == [(1, 2, 1.0)]


def test_the_order_of_blocks_changes_nothing(monkeypatch):
    draw = random.Random(1)
    texts = [" ".join(document(draw, 30)) for _ in range(30)] * 2
    whole = near_pairs(texts)
    monkeypatch.setattr("luthier.data.near_duplicates.BLOCK", 100)
    assert near_pairs(texts) == whole
    assert len(whole) == 30


@pytest.mark.medium
@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=5))
def test_any_text_is_taken(texts):
    hashes, ends = shingles(texts) if texts else (np.zeros(0), [])
    assert len(ends) == len(texts)
    for part, text in zip(np.split(hashes, ends[:-1]) if texts else [], texts, strict=True):
        assert part.tolist() == shingles([text])[0].tolist()
    near_pairs(texts)


def test_repetition_is_the_share_of_runs_that_stood_before():
    """A sentence of 10 words, 20 times: 200 - 4 runs, of which 10 are new."""
    loop = " ".join(f"w{i}" for i in range(10)) + " "
    plain = " ".join(f"w{i}" for i in range(200))
    assert repetitions([loop * 20, plain, "no no no"]) == [pytest.approx(1 - 10 / 196), 0.0, 0.0]
