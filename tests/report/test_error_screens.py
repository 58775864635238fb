"""Screens of errors: what stands on them, how long they are, and that no text of a model is markup."""

from __future__ import annotations

import re

import pytest
from terminal import printed

from luthier.report.screens.errors import (
    applied_screen,
    category_screen,
    comparison_screen,
    errors_screen,
    excerpt,
    fixes_screen,
)

EVIL = "[bold]x[/bold] \x1b[31mred"


def row(name, before, after, verdict="better", **changes):
    base = {
        "name": name, "title": name.title(), "unit": "%", "higher_is_better": name == "sound", "before": before, "after": after,
        "difference": after - before, "low": after - before - 0.1, "high": after - before + 0.1, "n": 200, "verdict": verdict,
    }  # fmt: skip
    return base | changes


def example(**changes):
    base = {
        "row": 4, "where": "/data/test.jsonl:5", "prompt": f"What? {EVIL}", "reference": "that", "before": "old " * 90,
        "after": f"a long answer {EVIL} " * 9, "why": f"it goes on {EVIL}", "span": [14, 40],
        "nearest": [{"where": "/data/train.jsonl:7", "prompt": "near " * 40, "answer": "row", "score": 2.0}],
    }  # fmt: skip
    return base | changes


def category(name):
    return {
        "name": name, "title": name.title(), "meaning": "what it means", "fix": "shorten", "answers": 40,
        "examples": [example(), example(span=None), example()],
        "training": {"rows": 12, "first": [{"where": f"/data/train.jsonl:{i}", "why": "w", "answer": "a"} for i in range(5)]},
    }  # fmt: skip


def result(names, **changes):
    base = {
        "run": "runs/new", "answers": 200, "records": "r", "bad": "anything found", "first": [],
        "rows": [row("sound", 0.2, 0.5), row("wrong", 0.5, 0.1), *(row(name, 0.4, 0.2) for name in names)],
        "categories": [category(name) for name in names],
        "confusions": [],
        "fixable": True,
        "slices": [
            {"kind": "label", "value": f"card {i}", "n": 20, "rate": 0.9, "rest": 0.2, "difference": 0.7, "low": 0.4, "high": 0.8,
             "clear": True}
            for i in range(9)
        ],
        "training": {
            "rows": 9000, "looked_at": 5000,
            "suspects": {"rows": 31, "first": [{"where": "/data/train.jsonl:99", "why": "w", "prompt": "p", "answer": "a"}] * 5},
            "conflicts": {"groups": 2, "rows": 5, "first": [{"prompt": "p", "where": ["/d/a.csv:1", "/d/a.csv:9"], "answers": {}}]},
        },
        "notes": ["something to know"],
    }  # fmt: skip
    return base | changes


def test_a_full_screen_fits_and_says_what_to_do_next():
    text = printed(errors_screen(result([f"kind {i}" for i in range(20)])))
    assert len(text.splitlines()) <= 45
    for words in (
        "held-out answers of runs/new", "Kind 7", "200 answers", "12 rarer ones in --json", "it goes on",
        "card 3", "+40 … +80", "12 of 5,000 rows have it too: train.jsonl:0, train.jsonl:1, train.jsonl:2, …",
        "nearest to 4", "the answers of 31 rows: train.jsonl:99", "5 rows to 2 prompts: a.csv:1 and a.csv:9", "something to know",
        "luthier errors runs/new --fix fixes.jsonl",
    ):  # fmt: skip
        assert words in re.sub(r" +", " ", text), words
    assert "Kind 8" not in text and "card 4" not in text


def test_a_clean_run_has_a_short_screen():
    clean = result([], slices=[], notes=[])
    clean["training"] |= {"suspects": {"rows": 0, "first": []}, "conflicts": {"groups": 0, "rows": 0, "first": []}}
    text = printed(errors_screen(clean))
    assert "no slice is shown to be worse than the rest" in text
    assert len(text.splitlines()) < 18


def test_no_difference_is_not_called_one():
    text = printed(
        errors_screen(result(["loops"], rows=[row("loops", 0.2, 0.25, "no difference shown", low=-0.1, high=0.2)]))
    )
    line = next(line for line in text.splitlines() if "Loops" in line)
    assert "no difference shown" in line and "20.0" in line and "25.0" in line and "−10.0 … +20.0" in line


@pytest.mark.parametrize(
    ("answer", "span", "expected"),
    [
        ("short", None, "short"),
        ("one two three", (4, 7), "one »two« three"),
        ("", None, "(empty)"),
        ("two\nlines\tof text", (4, 9), "two »lines« of text"),
        ("abc", (0, 3), "»abc«"),
    ],
)
def test_an_excerpt_marks_its_span(answer, span, expected):
    assert excerpt(answer, span).plain == expected


@pytest.mark.parametrize(("start", "end"), [(0, 5), (200, 205), (395, 400), (0, 400), (150, 260)])
def test_an_excerpt_of_a_long_answer_is_short_and_holds_the_span(start, end):
    text = " ".join(f"{i:03d}" for i in range(100)) + "."
    shown = excerpt(text, (start, end), 56).plain
    assert len(shown) <= 56 + 6
    inner = shown[shown.index("»") + 1 : shown.index("«")].replace("…", " ").split()
    assert inner[0] in text[start : end + 4] and inner[-1] in text[max(0, start - 4) : end]


def test_all_answers_of_a_category():
    about = {"name": "loops", "title": "Loops", "meaning": "says it again", "rule": "r", "fix": "drop"}
    shown = {
        "run": "r",
        "category": about,
        "rows": [row("loops", 0.2, 0.1)],
        "shown": [example()] * 22,
        "gone": [example()],
    }
    text = printed(category_screen(shown))
    assert "tuned answers that have it: 22" in text and "and 2 more; --json has them all" in text
    assert "answers that no longer have it: 1" in text and "/data/test.jsonl:5" in text
    assert "no answer has it" in printed(category_screen(shown | {"rows": [], "shown": [], "gone": []}))


def test_an_earlier_run_that_was_asked_otherwise_says_so():
    compared = {
        "run": "runs/b",
        "against": "runs/a",
        "paired": True,
        "answers": {"before": 64, "after": 80},
        "rows": [row("loops", 0.2, 0.1)],
    }
    text = printed(comparison_screen(compared))
    assert "runs/b against runs/a" in text and "earlier" in text and "this run" in text and "not the same" not in text
    text = printed(comparison_screen(compared | {"paired": False}))
    assert "the held-out prompts are not the same (64 then, 80 now)" in text and "paired" not in text


def test_fix_say_how_many_are_ready_and_what_to_do():
    fix = {
        "row": 1, "file": "/d/rows.jsonl", "line": 2, "sha": "00", "action": "rewrite", "category": "loops", "why": EVIL,
        "before": EVIL, "after": None, "accept": None,
    }  # fmt: skip
    kinds = [{"category": "loops", "title": "Loops", "action": "rewrite", "rows": 7, "ready": 3, "held_out": 12}]
    made = {
        "run": "runs/a",
        "out": "m.jsonl",
        "rows": 900,
        "fixes": 7,
        "kinds": kinds,
        "first": [fix, fix | {"action": "drop"}],
    }
    text = printed(fixes_screen(made))
    assert "fixes for 900 training rows" in text and "(for you to write)" in text and "(dropped)" in text
    assert "luthier errors runs/a --apply m.jsonl --out NEW.jsonl" in text
    assert "nothing is written" in printed(fixes_screen(made | {"fixes": 0, "kinds": [], "first": [], "out": None}))


def test_what_was_applied():
    done = {
        "run": "runs/a", "file": "rows2.jsonl", "rows": 40, "from_rows": 41, "accepted": {"drop": 1, "correct": 2}, "rejected": 1,
        "undecided": 5, "lineage": "rows2.lineage.json",
    }  # fmt: skip
    text = printed(applied_screen(done))
    assert "40 of 41 rows in rows2.jsonl" in text and "1 drop, 2 correct" in text and "1 rejected, 5 undecided" in text
    assert "luthier train runs/a/run.yaml rows2.jsonl --out NEWRUN" in text


def test_what_cannot_be_fixed_is_not_offered_for_it_and_a_shared_instruction_is_left_out():
    ask = "Say in one line what this function does: "
    one = category("loops")
    one["examples"] = [
        example(
            prompt=f"{ask}open it", nearest=[{"where": "a.py:3", "prompt": f"{ask}close", "answer": "x", "score": 1.0}]
        )
    ]
    text = printed(errors_screen(result(["loops"], categories=[one], fixable=False)))
    assert "--fix" not in text and "next: luthier errors runs/new --category loops" in text
    assert "a.py:3  …open it ~ …close → x" in text
