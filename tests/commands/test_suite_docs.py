"""docs/compare.md against the product: every check and option of suites, from the command line to the verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch
import yaml

from luthier.cli import run
from luthier.evals.judging.judges import JudgeSpec
from luthier.evals.judging.prompt import Choice
from luthier.evals.suites import evaluation as suite_module
from luthier.evals.suites import spec
from luthier.evals.suites.spec import names
from luthier.runs import answers

PAGE = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
LOCAL = ("--device", "cpu", "--dtype", "float32", "--threads", "1")
SCHEMA = {"type": "object", "required": ["name"]}
CODE = """\
def right(answers, references, prompts):
    return [r == "9,500" and bool(p) for r, p in zip(references, prompts)]

def half(answers):
    return [0.5] * len(answers)
"""
# (the check, an answer that passes, one that does not): every check and every option of docs/compare.md.
CHECKS = [
    ({"equals": "Paris"}, " Paris\n", "paris"),
    ({"equals": {"text": "Paris", "ignore_case": True}}, "PARIS", "Rome"),
    ({"contains": "Paris"}, "in Paris.", "in paris."),
    ({"contains": ["a", "b"]}, "b a", "a"),
    ({"contains": {"all": ["A"], "any": ["x", "y"], "ignore_case": True}}, "a Y", "a z"),
    ({"regex": "^[0-9]+$"}, "42", "42."),
    ({"regex": {"pattern": "^PARIS", "ignore_case": True}}, "paris!", "no"),
    ({"json": True}, '```json\n{"a": 1}\n```', "{'a': 1}"),
    ({"json": {"inside": True}}, "So: [1] it is", "So: none"),
    ({"json": {"schema": SCHEMA}}, '{"name": "x"}', "{}"),
    ({"json": {"schema": "schema.json"}}, '{"name": "x"}', "[]"),
    ({"length": {"min": 3}}, "abc", "ab"),
    ({"length": {"max": 3}}, "abc", "abcd"),
    ({"length": {"min": 2, "max": 3, "unit": "words"}}, "a b", "a"),
    ({"length": {"min": 2, "unit": "lines"}}, "a\nb", "a b"),
    ({"length": {"max": 2, "unit": "characters"}}, "a", "a b"),
    ({"not": {"length": {"min": 1}}}, "", "a"),
    ({"number": 9500}, "it is 9.500", "9.5"),
    ({"number": "9,5"}, "9.5", "9500"),
    ({"number": {"value": 100, "within": 5}}, "104", "106"),
    ({"number": {"value": 100, "relative": 0.1}}, "-> 109", "111"),
    ({"one_of": ["yes", "no"]}, "no", "maybe"),
    ({"one_of": {"texts": ["Yes"], "ignore_case": True}}, "YES", "yes!"),
    ({"similar": {"to": "the cat sat"}}, "the cat sat down", "a dog"),
    ({"similar": {"to": "the cat sat", "at_least": 0.9, "by": "token_f1"}}, "cat sat", "cat"),
    ({"similar": {"to": "the cat sat", "by": "chrf"}}, "the cat sat", "a dog"),
    ({"similar": {"to": "the cat", "by": "embedding", "encoder": "toy", "at_least": 0.8}}, "near", "far"),
    ({"python": "f.py:right"}, "any", None),
    ({"python": {"function": "f.py:half", "at_least": 0.5}}, "any", None),
    ({"python": {"function": "f.py:half"}}, None, "any"),
    ({"judged": "Is it short?"}, "x", "long"),
    ({"not": {"judged": "Is it short?"}}, "long", "x"),
    ({"not": {"contains": "x"}}, "y", "x"),
]  # fmt: skip


class Short:
    name = "short"

    def digest(self):
        return self.name

    def answer_questions(self, asked, stop):
        for index, messages in enumerate(asked):
            yield index, Choice("No" if "long" in str(messages) else "Yes")


class Toy:
    """The cosine of a text with `the cat` is 1 when it is that or near, else 0."""

    def __init__(self, folder):
        pass

    def embed(self, texts):
        return torch.tensor([[1.0, 0.0] if text in ("the cat", "near") else [0.0, 1.0] for text in texts])


@pytest.fixture
def tested(tmp_path, tiny_folder, monkeypatch, capsys):
    """Run a suite from the command line on a model that gives the answers `said`, prompt -> answer; (status, --json)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(JudgeSpec, "open", lambda self, where=None: Short)
    monkeypatch.setattr(suite_module, "Encoder", Toy)
    monkeypatch.setattr(suite_module, "resolve_encoder", lambda name: SimpleNamespace(folder=name))
    (tmp_path / "f.py").write_text(CODE)
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))

    def test(suite, said, *options):
        asked = []

        def write(opened, prompts, sampling, stop, title):
            asked.append((prompts, dict(sampling)))
            return [[said[turns[-1].content]] * sampling["n"] for turns in prompts]

        monkeypatch.setattr(answers, "write", write)
        (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite) if isinstance(suite, dict) else suite)
        arguments = ["test", "suite.yaml", "--model", str(tiny_folder), *LOCAL, "--json", *options]
        try:
            status = run(arguments)
        except SystemExit as leaving:
            status = leaving.code
        out, err = capsys.readouterr()
        return status, json.loads(out) if out else err, asked

    return test


@pytest.mark.medium
def test_every_check_and_option_of_the_page_passes_and_fails(tested):
    said, cases = {}, []
    for number, (check, good, bad) in enumerate(CHECKS):
        for wanted, answer in (("pass", good), ("fail", bad)):
            if answer is not None:
                prompt = f"{wanted} {number}"
                said[prompt] = answer
                cases.append({"prompt": prompt, "reference": "9,500", "checks": [check]})
    status, result, _ = tested({"groups": [{"name": "g", "cases": cases}]}, said)
    assert status == 1
    wrong = [case["prompt"] for case in result["cases"] if case["passed"] != case["prompt"].startswith("pass")]
    assert not wrong
    assert all(case["checks"][0]["why"] for case in result["cases"] if not case["passed"])


def keys_of(check):
    name, value = next(iter(check.items()))
    inner = (
        keys_of(value) if name == "not" else {f"{name}.{key}" for key in value} if isinstance(value, dict) else set()
    )
    return {name} | inner


def test_the_page_names_every_key_and_all_are_tried_above():
    parts = {"equals": spec.Equals, "contains": spec.Contains, "regex": spec.Regex, "json": spec.Json, "length": spec.Length,
             "number": spec.Number, "one_of": spec.OneOf, "similar": spec.Similar, "python": spec.Python}  # fmt: skip
    rows = {found[1]: line for line in PAGE.splitlines() if (found := re.match(r"\| `(\w+):", line))}
    assert set(rows) == set(names(spec.Check))
    tried = set().union(*(keys_of(check) for check, _, _ in CHECKS))
    implied = {"equals.text", "regex.pattern", "json.valid", "number.value", "one_of.texts", "python.function"}
    for name, part in parts.items():
        for key in names(part):
            assert f"{name}.{key}" in tried | implied, f"{name}.{key}"
            assert f"{name}.{key}" in implied or re.search(rf"\b{key}\b", rows[name]), f"{name}.{key}"


def test_sampling_systems_references_rates_and_rows(tested, tmp_path):
    (tmp_path / "rows.csv").write_text("country,capital\nFrance,Paris\nItaly,Rome\nSpain,Madrid\n")
    suite = {
        "name": "all keys", "system": "Be short.", "threshold": 0.5, "pass_rate": 0.5,
        "sampling": {"max_new_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 4},
        "groups": [
            {"name": "rows", "rows": "rows.csv", "limit": 2, "prompt": "Capital of {country}? {{x}}", "threshold": 0.5,
             "checks": [{"contains": "{capital}"}]},
            {"name": "turns", "system": "Be long.", "sampling": {"n": 2, "max_new_tokens": 9},
             "cases": [{"name": "again", "pass_rate": 1, "checks": [{"equals": "b"}],
                        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"},
                                     {"role": "user", "content": "last"}]}]},
        ],
    }  # fmt: skip
    said = {"Capital of France? {x}": "Paris", "Capital of Italy? {x}": "no", "last": "b"}
    status, result, asked = tested(suite, said, "--junit", "out/r.xml")
    assert status == 0
    assert (result["suite"], result["met"], result["all"]["threshold"]) == ("all keys", True, 0.5)
    assert [(g["name"], g["cases"], g["passed"], g["threshold"], g["met"]) for g in result["groups"]] == [
        ("rows", 2, 1, 0.5, True), ("turns", 1, 1, None, True)
    ]  # fmt: skip
    (first, one), (second, two) = asked
    assert one == {"max_new_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 4, "n": 1}
    assert two == one | {"n": 2, "max_new_tokens": 9}
    assert [turns[0].content for turns in (*first, *second)] == ["Be short.", "Be short.", "Be long."]
    assert [case["where"] for case in result["cases"][:2]] == ["rows.csv:2", "rows.csv:3"]
    assert set(result) == set(re.findall(r"`(\w+)`", PAGE.split("`--json`: ")[1].split("\n\n")[0])) & set(result)
    assert ElementTree.parse(tmp_path / "out" / "r.xml").getroot().get("tests") == "5"  # 3 cases, 2 thresholds


def test_control_characters_of_a_suite_leave_an_xml_that_parses(tested, tmp_path):
    suite = """\
name: "bell \\u0007"
groups:
  - name: "esc \\e[31m"
    threshold: 0.9
    cases:
      - name: "null \\u0001 & <tag> \\ufffe"
        prompt: "Hi \\u001b[0m"
        checks: [{contains: "nothing \\u0002 here"}, {not: {regex: "\\u0003"}}, {one_of: ["]]>", "\\u2028"]}]
"""
    status, result, _ = tested(suite, {"Hi \x1b[0m": "a\x00\x0b\ud800 ]]> \x03 <x>"}, "--junit", "r.xml")
    assert status == 1
    root = ElementTree.parse(tmp_path / "r.xml").getroot()
    (group,) = root
    assert (root.get("name"), group.get("name"), group.get("failures")) == ("bell \ufffd", "esc \ufffd[31m", "2")
    assert "answer: a\ufffd\ufffd\ufffd ]]> \ufffd <x>" in group[0][0].text
    assert not result["met"]


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("{length: {}}", "every answer has a length; give `min` or `max`"),
        ("{length: {unit: words}}", "every answer has a length"),
        ("{not: {length: {min: 0}}}", "every answer has a length"),
        ("{length: {min: -1}}", "'min' should be greater than or equal to 0"),
        ("{contains: ''}", "every answer contains ''"),
        ("{contains: {any: [a, '']}}", "every answer contains ''"),
        ("{regex: ''}", "an empty pattern is found in every answer"),
        ("{one_of: []}", "'one_of' names no text"),
        ("{number: .nan}", "holds no number"),
        ("{number: .inf}", "holds no number"),
        ("{number: {value: 3, within: .inf}}", "'within' should be a finite number"),
        ("{number: 2024-01-05}", "is a date; put it in quotes"),
        ("{similar: {to: ' '}}", "`to` is empty"),
        ("{judged: ''}", "the question to the judge is empty"),
        ("{python: {function: 'f.py:half', at_least: .nan}}", "'at_least' should be a finite number"),
    ],
)
def test_checks_that_say_nothing_are_refused_before_anything_is_asked(tested, check, message):
    status, err, asked = tested(f"groups: [{{name: g, cases: [{{prompt: Hi, checks: [{check}]}}]}}]", {})
    assert (status, asked) == (2, [])
    assert message in err
    assert "suite.yaml:1" in err


def test_a_group_of_no_rows_is_refused(tested, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n")
    status, err, _ = tested('groups: [{name: g, rows: rows.csv, prompt: "{a}", checks: [{length: {max: 4}}]}]', {})
    assert status == 2
    assert "rows.csv" in err
