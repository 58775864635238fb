"""Metrics by hand, and which are chosen for which data."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.core.errors import InputError
from luthier.evals.metrics import answer_metrics
from luthier.evals.metrics.answer_metrics import METRICS, auto, chosen_metrics
from luthier.evals.metrics.measure_answers import about_metric, score
from sentences import sentence


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
        ("number", "no digits", "none here either", 0.0),
        ("number", "it is -3", "3", 0.0),
        ("number", "7-3", "3", 1.0),
        ("number", "$1,000.50.", "1000.5", 1.0),
        ("number", "about .5", "0.5", 1.0),
        ("number", "step 2 of v1.2b3", "2", 1.0),
        ("exact", "", " ", 1.0),
        ("accuracy", "refund\n", "refund", 1.0),
        ("token_f1", "Cat, CAT!", "cat", 2 * 1 / 3),
        ("token_f1", "the", "an", 1.0),
        ("rouge_l", "", "cat", 0.0),
        ("rouge_l", "C A B", "a b c", 2 / 3),
        ("one_line", "\n one \n\n", "", 1.0),
        ("length", "añb", "", 3.0),
    ],
)
@pytest.mark.medium
def test_by_hand(name, answer, reference, wanted):
    assert METRICS[name].function(answer, reference, "") == pytest.approx(wanted)


def test_chrf_is_whole_for_equal_text_and_nothing_for_strangers():
    assert answer_metrics.chrf("ein Satz", "ein Satz") == pytest.approx(100.0)
    assert answer_metrics.chrf("xyz", "aaa") == 0.0
    assert 0 < answer_metrics.chrf("ein Satz hier", "ein Satz") < 100


def test_chrf_by_hand():
    """abc and abd share 2 of 3 letters, 1 of 2 pairs, 0 of 1 triples, and have no longer ones: (2/3 + 1/2 + 0) / 3."""
    assert answer_metrics.chrf("abc", "abd") == pytest.approx(100 * 7 / 18)


def test_chrf_counts_recall_twice():
    """One-character texts: precision 1/2, recall 1 -> 5PR / (4P + R); swapped, less."""
    assert answer_metrics.chrf("ab", "a") == pytest.approx(100 * 5 * 0.5 / (4 * 0.5 + 1))
    assert answer_metrics.chrf("a", "ab") < answer_metrics.chrf("ab", "a")


def test_auto_chooses_by_the_references():
    assert auto(["card_lost", "top_up", "refund"] * 10)[0] == "accuracy"
    assert auto([f"sentence number {i} of its own" for i in range(30)]) == ("rouge_l", "chrf", "one_line", "length")
    assert auto([f"a first line {i}\nand a second" for i in range(30)]) == ("rouge_l", "chrf", "length")
    assert auto([f"steps\n#### {i}" for i in range(30)])[0] == "number"
    assert auto([f"{chr(0x4E00 + i)}{chr(0x4E01 + i)} 句子" for i in range(30)])[0] == "chrf"


def test_labels_are_short_and_seen_four_times():
    labels = [f"label {i}" for i in range(5)]
    assert auto(labels * 4)[0] == "accuracy"
    assert auto([*labels * 3, *labels[1:]])[:2] == ("match", "rouge_l")  # short, but no closed set
    assert auto([label + "x" * 64 for label in labels] * 4)[0] == "rouge_l"
    assert auto(["yes\nor no", "no\nor yes"] * 10)[:2] == ("first_line", "rouge_l")


def test_auto_of_nothing_and_of_blanks():
    assert auto([]) == auto([" ", ""]) == ("rouge_l", "chrf", "length")


def test_every_metric_is_whole_on_its_own_reference_and_auto_names_known_ones():
    for name, metric in METRICS.items():
        value = metric.function(*(['["5"]'] * 2 if name == "json_f1" else ["answer 5"] * 2), "")
        assert value == pytest.approx(metric.top if metric.top is not None else 8.0)
    for references in (["a"] * 8, ["5"] * 8, ["one two"], ["句子"], []):
        assert set(auto(references)) <= set(METRICS)


def test_choose_makes_auto_definite():
    assert chosen_metrics(("number", "auto"), ["#### 3"]) == ("number", "one_line", "length")
    assert chosen_metrics(("auto", "exact"), ["a\nb"]) == ("rouge_l", "chrf", "length", "exact")


def test_choose_keeps_order_and_refuses_unknown_names():
    assert chosen_metrics(("exact", "exact", "length"), ["x"]) == ("exact", "length")
    with pytest.raises(InputError, match=sentence("unknown name", fix="did you mean 'rouge_l'?")):
        chosen_metrics(("rouge",), ["x"])


def test_the_page_names_every_metric_and_says_what_it_is():
    whole = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    page = whole.partition("## Metrics")[2]
    for name, metric in METRICS.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert metric.description.split(",")[0] in line, name


def test_a_metric_of_the_users_is_named_by_its_file_and_function():
    assert chosen_metrics(("auto", "python:mine.py:score"), ["a\nb"])[-1] == "python:mine.py:score"
    assert about_metric("python:some/mine.py:score")["title"] == "score (mine.py)"


def test_a_cut_answer_has_not_finished_in_one_line():
    said, ended = ["one line", "one line that goes on"], ("stop", "length")
    assert score(said, said, ["", ""], ("one_line",), ended) == {"one_line": [1.0, 0.0]}
    assert METRICS["one_line"].title == "finished in one line"
