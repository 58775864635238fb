"""Metrics by hand, and which are chosen for which data."""

from __future__ import annotations

import pytest

from luthier.core.errors import InputError
from luthier.evals import metrics
from luthier.evals.metrics import METRICS, auto, choose


@pytest.mark.parametrize(
    ("name", "answer", "reference", "wanted"),
    [
        ("rouge_l", "the cat sat", "the cat sat on the mat", 2 * 1.0 * 0.5 / 1.5),
        ("rouge_l", "nothing shared here", "the cat", 0.0),
        ("exact", " yes \n", "yes", 1.0),
        ("exact", "Yes", "yes", 0.0),
        ("token_f1", "the red cat", "a cat", 2 * 1 / 3),
        ("token_f1", "", "", 1.0),
        ("token_f1", "", "cat", 0.0),
        ("one_line", "one line\n", "", 1.0),
        ("one_line", "two\nlines", "", 0.0),
        ("one_line", " \n", "", 0.0),
        ("length", "  abc ", "", 3.0),
        ("number", "so it is 1,234.0", "1234", 1.0),
        ("number", "first 5, then 6", "#### 5", 0.0),
        ("number", "no digits", "5", 0.0),
    ],
)
def test_by_hand(name, answer, reference, wanted):
    assert METRICS[name].function(answer, reference, "") == pytest.approx(wanted)


def test_chrf_is_whole_for_equal_text_and_nothing_for_strangers():
    assert metrics.chrf("ein Satz", "ein Satz") == pytest.approx(100.0)
    assert metrics.chrf("xyz", "aaa") == 0.0
    assert 0 < metrics.chrf("ein Satz hier", "ein Satz") < 100


def test_auto_chooses_by_the_references():
    assert auto(["card_lost", "top_up", "refund"] * 10)[0] == "accuracy"
    assert auto([f"sentence number {i} of its own" for i in range(30)]) == ("rouge_l", "chrf", "one_line", "length")
    assert auto([f"a first line {i}\nand a second" for i in range(30)]) == ("rouge_l", "chrf", "length")
    assert auto([f"steps\n#### {i}" for i in range(30)])[0] == "number"
    assert auto([f"{chr(0x4E00 + i)}{chr(0x4E01 + i)} 句子" for i in range(30)])[0] == "chrf"


def test_choose_keeps_order_and_refuses_unknown_names():
    assert choose(("exact", "exact", "length"), ["x"]) == ("exact", "length")
    with pytest.raises(InputError, match="did you mean 'rouge_l'"):
        choose(("rouge",), ["x"])
