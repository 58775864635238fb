"""The rewards that come with Luthier: each formula by hand, and what is refused."""

from __future__ import annotations

import json

import pytest

from luthier.config.rewards import RewardConfig
from luthier.core.errors import InputError, RunError
from luthier.evals.metrics.answer_metrics import number as evaluated_number
from luthier.rewards.answer import Answer, opening
from luthier.rewards.rules import rule
from sentences import sentence

SETTINGS = RewardConfig(timeout=0.3)


def answer(text="", reference=None, tokens=0, ended=True):
    return Answer("what?", text, reference, tokens, ended, ())


def score(spec, *answers):
    name, _, argument = spec.partition(":")
    return rule(spec, name, argument, SETTINGS)(answers)


@pytest.mark.parametrize(
    ("spec", "text", "reference", "value"),
    [
        ("exact", " Paris\n", "Paris", 1),
        ("exact", "paris", "Paris", 0),
        ("exact", "Paris.", "Paris", 0),
        ("exact:casefold", "STRASSE", "straße", 1),
        ("contains", "It is Paris.", " Paris ", 1),
        ("contains", "It is paris.", "Paris", 0),
        ("contains:casefold", "It is paris.", "Paris", 1),
        ("number", "3 + 4 = 7", "so it is\n#### 7", 1),
        ("number", "1,234.0", "1234", 1),
        ("number", "7 or 8", "7", 0),
        ("number", "seven", "7", 0),
        ("number", "7", "seven", 0),
        ("number", "none", "none", 0),
        (r"regex:^\d+$", "42", None, 1),
        (r"regex:^\d+$", "42 ", None, 0),
        ("regex:(?i)yes|no", "well, YES", None, 1),
        ("regex:a:b", "xa:bx", None, 1),
    ],
)
def test_rules_of_text(spec, text, reference, value):
    assert score(spec, answer(text, reference)) == [value]


@pytest.mark.parametrize(
    "text", ["18", "-3.5 apples", "1,000", "x", "", "$5 and .5", "v2.0", "12.", "3 000", "#### 1,2"]
)
@pytest.mark.parametrize("reference", ["18", "-3.5", "1000", "0.5", "12", "#### 12"])
def test_number_is_the_rule_that_evaluation_uses(text, reference):
    assert score("number", answer(text, reference)) == [evaluated_number(text, reference)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, null]}', 1),
        (' "text"\n', 1),
        ("12", 1),
        ("", 0),
        ("{'a': 1}", 0),
        ('{"a": 1} and more', 0),
        ("```json\n{}\n```", 0),
        ("NaN", 0),
        ('{"a": -Infinity}', 0),
        ("[" * 100_000, 0),
    ],
)
def test_json_is_what_the_standard_says(text, value):
    assert score("json", answer(text)) == [value]


def test_json_of_a_schema(tmp_path):
    path = tmp_path / "person.json"
    person = {"type": "object", "required": ["age"], "properties": {"age": {"$ref": "#/$defs/age"}}}
    path.write_text(json.dumps(person | {"$defs": {"age": {"type": "integer", "minimum": 0}}}))
    texts = ['{"age": 3}', '{"age": -1}', '{"age": "3"}', "{}", "[]", "no"]
    assert score(f"json:{path}", *map(answer, texts)) == [1, 0, 0, 0, 0, 0]


def test_a_schema_of_an_older_draft_is_read_by_its_own_rules(tmp_path):
    path = tmp_path / "old.json"
    draft4 = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 5, "exclusiveMinimum": True}
    path.write_text(json.dumps(draft4))
    assert score(f"json:{path}", answer("5"), answer("6")) == [0, 1]


def test_a_schema_never_fetches(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: pytest.fail("it went to the network"))
    path = tmp_path / "far.json"
    path.write_text('{"$ref": "https://example.com/schema.json"}')
    with pytest.raises(InputError, match=sentence("schema refers outside", url="https://example.com/schema.json")):
        score(f"json:{path}", answer("1"))


def test_length_falls_from_one_to_zero():
    tokens = [0, 40, 50, 60, 79, 80, 500]
    assert score("length:40", *(answer(tokens=n) for n in tokens)) == pytest.approx([1, 1, 0.75, 0.5, 0.025, 0, 0])


def test_ended():
    assert score("ended", answer(ended=True), answer(ended=False)) == [1, 0]


def test_a_pattern_that_never_comes_back_is_stopped():
    rule = "regex:^(a|a|aa)+$"
    slow = sentence("function takes too long", where=f"reward '{rule}'", what="pattern", seconds="0.3", opening="what?")
    with pytest.raises(RunError, match=slow):
        score(rule, answer("a" * 60 + "!"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "exact:casefolt",
            sentence(
                "unknown name",
                where="reward 'exact:casefolt'",
                kind="word",
                name="casefolt",
                fix="did you mean 'casefold'?",
            ),
        ),
        ("number:3", sentence("reward takes nothing", name="number", example="number")),
        ("ended:1", sentence("reward takes nothing", name="ended")),
        ("length", sentence("reward needs", name="length", wanted="TOKENS", example="length:TOKENS")),
        ("length:0", sentence("not a number of tokens", given=0)),
        ("length:4.5", sentence("not a number of tokens", given="4.5")),
        ("regex", sentence("reward needs", name="regex", wanted="PATTERN", example="regex:PATTERN")),
        ("regex:(", sentence("not a regular expression", error="missing ) at position 1")),
        ("json:absent.json", sentence("cannot read path", path="absent.json", reason="No such file or directory")),
    ],
)
def test_arguments_that_are_wrong(spec, message):
    with pytest.raises(InputError, match=message):
        score(spec)


@pytest.mark.parametrize(
    ("text", "message"), [("{", sentence("schema not json")), ('{"type": "strnig"}', sentence("not a schema"))]
)
def test_schemas_that_are_wrong(tmp_path, text, message):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        score(f"json:{path}")


def test_the_opening_of_a_prompt_is_one_short_line():
    assert opening("a\n b") == "a b"
    assert opening("x" * 60) == "x" * 60
    assert opening("x" * 61) == "x" * 60 + "…"
