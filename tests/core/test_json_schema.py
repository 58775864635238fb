"""Schemas of others: every hostile one is refused, or stopped when its time is over; good ones say what `jsonschema` says."""

from __future__ import annotations

import os
import time

import jsonschema
import pytest

from luthier.core.errors import InputError
from luthier.core.foreign.json_schema import Schema, read_schema
from sentences import sentence

SLOW = "((a|a)+)+$"  # 2^30 ways to read 30 a's


def doubling(levels):
    """Every part asks for the next one twice: 2^levels looks at a value."""
    parts = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": parts | {f"d{levels}": {"type": ["object", "null"]}}}


def nested(levels):
    out = {}
    for _ in range(levels):
        out = {"properties": {"a": out}}
    return out


FAULTS = [
    ({"$ref": "http://127.0.0.1:9/x"}, "the schema refers to http://127.0.0.1:9/x, which is not in it"),
    ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "the schema refers to file:///etc/passwd, which is not in it"),
    ({"$id": "http://127.0.0.1:9/", "items": {"$ref": "other.json"}}, "the schema refers to other.json"),
    ({"$defs": {"a": {"$dynamicRef": "http://127.0.0.1:9/x"}}}, "the schema refers to http://127.0.0.1:9/x"),
    ({"$ref": "#/$defs/none"}, "the schema refers to #/$defs/none"),
    ({"$ref": "http://["}, "the schema refers to http://["),
    ({"$ref": "#"}, "a schema that refers to itself without end"),
    ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, "refers to itself without end"),
    (nested(3000), "nests too deeply"),
    (doubling(40), "takes longer than a second on null"),
    ({"pattern": "("}, "not a regular expression: missing )"),
    ({"patternProperties": {"[": {}}}, "not a regular expression"),
    ({"pattern": "(" * 5000 + ")" * 5000}, "the pattern nests too deeply"),
    ({"pattern": "x" * 20_000}, "a pattern of 20,000 characters"),
    ({"allOf": [{"patternProperties": {"a": {}}}], "unevaluatedProperties": False}, "use 'additionalProperties'"),
    ({"type": "objct"}, "not a JSON Schema: 'objct'"),
    ({"minLength": {1, 2}}, "not a JSON Schema"),
    (7, "not a JSON Schema: 7"),
    ({"$schema": 0.5}, "not a JSON Schema"),
    ({"$schema": ["x"]}, "not a JSON Schema"),
]  # fmt: skip


@pytest.mark.medium
@pytest.mark.parametrize(("schema", "message"), FAULTS, ids=[message[:40] for _, message in FAULTS])
def test_schemas_that_cannot_be_checked_are_refused_at_once(schema, message):
    with pytest.raises(InputError) as error:
        Schema(schema, "suite.yaml:3")
    assert str(error.value).startswith("suite.yaml:3: ")
    assert message in str(error.value)


@pytest.mark.medium
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": SLOW}, "a" * 40 + "!"),
        ({"patternProperties": {SLOW: {}}}, {"a" * 40 + "!": 1}),
        ({"patternProperties": {SLOW: {}}, "additionalProperties": False}, {"a" * 40 + "!": 1}),
        ({"propertyNames": {"pattern": SLOW}}, {"a" * 40 + "!": 1}),
        ({"items": doubling(40) | {"type": "object"}, "$defs": doubling(40)["$defs"]}, [{}]),
    ],
    ids=["pattern", "patternProperties", "additionalProperties", "propertyNames", "doubling"],
)
def test_a_value_is_looked_at_for_so_long_and_no_longer(schema, value):
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        Schema(schema, "").fault(value, 0.2)
    assert time.monotonic() - began < 20  # without a limit: years


OBJECT = {
    "type": "object", "properties": {"id": {"type": "integer"}}, "patternProperties": {"^x_": {"type": "string", "pattern": "^a+$"}},
    "additionalProperties": {"type": "number"},
}  # fmt: skip
CLOSED = OBJECT | {"additionalProperties": False}
VALUES = [
    {"id": 1}, {"id": "1"}, {"x_a": "aaa"}, {"x_a": "b"}, {"x_a": 1}, {"other": 1.5}, {"other": "no"},
    {"id": 1, "x_b": "a", "y": 2}, [], "x_", None,
]  # fmt: skip


@pytest.mark.parametrize("schema", [OBJECT, CLOSED, {"$schema": "http://json-schema.org/draft-04/schema#"} | CLOSED])
@pytest.mark.parametrize("value", VALUES, ids=str)
def test_keywords_that_search_agree_with_the_library(schema, value):
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    assert (Schema(schema, "").fault(value, 5) == "") == kind(schema).is_valid(value)


def test_words_of_a_fault():
    assert Schema(CLOSED, "").fault({"y": 1}, 5) == "does not fit the schema: 'y' is a property that is not allowed"
    assert Schema(OBJECT, "").fault({"x_a": "b"}, 5) == "does not fit the schema at x_a: 'b' does not match '^a+$'"


def test_a_schema_that_refers_to_itself_reads_trees():
    tree = Schema({"properties": {"below": {"items": {"$ref": "#"}}, "name": {"type": "string"}}}, "")
    assert tree.fault({"below": [{"name": "a", "below": []}]}, 5) == ""
    assert (
        tree.fault({"below": [{"name": 1}]}, 5) == "does not fit the schema at below/0/name: 1 is not of type 'string'"
    )


def test_a_file_of_a_schema_is_a_file_of_its_size(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "large.json").write_text('"' + "x" * (1 << 20) + '"')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, message in {
        "pipe.json": sentence("schema path is a pipe"),
        "large.json": sentence("schema too large"),
        "deep.json": sentence("schema not json"),
    }.items():
        with pytest.raises(InputError, match=message):
            read_schema(tmp_path / name, "x")
    with pytest.raises(InputError):
        read_schema(tmp_path, "x")
