"""Suites as YAML: what is read, and every fault as one line that names file, line, key and fix."""

from __future__ import annotations

import json

import pytest

from luthier.core.errors import InputError
from luthier.evals.suites import spec
from luthier.evals.suites.cases import expand
from luthier.evals.suites.document import read
from luthier.evals.suites.results import prepare
from sentences import sentence

GOOD = """\
name: small things
system: Answer briefly.
sampling: {max_new_tokens: 40}
groups:
  - name: capitals
    rows: capitals.csv
    prompt: "What is the capital of {country}?"
    checks:
      - contains: "{capital}"
  - name: sums
    cases:
      - prompt: 2 + 2?
        reference: "4"
        system: Count.
        pass_rate: 0.5
        checks: [{number: 4}]
      - name: talk
        messages:
          - {role: system, content: s}
          - {role: user, content: u}
        checks: [{not: {equals: x}}]
"""


@pytest.fixture
def suite(tmp_path):
    """Write a suite with its table, changed by (old, new) pairs; the path."""
    (tmp_path / "capitals.csv").write_text("country,capital\nFrance,Paris\nItaly,Rome\n")

    def write(*changes, text=GOOD):
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "suite.yaml"
        path.write_text(text)
        return path

    return write


def cases(path):
    document = read(path)
    found = expand(document)
    prepare(found, path.parent)
    return found


def test_a_byte_order_mark_is_no_part_of_a_suite(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(
        "\ufeffname: small\ngroups:\n  - name: a\n    cases: [{prompt: x, checks: [{equals: y}]}]\n", encoding="utf-8"
    )
    assert read(path).suite.name == "small"


def test_groups_rows_and_cases(suite):
    found = cases(suite())
    assert [(case.number, case.group, case.name) for case in found] == [
        (0, "capitals", "What is the capital of France?"), (1, "capitals", "What is the capital of Italy?"),
        (2, "sums", "2 + 2?"), (3, "sums", "talk"),
    ]  # fmt: skip
    france, _, sums, talk = found
    assert [(m.role, m.content) for m in france.messages] == [
        ("system", "Answer briefly."), ("user", "What is the capital of France?")
    ]  # fmt: skip
    assert france.checks[0].contains.all == "Paris"
    assert france.where.endswith("capitals.csv:2")
    assert france.sampling["max_new_tokens"] == 40
    assert (sums.messages[0].content, sums.reference, sums.pass_rate, talk.pass_rate) == ("Count.", "4", 0.5, 1.0)
    assert [m.content for m in talk.messages] == ["s", "u"]  # a system message of its own
    assert sums.where.endswith("suite.yaml:12")


def test_common_checks_come_before_a_cases_own_and_rows_fill_both(suite):
    text = GOOD.replace(
        'prompt: "What is the capital of {country}?"', 'cases: [{prompt: "{country}?", checks: [{length: {max: 9}}]}]'
    )
    found = cases(suite(text=text))
    assert [check.kind for check in found[1].checks] == ["contains", "length"]
    assert found[1].prompt == "Italy?"


def test_braces_that_are_no_columns_stay(suite):
    path = suite(
        ('"What is the capital of {country}?"', "'{\"a\": {1}} {{country}} {country}'"),
        ('"{capital}"', "'{capital}{2}'"),
    )
    first = cases(path)[0]
    assert first.prompt == '{"a": {1}} {country} France'
    assert first.checks[0].contains.all == "Paris{2}"


def test_without_rows_braces_are_text(suite):
    assert cases(suite(("2 + 2?", "'{country}'")))[2].prompt == "{country}"


def test_rows_are_limited_and_rows_of_jsonl_hold_numbers(suite, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"country": "France", "capital": 5}\n{"country": "Italy", "capital": 6}\n')
    found = cases(suite(("capitals.csv", "rows.jsonl\n    limit: 1"), ('contains: "{capital}"', 'number: "{capital}"')))
    assert len(found) == 3
    assert found[0].checks[0].number.value == "5"


def test_an_empty_cell_makes_no_check(suite, tmp_path):
    """`contains: ""` is true of every answer, and null would be the text None."""
    (tmp_path / "capitals.csv").write_text("country,capital\nFrance,Paris\nItaly, \n")
    with pytest.raises(
        InputError,
        match=sentence("empty column", where="capitals.csv:3", fault="column 'capital' is empty, and a check reads it"),
    ):
        cases(suite())
    assert cases(suite(('contains: "{capital}"', "length: {max: 9}")))[1].prompt.endswith("Italy?")
    found = cases(suite(('contains: "{capital}"', "length: {max: 9}\n    reference: '{capital}'")))
    assert found[1].reference == " "  # only checks need a value


@pytest.mark.parametrize("place", ["country", "capital"])
def test_null_is_no_text(suite, tmp_path, place):
    row = {"country": "Italy", "capital": "Rome", place: None}
    (tmp_path / "rows.jsonl").write_text('{"country": "France", "capital": "Paris"}\n' + json.dumps(row) + "\n")
    with pytest.raises(
        InputError, match=sentence("empty column", where="rows.jsonl:2", fault=f"column '{place}' is null")
    ):
        cases(suite(("capitals.csv", "rows.jsonl")))


FAULTS = [
    ("contains:", "contans:", "suite.yaml:9: unknown key 'contans'; did you mean 'contains'?"),
    ("checks: [{number", "check: [{number", "suite.yaml:16: unknown key 'check'; did you mean 'checks'?"),
    ("system: Count.", "colour: red", "suite.yaml:14: unknown key 'colour'; known here: prompt, messages, system"),
    ("{number: 4}", "{number: {valu: 4}}", "suite.yaml:16: unknown key 'valu'; did you mean 'value'?"),
    ("{number: 4}", "{number: 4, regex: x}", "suite.yaml:16: a check is exactly one of equals, contains, regex, json, "),
    ("{number: 4}", "{}", "suite.yaml:16: a check is exactly one of "),
    ("{number: 4}", "{equals: 4}", "suite.yaml:16: 'equals' should be a valid string, not 4; put it in quotes"),
    ("{number: 4}", "{equals: no}", "suite.yaml:16: 'equals' should be a valid string, not False; put it in quotes"),
    ("{number: 4}", "{number: four}", "suite.yaml:16: 'number': 'four' holds no number"),
    ("{number: 4}", "{regex: '('}", "suite.yaml:16: not a regular expression: missing )"),
    ("{number: 4}", "{contains: []}", "suite.yaml:16: 'contains' names no text"),
    ("{number: 4}", "{length: {min: 3, max: 2}}", "suite.yaml:16: no length is from 3 to 2"),
    ("{number: 4}", "{length: {unit: letters}}", "suite.yaml:16: 'unit' should be 'characters', 'words' or 'lines', not"),
    ("{number: 4}", "{json: {schema: {type: objct}}}", "suite.yaml:16: not a JSON Schema: 'objct'"),
    ("{number: 4}", "{json: {schema: missing.json}}", "suite.yaml:16: cannot read "),
    ("{number: 4}", "{similar: {to: x, by: rogue}}", "suite.yaml:16: unknown metric 'rogue'; did you mean 'rouge_l'?"),
    ("{number: 4}", "{similar: {to: x, by: length}}", "suite.yaml:16: unknown metric 'length'"),
    ("{number: 4}", "{similar: {to: x, at_least: 50}}", "suite.yaml:16: no ROUGE-L is 50; give `at_least` from 0 to 1"),
    ("{number: 4}", "{similar: {to: x, by: chrf, at_least: 101}}", "no chrF is 101; give `at_least` from 0 to 100"),
    ("{number: 4}", "{similar: {to: x, by: bleu, at_least: -1}}", "no BLEU is -1; give `at_least` from 0 to 100"),
    ("pass_rate: 0.5", "pass_rate: 2", "suite.yaml:15: 'pass_rate' should be less than or equal to 1, not 2"),
    ("prompt: 2 + 2?", "prompt: a\n        messages: []", "suite.yaml:12: both a prompt and messages; "),
    ("prompt: 2 + 2?", "name: x", "suite.yaml:12: nothing is asked; give `prompt:` or `messages:`"),
    ("role: user", "role: assistant", "suite.yaml:17: the messages end where no answer can follow"),
    ("{country}", "{contry}", "suite.yaml:5: no column 'contry' in "),
    ("capitals.csv", "capital.csv", "suite.yaml:6: "),
    ("- name: sums", "- name: capitals", "suite.yaml:10: two groups are called 'capitals'"),
    ("max_new_tokens: 40", "n: 3", "suite.yaml:5: 3 answers at temperature 0 are all the same; give a temperature"),
    ("- name: sums", "- name: sums\n    limit: 3", "suite.yaml:11: 'limit' is for groups with rows"),
    ("checks: [{number: 4}]", "reference: '5'", "suite.yaml:16: 'reference' occurs twice"),
    ("groups:", "groups: [}\nx:", "suite.yaml:4: not valid YAML: "),
    (GOOD, "groups: []", "suite.yaml:1: a suite without cases"),
    (GOOD, "groups: [{name: a, prompt: b}]", "suite.yaml:1: a case without checks; give `checks:`"),
    (GOOD, "just text", "suite.yaml: a suite is a mapping with 'groups'"),
    (GOOD, "name: x", "suite.yaml:1: 'groups' is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), FAULTS, ids=[message[:40] for _, _, message in FAULTS])
def test_faults_name_line_key_and_fix(suite, old, new, message):
    with pytest.raises(InputError) as error:
        cases(suite((old, new)))
    assert message in str(error.value).replace(str(error.value).partition("suite.yaml")[0], "")


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(
        InputError, match=sentence("cannot read settings file", what="suite", reason="No such file or directory")
    ):
        read(tmp_path / "suite.yaml")
    (tmp_path / "suite.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=sentence("cannot read settings file", what="suite", reason="not UTF-8")):
        read(tmp_path / "suite.yaml")


def test_the_keys_of_a_check_are_as_they_are_written():
    assert spec.names(spec.Check)[3] == "json"
    assert spec.names(spec.Check)[-1] == "not"
