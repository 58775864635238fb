"""Detectors on labelled answers: their rules by hand, and precision and recall as docs/errors.md has them.

    python tests/evals/test_detectors.py      prints the table of the page

Rules and thresholds were set on the rows of detectors/tuning/; the table is of those of detectors/held_out/, which
nobody may look at to change a rule: a row that did lead to a change moves to detectors/tuning/.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path

import pytest

from luthier.evals.detectors.answer import Finding, GivenAnswer
from luthier.evals.detectors.repeats import repeats
from luthier.evals.detectors.table import CATEGORIES, detect
from luthier.evals.detectors.task import Task

ROWS = Path(__file__).parent / "detectors"
PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
# The least precision; lower for off_topic, which takes a right answer in other words than the reference for a wrong one.
LEAST, LEAST_OF = 0.7, {"off_topic": 0.6}


def _read(name: str) -> list[dict]:
    return [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def _held_out(category: str) -> list[dict]:
    return _read(f"held_out/{category}")


def _all(category: str) -> list[dict]:
    return _read(f"tuning/{category}") + _held_out(category)


@cache
def _tasks() -> dict[str, Task]:
    rows: dict[str, list[dict]] = {"none": []}
    for row in _read("tasks"):
        rows.setdefault(row["task"], []).append(row)
    return {
        name: Task.learn([row["prompt"] for row in group], [row["answer"] for row in group])
        for name, group in rows.items()
    }


def _answered(row: dict) -> GivenAnswer:
    logps = tuple(math.log(p) for p in row.get("p", ()))
    return GivenAnswer(row["prompt"], row["answer"], row.get("reference", ""), 0, row.get("ended", ""), logps)


def _found(row: dict) -> dict[str, Finding]:
    return {finding.category: finding for finding in detect(_answered(row), _tasks()[row["task"]])}


def measured(category: str) -> tuple[float, float, int]:
    """Precision, recall and number of the held-out rows of a category."""
    rows = _held_out(category)
    said = [category in _found(row) for row in rows]
    hits = sum(row["bad"] and one for row, one in zip(rows, said, strict=True))
    return hits / sum(said), hits / sum(row["bad"] for row in rows), len(rows)


def table() -> str:
    lines = ["| category | what it means | rule | precision | recall | n |", "|---|---|---|---|---|---|"]
    for name, category in CATEGORIES.items():
        precision, recall, n = measured(name)
        rule = category.rule.replace("|", "\\|")
        lines.append(f"| `{name}` | {category.meaning} | {rule} | {precision:.2f} | {recall:.2f} | {n} |")
    return "\n".join(lines)


@pytest.mark.medium
def test_the_page_has_the_categories_their_rules_and_their_figures():
    page = PAGE.read_text(encoding="utf-8").partition("## Detectors")[2]
    assert table() in page, "python tests/evals/test_detectors.py prints the table as it should be"


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.medium
def test_precision_and_the_rows(category):
    assert measured(category)[0] >= LEAST_OF.get(category, LEAST)
    rows = _held_out(category)
    assert len(rows) >= 30
    assert 0.4 <= sum(not row["bad"] for row in rows) / len(rows) <= 0.6
    rows = _all(category)
    assert len({json.dumps(row, sort_keys=True) for row in rows}) == len(rows)


@pytest.mark.parametrize("category", CATEGORIES)
def test_each_category_is_found_once_and_its_place_is_in_the_answer(category):
    for row in _all(category):
        answered = _answered(row)
        found = detect(answered, _tasks()[row["task"]])
        assert len({finding.category for finding in found}) == len(found)
        for finding in found:
            assert finding.category in CATEGORIES and finding.why
            if finding.span:
                start, end = finding.span
                assert 0 <= start < end <= len(answered.answer)


def test_categories_say_what_to_do_and_in_one_plain_sentence():
    for category in CATEGORIES.values():
        assert category.fix in {"drop", "shorten", "correct", "rewrite"}
        assert category.meaning.endswith(".") and category.rule.endswith(".")
    # a number in every rule that has a threshold, except for tokens, which either stand there or not
    assert [name for name, category in CATEGORIES.items() if not re.search(r"\d", category.rule)] == ["template_leak"]


def test_places_are_those_of_the_fault():
    def marked(category: str, answered: GivenAnswer, task: str = "none") -> str:
        (finding,) = (f for f in detect(answered, _tasks()[task]) if f.category == category)
        assert finding.span is not None
        return answered.answer[slice(*finding.span)]

    assert marked("misspelling", GivenAnswer("Is it far?", "It is a long jorney to the sea.")) == "jorney"
    assert marked("template_leak", GivenAnswer("Say yes.", "Yes.<|im_end|>")) == "<|im_end|>"
    looped = GivenAnswer("Tell me.", "So we sat by the sea, by the sea, by the sea, and slept.")
    assert marked("repetitive", looped) == "by the sea, by the sea, by the sea"
    prompt = "According to the text: " + "The mill was built in 1820 by the river. " * 6 + "When was it built?"
    assert marked("unsupported", GivenAnswer(prompt, "It was built in 1920.")) == "1920"
    assert marked("unfinished", GivenAnswer("Why?", "We went home because the", ended="stop")) == "the"


@pytest.mark.parametrize(
    ("category", "task", "wrong", "right"),
    [
        ("unfinished", "none", "You can do it in these three steps:", "SELECT name FROM users WHERE age > 18;"),
        ("unfinished", "none", "1. Rake\n2. Spade\n3.", "6 times 7 is\n42."),
        ("template_leak", "none", "assistant\n\nIt is mercury.", "assistant\naide\nhelper"),
        ("refusal", "none", "As an AI I have no favourite season.", "I have no favourite season."),
        ("refusal", "none", "I'm just an AI and not a doctor.", "I'm just a nurse and not a doctor."),
        ("wrong_format", "lists", "Oxygen", "1. Oxygen"),
    ],
)
def test_a_rule_and_what_it_lets_pass(category: str, task: str, wrong: str, right: str):
    def found(answer: str) -> set[str]:
        return {finding.category for finding in detect(GivenAnswer("What is it?", answer), _tasks()[task])}

    assert category in found(wrong) and category not in found(right)


def test_how_often_is_a_loop():
    assert repeats("no no no no no") is None and repeats("no no no no no no") is not None
    assert repeats("go on go on go on") is None and repeats("go on go on go on go on") is not None
    assert (
        repeats("one fine day one fine day") is None and repeats("one fine day one fine day one fine day") is not None
    )
    # 14 words said, then the same 14: 28 words, 14 of them in runs of 7 that stood there before
    half = "the old miller walked along the river and counted every boat that he saw"
    assert "50%" in (repeats(f"{half}. {half}.") or Finding("", "")).why


def test_lengths_at_their_bounds():
    reference = "one two three four five six seven eight"
    task = Task()

    def has(category: str, words: int) -> bool:
        return any(
            f.category == category for f in detect(GivenAnswer("p", "word, other " * (words // 2), reference), task)
        )

    assert not has("too_long", 26) and has("too_long", 28)  # 2 * 8 + 10 = 26
    assert not has("too_short", 2)  # a quarter of 8
    assert [f.category for f in detect(GivenAnswer("p", " \n", ""), task)] == ["too_short"]


def test_without_rows_or_reference_only_what_needs_neither_is_said():
    answered = GivenAnswer("Name a city.", "Paris is a city in France and it is visited by many people every year.")
    assert detect(answered, Task()) == []
    silent = {"wrong_format", "copied_training", "off_topic", "copied_prompt", "wrong_language", "too_long"}
    for category in silent:
        for row in _all(category):
            alone = detect(GivenAnswer(row["prompt"], row["answer"]), Task())
            assert category not in {finding.category for finding in alone}


def test_a_language_without_a_dictionary_has_no_misspellings():
    finnish = GivenAnswer("Mikä on pääkaupunki?", "Suomen pääkaupunki on Helsinki, ja se sijatsee meren rannala.")
    assert detect(finnish, Task()) == []


def test_the_same_answer_to_the_same_prompt_is_not_copied():
    prompt, answer = "Tell a story.", "The tailor opened the parcel and found a coat that fitted nobody but himself."
    task = Task.learn([prompt, "Tell another."], [answer, "Nothing here."])
    reference = "Once there was a fox."
    assert "copied_training" not in {f.category for f in detect(GivenAnswer(prompt, answer, reference), task)}
    assert "copied_training" in {f.category for f in detect(GivenAnswer("Now a fable.", answer, reference), task)}
    assert "copied_training" not in {f.category for f in detect(GivenAnswer("Now a fable.", answer, answer), task)}


if __name__ == "__main__":
    print(table())
