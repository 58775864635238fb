"""Every check on answers that pass and that do not, with its reason; pass rates, thresholds and JUnit."""

from __future__ import annotations

import json
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from luthier.core.errors import InputError
from luthier.evals.suites import checks, results
from luthier.evals.suites.cases import expand
from luthier.evals.suites.checks import Verdict, words
from luthier.evals.suites.document import read
from luthier.evals.suites.junit import junit
from luthier.evals.suites.spec import Check
from sentences import sentence

SCHEMA = {"type": "object", "required": ["name"], "properties": {"age": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("check", "answer", "why"),
    [
        ({"equals": "Paris"}, " Paris\n", ""),
        ({"equals": "Paris"}, "paris", "is not 'Paris'"),
        ({"equals": {"text": "Paris", "ignore_case": True}}, "PARIS", ""),
        ({"contains": "cat"}, "a cat sat", ""),
        ({"contains": ["cat", "dog"]}, "a cat sat", "does not contain 'dog'"),
        ({"contains": {"any": ["cat", "dog"]}}, "a dog", ""),
        ({"contains": {"any": ["cat", "dog"]}}, "a cow", "contains none of 'cat', 'dog'"),
        ({"contains": {"all": "Cat", "ignore_case": True}}, "a cat", ""),
        ({"regex": r"^\d{3}$"}, "123", ""),
        ({"regex": r"^\d{3}$"}, "1234", r"does not match '^\d{3}$'"),
        ({"regex": {"pattern": "cat", "ignore_case": True}}, "CAT", ""),
        ({"json": True}, ' {"a": 1}\n', ""),
        ({"json": True}, '```json\n{"a": 1}\n```', ""),
        ({"json": True}, "sure: {}", "is not JSON: Expecting value at line 1, column 1"),
        ({"json": True}, "NaN", "is not JSON: NaN is not JSON"),
        ({"json": True}, "[" * 100_000, "is not JSON: "),
        ({"json": {"inside": True}}, 'Sure [or so]: {"a": [1]} it is', ""),
        ({"json": {"inside": True}}, "nothing here", "is not JSON: no object or list in it"),
        ({"json": {"schema": SCHEMA}}, '{"name": "x"}', ""),
        ({"json": {"schema": SCHEMA}}, "{}", "does not fit the schema: 'name' is a required property"),
        ({"json": {"schema": SCHEMA}}, '{"name": "x", "age": "1"}', "does not fit the schema at age: '1' is not of type"),
        ({"length": {"max": 3}}, " abc ", ""),
        ({"length": {"max": 3}}, "abcd", "has 4 characters, more than 3"),
        ({"length": {"min": 2, "unit": "words"}}, "one", "has 1 words, fewer than 2"),
        ({"length": {"max": 1, "unit": "lines"}}, "a\nb", "has 2 lines, more than 1"),
        ({"number": 4}, "2 + 2 = 4", ""),
        ({"number": 1234.5}, "it is 1,234.50", ""),
        ({"number": 4}, "four", "has no number"),
        ({"number": {"value": 10, "within": 0.5}}, "10.5", ""),
        ({"number": {"value": 10, "within": 0.5}}, "10.6", "says 10.6, not 10 ± 0.5"),
        ({"number": {"value": -200, "relative": 0.01}}, "about -198", ""),
        ({"one_of": ["yes", "no"]}, "no", ""),
        ({"one_of": ["yes", "no"]}, "maybe", "is none of 'yes', 'no'"),
        ({"similar": {"to": "the cat sat", "at_least": 0.9}}, "the cat sat", ""),
        ({"similar": {"to": "the cat sat"}}, "the dog ran by", "ROUGE-L 0.29, less than 0.5"),
        ({"similar": {"to": "abc", "by": "chrf", "at_least": 90}}, "abc", ""),
        ({"similar": {"to": "the cat sat", "by": "chrf"}}, "the dog ran by", "chrF 13.31, less than 50"),
    ],
)  # fmt: skip
def test_a_check_by_hand(check, answer, why):
    made = Check.model_validate(check)
    found = checks.test_of(made, "suite.yaml:1", Path())(answer)
    assert found.passed == (why == "")
    assert found.why.startswith(why)


def test_a_pattern_that_takes_for_ever_fails_in_time(monkeypatch):
    monkeypatch.setattr(checks, "SECONDS", 0.05)
    check = checks.test_of(Check.model_validate({"regex": r"^(a|a|aa)+$"}), "", Path())
    assert check("a" * 60 + "!").why == "the pattern takes longer than 0.05 s on it"


def test_what_could_not_be_decided_fails_negated_too(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "SECONDS", 0.05)
    (tmp_path / "suite.yaml").write_text(
        r"groups: [{name: g, cases: [{prompt: a, checks: [{regex: '^(a|a|aa)+$'}, {not: {regex: '^(a|a|aa)+$'}}]}]}]"
    )
    cases = expand(read(tmp_path / "suite.yaml"))
    (outcome,) = results.check_all(cases, results.prepare(cases, tmp_path), [["a" * 60 + "!"]], lambda *_: [])
    assert [verdict.why for verdict in outcome.verdicts[0]] == ["the pattern takes longer than 0.05 s on it"] * 2
    assert not any(verdict.passed for verdict in outcome.verdicts[0])


def test_a_schema_in_a_file_and_one_that_refers_elsewhere(tmp_path):
    (tmp_path / "schema.json").write_text('{"type": "array"}')
    check = checks.test_of(Check.model_validate({"json": {"schema": "schema.json"}}), "", tmp_path)
    assert check("[]").passed
    assert not check("{}").passed
    remote = Check.model_validate({"json": {"schema": {"$ref": "http://example.com/x.json"}}})
    with pytest.raises(Exception, match=sentence("schema refers outside", url="http://example.com/x.json")):
        checks.test_of(remote, "s", tmp_path)("[]")


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({"contains": "cat"}, "contains 'cat'"),
        ({"not": {"contains": {"any": ["a", "b"]}}}, "not contains any 'a', 'b'"),
        ({"json": True}, "json"),
        ({"number": {"value": 3, "within": 0.5}}, "number 3 within 0.5"),
        ({"one_of": list("abcdef")}, "one of 'a', 'b', 'c', 'd', …"),
    ],
)
def test_a_check_in_words(check, said):
    assert words(Check.model_validate(check)) == said


SUITE = """\
groups:
  - name: first
    threshold: 0.5
    cases:
      - {name: one, prompt: a, checks: [{contains: x}, {not: {contains: y}}]}
      - {name: two, prompt: b, checks: [{python: "f.py:g"}, {not: {python: "f.py:g"}}]}
  - name: second
    sampling: {n: 2, temperature: 1}
    cases:
      - {name: half, prompt: c, pass_rate: 0.5, checks: [{contains: x}]}
      - {name: whole, prompt: d, checks: [{contains: x}]}
"""
ANSWERS = [["x"], ["z"], ["x", "no"], ["x", "no"]]


@pytest.fixture
def ran(tmp_path):
    """Run SUITE, changed, on ANSWERS; the suite, its outcomes and what was asked outside."""

    def run(text=SUITE, answers=ANSWERS):
        (tmp_path / "suite.yaml").write_text(text)
        document = read(tmp_path / "suite.yaml")
        cases = expand(document)
        asked = []

        def outside(check, given):
            asked.append((check.kind, [item.answer for item in given]))
            return [Verdict(True)] * len(given)

        return document.suite, results.check_all(cases, results.prepare(cases, tmp_path), answers, outside), asked

    return run


def test_rates_and_thresholds(ran):
    suite, outcomes, asked = ran()
    assert [outcome.passed for outcome in outcomes] == [True, False, True, False]
    assert [outcome.rate for outcome in outcomes] == [1.0, 0.0, 0.5, 0.5]
    assert asked == [("python", ["z", "z"])]  # both at once, the negation with its core
    assert outcomes[1].failures == [("z", ["python 'f.py:g', which it must not"])]
    groups, all_ = results.score(outcomes, suite)
    assert [(g.name, g.cases, g.passed, g.rate, g.threshold, g.met) for g in groups] == [
        ("first", 2, 1, 0.5, 0.5, True), ("second", 2, 1, 0.5, None, True)
    ]  # fmt: skip
    assert (all_.rate, all_.threshold, all_.met) == (0.5, None, True)
    told = outcomes[3].as_dict()
    assert told["checks"] == [{"check": "contains 'x'", "rate": 0.5, "why": "does not contain 'x'"}]


def test_without_any_threshold_every_case_must_pass(ran):
    suite, outcomes, _ = ran(SUITE.replace("    threshold: 0.5\n", ""))
    _, all_ = results.score(outcomes, suite)
    assert (all_.threshold, all_.met) == (1.0, False)
    suite, outcomes, _ = ran("threshold: 0.6\n" + SUITE)
    assert not results.score(outcomes, suite)[1].met


def test_junit_says_what_failed_and_why(ran):
    suite, outcomes, _ = ran(
        SUITE.replace("threshold: 0.5", "threshold: 0.9"), [["x"], ["\x1b[31mz\x00 <&>"], ["x"] * 2, ["x", "no"]]
    )
    groups, all_ = results.score(outcomes, suite)
    text = junit("a <suite>", groups, all_, outcomes)
    root = ElementTree.fromstring(text)
    assert (root.get("tests"), root.get("failures"), root.get("name")) == ("5", "3", "a <suite>")
    first, second = root
    assert (first.get("tests"), first.get("failures")) == ("3", "2")
    assert [case.get("name") for case in first] == ["one", "two", "threshold"]
    assert "\ufffd[31mz\ufffd <&>" in first[1][0].text
    assert first[2][0].get("message") == "50.0% of the cases pass, fewer than 90.0%"
    assert second[1][0].get("message") == "does not contain 'x' (pass rate 50%, 100% wanted)"
    assert "answer: no\n  does not contain 'x'" in second[1][0].text


def test_an_overall_threshold_is_a_suite_of_its_own(ran):
    suite, outcomes, _ = ran("threshold: 0.9\n" + SUITE)
    groups, all_ = results.score(outcomes, suite)
    root = ElementTree.fromstring(junit("s", groups, all_, outcomes))
    assert [part.get("name") for part in root] == ["first", "second", "all cases"]
    assert root[2].get("failures") == "1"


def test_eight_of_eight_is_no_certainty(ran):
    """Wilson's limit of 8 in 8 is 8 / (8 + 3.8415)."""
    cases = "".join(f"      - {{prompt: a{i}, checks: [{{contains: x}}]}}\n" for i in range(8))
    suite, outcomes, _ = ran("groups:\n  - name: one\n    cases:\n" + cases, [["x"]] * 8)
    _, all_ = results.score(outcomes, suite)
    assert (all_.rate, all_.low, all_.high) == (1.0, pytest.approx(0.6756, abs=1e-4), 1.0)
    assert all_.met  # a threshold is about these cases


@pytest.mark.medium
def test_a_pattern_or_schema_that_takes_for_ever_is_left_alone_after_three_answers(monkeypatch):
    monkeypatch.setattr(checks, "SECONDS", 0.1)
    for check in ({"regex": "((a|a)+)+$"}, {"json": {"schema": {"items": {"pattern": "((a|a)+)+$"}}}}):
        test = checks.test_of(Check.model_validate(check), "", Path())
        answer = "a" * 40 + "!" if "regex" in check else json.dumps(["a" * 40 + "!"])
        began = time.monotonic()
        found = [test(answer) for _ in range(50)]
        assert time.monotonic() - began < 10  # without a limit: years
        assert not any(verdict.passed or verdict.decided for verdict in found)
        assert "takes longer than 0.1 s" in found[0].why


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("(" * 5000 + ")" * 5000, "pattern nests too deeply"),
        ("a" * 20_000, "pattern too long"),
        ("a{99999999999}", "not a regular expression"),
        ("(?P<n", "not a regular expression"),
    ],
)
def test_patterns_that_cannot_be_read(pattern, fault):
    with pytest.raises(InputError, match="^" + sentence(fault, where="suite.yaml:3")):
        checks.test_of(Check.model_validate({"regex": pattern}), "suite.yaml:3", Path())
