"""Screens of comparisons, suites, judges and ratings: what stands where, and that no text of a model is markup."""

from __future__ import annotations

import re

import pytest
from terminal import printed

from luthier.report.screens.comparison import compare_screen
from luthier.report.screens.ratings import judge_screen, ratings_screen
from luthier.report.screens.suites import suite_screen

EVIL = "[bold]x[/bold] \x1b[31mred"


def row(**changes):
    base = {
        "name": "acc", "title": "accuracy", "unit": "%", "top": 1.0, "higher_is_better": True, "model": "new", "against": "old",
        "before": 0.5, "after": 0.75, "difference": 0.25, "low": 0.1, "high": 0.4, "n": 40, "runs": (1, 1), "test": "exact McNemar",
        "p": 0.01, "corrected": 0.02, "verdict": "better", "needed": None, "detectable": 0.2,
    }  # fmt: skip
    return base | changes


def change(**changes):
    base = {
        "question": "acc", "model": "new", "against": "old", "before": 1.0, "after": 0.0, "place": "f:1", "prompt": EVIL,
        "reference": "r", "texts": {"old": "right", "new": EVIL},
    }  # fmt: skip
    return base | changes


def compared(rows, **changes):
    base = {
        "models": {"old": ["o"], "new": ["n"]},
        "rows": rows,
        "first": [],
        "regressions": [],
        "gains": [],
        "false_alarms": None,
        "out": None,
    }
    return compare_screen(base | changes)


def test_a_comparison_says_what_is_shown_and_what_it_would_take():
    text = printed(compared([
        row(), row(title="rouge", unit="", verdict="no difference shown", low=-0.1, needed=23456, test="sign-flip permutation"),
        row(title="same", difference=0.0, verdict="no difference shown"),
        row(title="runs", verdict="no difference shown"), row(title="few", low=None, high=None, corrected=None, verdict="too few to tell"),
    ]))  # fmt: skip
    rows = [re.sub(" {2,}", "  ", line.strip()) for line in text.splitlines() if line.startswith("  ")]
    lines = {line.split("  ")[0]: line for line in rows}
    assert "+25.0  +10.0 … +40.0  0.020" in lines["accuracy, %"]
    assert "~23,000  no difference shown" in lines["rouge"]
    assert "more runs" in lines["runs, %"]
    assert "more runs" not in lines["same, %"]
    assert "too few to tell" in lines["few, %"]
    assert "40 items" in text
    assert "p by exact McNemar, sign-flip permutation; corrected for all rows (Holm)" in text
    assert "each is a single run" in text


def test_items_that_changed_stand_before_the_table_and_are_no_markup():
    text = printed(
        compared([row()], regressions=[change(), change(question="other")], gains=[change(place="f:2", texts={})])
    )
    assert text.index("items that got worse") < text.index("against old")
    assert "[bold]x[/bold] �[31mred" in text
    assert text.count("f:1") == 1  # one item, once
    assert "items that got better" not in text  # nothing to read in it


def alarm(value):
    return {"value": value, "low": 0.03, "high": 0.097, "n": 200}


def test_pooled_runs_checks_and_files_are_told():
    text = printed(compared(
        [row(), row(model="third", n=10)], models={"old": ["a", "b"], "new": ["c", "d", "e"], "third": ["f", "g"]},
        false_alarms={"acc": alarm(0.045), "rouge_l": alarm(0.055), "loss": alarm(0.04)}, out="items.jsonl",
    ))  # fmt: skip
    assert "pooled over 2 runs of old, 3 runs of new, 2 runs of third" in text
    assert "single run" not in text
    assert "different in 5.5% of 200 resamplings at most (rouge_l)" in text
    assert "200 draws leave room for 3.0% to 9.7%" in text
    assert "every item is in items.jsonl" in text
    assert "third" in text


def case(**changes):
    base = {
        "group": "g", "name": EVIL, "where": "s.yaml:3", "passed": False, "rate": 0.5, "prompt": "p", "answers": [EVIL, "other"],
        "checks": [{"check": "c", "rate": 0.5, "why": "is not 'x'"}, {"check": "d", "rate": 1.0, "why": None}],
    }  # fmt: skip
    return base | changes


def score(name, threshold=None, **changes):
    base = {
        "name": name,
        "cases": 4,
        "passed": 2,
        "rate": 0.5,
        "low": None,
        "high": None,
        "threshold": threshold,
        "met": False,
    }
    return base | changes


def test_a_suite_shows_failures_with_answers_first_then_groups():
    result = {"suite": "s", "model": "m", "met": False, "cases": [case()] * 22 + [case(name="fine", passed=True)],
              "groups": [score("g", 0.9), score("h", low=0.2, high=0.8)], "all": score("all", 0.4, met=True)}  # fmt: skip
    text = printed(suite_screen(result))
    assert (
        text.index("failed: 22 of 23")
        < text.index("✗ g › [bold]x[/bold]")
        < text.index("is not 'x'")
        < text.index("threshold, %")
    )
    assert "50% of 2 answers pass" in text
    assert "… and 2 more; --json has them all" in text
    assert "fine" not in text
    lines = [re.sub(" {2,}", "  ", line.strip()) for line in text.splitlines() if line.startswith(("  g ", "  all "))]
    assert lines[0].endswith("90  missed")
    assert lines[1].endswith("40  met")
    assert "20 … 80" in text
    assert "m: a threshold is missed" in text


def rating(model, **changes):
    base = {"model": model, "rating": 1012.4, "low": 990.0, "high": 1040.0, "rank": 1, "duels": 9, "score": 0.5}
    return base | changes


def habit(**changes):
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 20}
    base = {"annotator": "judge", "judgments": 20, "ties": share, "first": {**share, "low": None}, "longer": None, "steady": share,
            "agreement": {"alpha": -0.1, "same": 0.4, "units": 3}}  # fmt: skip
    return base | changes


def test_ratings_show_intervals_open_ends_and_who_judged():
    names = [f"m{i}" for i in range(10)]
    result = {
        "ratings": [rating(n) for n in names[:8]] + [rating("m8", low=None), rating(EVIL, low=None, high=None)],
        "matrix": {"m0": {"m1": {"points": 3.0, "duels": 4}}}, "judgments": 40, "duels": 20, "prompts": 10,
        "length": {"points": 30.2, "low": -5.0, "high": 60.0}, "unbounded": ["took no point from the rest: m9"],
        "agreement": {"alpha": 0.43, "same": 0.8, "units": 12}, "annotators": [habit()],
    }  # fmt: skip
    text = printed(ratings_screen(result))
    assert "990 … 1040" in text
    assert "? … 1040" in text
    assert "[bold]x" in text
    assert "one standard deviation more of length wins +30 (−5 … +60) points" in text
    assert "the first 8 of 10; --json has them all" in text
    assert "50 (40…60)" in text
    assert "−0.10" in text
    assert "Krippendorff's alpha 0.43; 80% of the verdicts on 12 pairs judged by several are the same" in text


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.6, 0.8, "better"), (0.1, 0.4, "worse"), (0.4, 0.6, "no difference shown"), (None, None, "too few to tell")],
)
def test_a_judge_says_who_wins_and_how_far_to_trust_it(low, high, words):
    pair = {
        "models": ["a", EVIL],
        "wins": 3,
        "losses": 1,
        "ties": 2,
        "score": 0.7 if low != 0.1 else 0.3,
        "low": low,
        "high": high,
        "n": 6,
        "verdict": words,
    }
    result = {"judge": "j", "prompts": 6, "out": "j.jsonl", "pairs": [pair], "annotators": [habit()], "why": None,
              "human": {"alpha": None, "same": 0.75, "units": 8}}  # fmt: skip
    text = printed(judge_screen(result))
    assert words in text
    assert "people say the same of 75% of 8 pairs (Krippendorff's alpha not defined)" in text
    assert "judged by j" in text
    assert "goes by position" not in text
    fickle = habit(steady={"value": 0.2, "low": 0.1, "high": 0.4, "n": 20})
    assert "judge judges fewer than half of the pairs alike" in printed(judge_screen(result | {"annotators": [fickle]}))


def test_a_judge_that_goes_by_place_has_no_table():
    why = "the judge prefers the first answer in 9 of 10 pairs, whatever stands there"
    pair = {
        "models": ["a", "b"],
        "wins": 1,
        "losses": 0,
        "ties": 9,
        "score": 0.55,
        "low": 0.5,
        "high": 0.6,
        "n": 10,
        "verdict": None,
    }
    result = {
        "judge": "j",
        "prompts": 10,
        "out": "j.jsonl",
        "pairs": [pair],
        "annotators": [habit()],
        "human": None,
        "why": why,
    }
    text = printed(judge_screen(result))
    assert f"no verdict: {why}" in " ".join(text.split())
    assert "points, %" not in text
    assert "how far to trust it" in text
    several = result | {"why": None, "pairs": [pair | {"verdict": "better"}] * 3}
    assert "verdicts corrected for 3 pairs (Holm)" in printed(judge_screen(several))
