"""Intervals against published numbers, the correction for many slices, length bands and topics."""

from __future__ import annotations

import random

import pytest

from luthier.diagnose.slices import length_bands, slices, topics


def two(inside_bad: int, inside: int, rest_bad: int, rest: int):
    """The one slice of rows of which so many are bad."""
    rows = [{"topic": "card"}] * inside + [{"topic": ""}] * rest
    bad = [1] * inside_bad + [0] * (inside - inside_bad) + [1] * rest_bad + [0] * (rest - rest_bad)
    (found,) = slices(rows, bad)
    return found


def test_newcombes_examples():
    """Newcombe 1998, table II, method 10: 56/70 - 48/80 and 9/10 - 3/10."""
    first, second = two(56, 70, 48, 80), two(9, 10, 3, 10)
    assert (first.low, first.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert (second.low, second.high) == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert (first.kind, first.value, first.n) == ("topic", "card", 70)
    assert (first.rate, first.rest, first.difference) == pytest.approx((0.8, 0.6, 0.2))
    assert first.clear and not two(3, 20, 8, 80).clear


def test_scores_that_are_not_shares():
    """Both parts have less spread than all rows, 25/19, so that counts: 1 ± t(18) sqrt(2 * 25/19 / 10), t = 2.10092."""
    rows = [{"file": "a"}] * 10 + [{}] * 10
    (found,) = slices(rows, [2, 4] * 5 + [1, 3] * 5)
    assert (found.low, found.high) == pytest.approx((1 - 1.077750, 1 + 1.077750), abs=1e-5)
    (same,) = slices(rows, [0.5] * 20)
    assert (same.low, same.high, same.clear) == (0, 0, False)
    (level,) = slices(rows, [7.0] * 10 + [0.0, 2.0] * 5)
    assert level.clear and level.low < 6 < level.high


def test_small_slices_and_small_rests_are_left_out():
    rows = [{"a": "x"}] * 9 + [{"a": "y"}] * 21
    assert slices(rows, [1] * 9 + [0] * 21) == []
    assert slices([{"a": "x"}], [0.5]) == [] == slices([], [])
    rows = [{"a": "x"}] * 10 + [{"a": "y"}] * 21
    assert {s.value for s in slices(rows, [1] * 10 + [0] * 21)} == {"x", "y"}


def test_worst_first():
    """x is clearly worse; y is worse by more than z, but of few rows; w is better."""
    draw = random.Random(0)
    sizes = {"w": (200, 0.05), "x": (300, 0.6), "y": (10, 0.4), "z": (200, 0.3)}
    rows, bad = [], []
    for value, (n, share) in sizes.items():
        rows += [{"label": value}] * n
        bad += [1] * round(n * share) + [0] * (n - round(n * share))
    order = list(range(len(rows)))
    draw.shuffle(order)
    found = slices([rows[i] for i in order], [bad[i] for i in order])
    assert [s.value for s in found] == ["x", "y", "z", "w"]
    assert [s.clear for s in found] == [True, False, False, True]
    assert found == slices(rows, bad)


@pytest.mark.medium
def test_chance_alone_seldom_makes_a_slice_clear():
    """100 times 40 slices of rows that are all alike: a clear one turns up in about 5 of the 100 (uncorrected: in 87)."""
    draw = random.Random(1)
    surprises = 0
    for _ in range(100):
        rows = [{"label": str(draw.randrange(40))} for _ in range(1200)]
        surprises += any(s.clear for s in slices(rows, [float(draw.random() < 0.2) for _ in rows]))
    assert surprises <= 11  # P(X > 11) = 0.4 % at 5 %


def test_a_slice_that_is_worse_is_found_among_many():
    draw = random.Random(2)
    rows = [{"label": str(draw.randrange(40)), "file": draw.choice("ab")} for _ in range(2000)]
    bad = [float(draw.random() < (0.6 if row["label"] == "7" else 0.2)) for row in rows]
    found = slices(rows, bad)
    assert [(s.kind, s.value) for s in found if s.low > 0] == [("label", "7")]


def test_clear_is_what_benjamini_and_hochberg_reject():
    """With one strong slice of m the level is 0.05 / m, with two it is 0.1 / m: the interval of each is narrower."""

    def width(*strong: str) -> float:
        rows, bad = [], []
        for value in "abcdef":
            rows += [{"label": value}] * 50
            bad += [1] * (35 if value in strong else 10) + [0] * (15 if value in strong else 40)
        found = {s.value: s for s in slices(rows, bad)}
        assert {value for value, s in found.items() if s.low > 0} == set(strong)
        return found["f"].high - found["f"].low

    assert width("a", "b") < width("a")


def test_length_bands():
    texts = ["w " * n for n in (8, 1, 7, 2, 6, 3, 5, 4)]
    assert length_bands(texts) == [
        "over 6 words", "up to 2 words", "over 6 words", "up to 2 words",
        "5 to 6 words", "3 to 4 words", "5 to 6 words", "3 to 4 words",
    ]  # fmt: skip
    assert length_bands(["one"] * 6 + ["one two", "one two three"]) == ["up to 1 word"] * 6 + ["over 1 word"] * 2
    assert length_bands(["one two"] * 3) == ["up to 2 words"] * 3
    assert length_bands(["a", "a b", "a b c", "a b c d"]) == ["up to 1 word", "2 words", "3 words", "over 3 words"]
    assert length_bands([]) == []


SUBJECTS = {
    "card": ["card", "lost", "stolen", "bank", "pin", "block"],
    "rain": ["rain", "cloud", "storm", "wind", "sunny", "forecast"],
    "goal": ["goal", "match", "team", "striker", "referee", "score"],
}


def written(n: int) -> tuple[list[str], list[str]]:
    draw = random.Random(3)
    subjects = [draw.choice(list(SUBJECTS)) for _ in range(n)]
    return subjects, [" ".join(["the", "is", *draw.sample(SUBJECTS[s], 4)]) for s in subjects]


def test_topics_are_the_subjects():
    subjects, texts = written(60)  # 60 texts: isqrt(30) = 5 topics of 3 subjects
    found = topics(texts, seed=0)
    for subject, topic in zip(subjects, found, strict=True):
        assert set(topic.split(", ")) < set(SUBJECTS[subject])
    assert found == topics(texts, seed=0)


def test_few_texts_and_texts_without_words_have_no_topic():
    assert set(topics(written(39)[1], seed=0)) == {""}
    assert topics([*written(60)[1], "", "xyzzy"], seed=0)[-2:] == ["", ""]
    assert set(topics(["same words"] * 50, seed=0)) == {""}
    assert topics([], seed=0) == []
