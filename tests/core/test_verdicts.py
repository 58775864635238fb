"""One place words what a difference shows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import luthier
from luthier.core import verdicts
from luthier.core.verdicts import NOT_SEEN, ORDER, loss_size, not_seen, verdict, verdict_kind


@pytest.mark.parametrize(
    ("low", "high", "higher", "words"),
    [
        (0.1, 0.2, True, "better"), (-0.2, -0.1, True, "worse"), (-0.2, -0.1, False, "better"), (0.1, 0.2, False, "worse"),
        (0.1, 0.2, None, "higher"), (-0.2, -0.1, None, "lower"), (-0.1, 0.2, True, "no difference shown"),
        (0.0, 0.1, True, "no difference shown"), (-0.1, 0.0, False, "no difference shown"), (None, None, True, "too few to tell"),
    ],
)  # fmt: skip
def test_an_interval_in_words(low, high, higher, words):
    difference = 0.1 if low is None else (low + high) / 2
    assert verdict(difference, low, high, higher) == words


def test_a_test_that_shows_nothing_overrules_the_interval():
    assert verdict(0.15, 0.1, 0.2, True, corrected=0.06) == "no difference shown"
    assert verdict(0.15, 0.1, 0.2, True, corrected=0.05) == "better"


def test_no_change_at_all_shows_no_difference_even_without_an_interval():
    assert verdict(0.0, None, None, True) == "no difference shown"


def test_what_never_happened_is_not_seen_in_so_many():
    assert not_seen(0.0, 0.0, 1200, "%") == "not seen in 1,200"
    assert verdict_kind("not seen in 1,200") == NOT_SEEN
    assert all(verdict_kind(words) == words for words in ORDER)
    assert not_seen(0.0, 0.1, 20, "%") is None, "it was seen"
    assert not_seen(0.0, 0.0, 20, "") is None, "a loss of 0 is a number like others"


@pytest.mark.parametrize(
    ("drift", "low", "high", "size"),
    [
        (0.05, 0.01, 0.1, "small"), (0.2, 0.1, 0.3, "moderate"), (0.7, 0.1, 1.3, "large"), (0.7, -0.1, 1.5, "none shown"),
        (0.7, 0.0, 1.5, "none shown"), (-0.2, -0.3, -0.1, "none shown"), (0.2, None, None, "moderate"),
    ],
)  # fmt: skip
def test_how_large_a_loss_is(drift, low, high, size):
    assert loss_size(drift, low, high, moderate=0.1, large=0.5) == size


@pytest.mark.medium
def test_no_interval_is_turned_into_words_elsewhere():
    """The limits of an interval are compared with nothing outside core/verdicts.py and what computes them (evals/stats/)."""
    package = Path(luthier.__file__).parent
    computes = {"diagnose/slices.py:newcombe_chance"}  # the level at which an interval leaves zero out: its p-value
    compared = set()
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        if path == Path(verdicts.__file__) or name.startswith(("evals/stats/", "methods/")):
            continue
        text = path.read_text()
        for function in ast.walk(ast.parse(text if re.search(r"\b(low|high)\b", text) else "")):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
                ends = {getattr(side, "attr", getattr(side, "id", "")) for side in sides}
                ends |= {
                    side.slice.value
                    for side in sides
                    if isinstance(side, ast.Subscript) and isinstance(side.slice, ast.Constant)
                }
                numbers = any(isinstance(side, ast.Constant) and isinstance(side.value, int | float) for side in sides)
                if ends & {"low", "high"} and numbers:
                    compared.add(f"{name}:{function.name}")
    assert compared == computes
