"""Sentences of errors stand in one file: tests ask for them by name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sentences import FILE, sentence, sentences

TESTS = Path(__file__).resolve().parents[1]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def calls(name: str) -> Iterator[tuple[Path, ast.Call]]:
    """All calls in the tests of what has this name."""
    for path in sorted(TESTS.rglob("*.py")):
        if f"{name}(" in path.read_text(encoding="utf-8"):
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Call) and name in (
                    getattr(node.func, "attr", ""),
                    getattr(node.func, "id", ""),
                ):
                    yield path, node


@pytest.mark.medium
def test_every_sentence_is_asked_for_and_every_name_known():
    asked = [
        (path.name, call.args[0].value)
        for path, call in calls("sentence")
        if path != Path(__file__) and isinstance(call.args[0], ast.Constant)
    ]
    assert [(path, name) for path, name in asked if name not in sentences()] == []
    texts = {
        node.value
        for path in TESTS.rglob("*.py")
        if "import sentence" in path.read_text(encoding="utf-8")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant)
    }
    assert sorted(sentences().keys() - texts) == [], f"sentences that no test asks for: take them out of {FILE.name}"


def test_each_stands_once_in_order():
    names = [line.split(": ", 1)[0] for line in FILE.read_text(encoding="utf-8").splitlines()]
    assert names == sorted(set(names))


def test_no_test_spells_out_the_sentence_of_an_error():
    """`match=` of an error of Luthier is a name in sentences.txt, or comes from a table of cases."""
    spelt = [
        f"{path.relative_to(TESTS)}:{call.lineno}"
        for path, call in calls("raises")
        if call.args and ast.unparse(call.args[0]).split(".")[-1] in OURS
        for keyword in call.keywords
        if keyword.arg == "match" and isinstance(keyword.value, ast.Constant | ast.JoinedStr)
    ]
    assert spelt == []


OURS = {
    "LuthierError",
    "InputError",
    "Unwritable",
    "RunError",
    "FunctionError",
    "DiskFull",
    "Stopped",
    "UnusableReply",
    "Ended",
}


def test_a_pattern_takes_the_whole_sentence_with_what_is_filled_in(monkeypatch):
    monkeypatch.setattr("sentences.sentences", lambda: {"far": "{turn}: it is {how} (far); go {{there}}"})
    assert re.search(sentence("far"), "a.jsonl:3: turn 2: it is very (far); go {there}")
    assert re.search(
        sentence("far", where="a.jsonl:3", turn="turn 2"), "/tmp/a.jsonl:3: turn 2: it is very (far); go {there}"
    )
    assert re.search(sentence("far", how="3… m"), "turn 2: it is 30 m (far); go {there}")
    for other in (
        "turn 2: it is (far); go",
        "turn 2: it is very (far); go {there} or here",
        "turn 2: it is very (near); go {there}",
    ):
        assert not re.search(sentence("far", turn="turn 2"), other)
    assert not re.search(sentence("far", where="a.jsonl:4"), "a.jsonl:3: turn 2: it is very (far); go {there}")
    assert not re.search(sentence("far", turn="turn 3"), "turn 2: it is very (far); go {there}")
    with pytest.raises(AssertionError, match=r"no sentence 'fra' .* nearest: .'far'"):
        sentence("fra")
    with pytest.raises(AssertionError, match="no hole"):
        sentence("far", trun="turn 2")
