"""BM25 by hand, order, words of other scripts."""

from __future__ import annotations

from math import log

import pytest

from luthier.diagnose.nearest import Nearest, words


def test_scores_are_those_of_the_formula():
    """Three texts of two words, so l = mean l and every frequency counts 1 / (1 + 1.5)."""
    found = Nearest(["red cat", "blue dog", "Red DOG!"]).find("a red cat", 3)
    red, cat = log(1 + 1.5 / 2.5), log(1 + 2.5 / 1.5)
    assert [i for i, _ in found] == [0, 2]  # the second shares no word
    assert [score for _, score in found] == pytest.approx([(red + cat) / 2.5, red / 2.5], rel=1e-5)


def test_a_longer_text_counts_less():
    """l = 1 and 3, mean 2: 1 / (1 + 1.5 (0.25 + 0.75 / 2)) against 1 / (1 + 1.5 (0.25 + 0.75 * 3 / 2))."""
    found = dict(Nearest(["cat", "cat sat down"]).find("cat", 2))
    assert found[0] / found[1] == pytest.approx((1 + 1.5 * 1.375) / (1 + 1.5 * 0.625), rel=1e-5)


def test_equal_scores_are_in_the_order_of_the_texts():
    texts = [f"lost card {word}" for word in ("one", "two", "three", "four", "five", "six")]
    assert [i for i, _ in Nearest(texts).find("lost card", 4)] == [0, 1, 2, 3]
    assert [i for i, _ in Nearest(texts).find("card five lost", 2)] == [4, 0]


def test_words_no_text_has_find_nothing():
    index = Nearest(["lost card", "", "?!"])
    assert index.find("umbrella", 3) == [] == index.find("", 3) == index.find("card", 0)
    assert [i for i, _ in index.find("umbrella card", 3)] == [0]
    assert Nearest(["", "..."]).find("card", 1) == [] == Nearest([]).find("card", 1)


def test_words():
    assert words("I’m LOST: my card's gone (2 days, Straße)") == [
        "i’m", "lost", "my", "card's", "gone", "2", "days", "strasse",
    ]  # fmt: skip
    assert words("我的卡abc丢了。カード") == ["我", "的", "卡", "abc", "丢", "了", "カ", "ー", "ド"]
    assert words("мой ключ") == ["мой", "ключ"]


def test_it_is_quiet(capfd):
    Nearest(["lost card"] * 50).find("card", 3)
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")
