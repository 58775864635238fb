"""JSON answers field by field, by hand."""

from __future__ import annotations

import pytest

from luthier.evals.detectors.formats import Format
from luthier.evals.metrics.answer_metrics import auto
from luthier.evals.metrics.json_fields import field_f1, key_paths, missing, parsed

ORDER = '{"name": "Ann", "items": [{"id": 1, "n": 2}, {"id": 2, "n": 1}]}'


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (ORDER, 1.0),
        (f"```json\n{ORDER}\n```", 1.0),
        ('{"items": [{"n": 1, "id": 2}, {"n": 2, "id": 1.0}], "name": " Ann "}', 1.0),  # other order, of keys and items
        ('{"name": "Bob", "items": [{"id": 1, "n": 2}, {"id": 2, "n": 1}]}', 2 * 4 / 10),
        ('{"name": "Ann", "items": []}', 2 * 1 / (2 + 5)),
        ('{"name": "Ann", "items": [{"id": 1}, {"id": 2}]}', 2 * 3 / (3 + 5)),
        ('{"name": "Ann"', 0.0),
        ("Ann", 0.0),
        ("", 0.0),
    ],
)
def test_fields_by_hand(answer, wanted):
    assert field_f1(answer, ORDER) == pytest.approx(wanted)


def test_types_are_told_apart():
    assert field_f1("[true]", "[1]") == field_f1('["1"]', "[1]") == field_f1("[null]", "[0]") == 0.0
    assert field_f1("[1, 1]", "[1]") == pytest.approx(2 / 3)


def test_deep_and_long_values_are_compared_in_time():
    deep = "[" * 150 + "]" * 150
    assert field_f1(deep, deep) == 1.0
    assert parsed("[" * 900 + "]" * 900) is None and parsed("[" * 100_000) is None
    assert field_f1(str(list(range(3000))), str(list(range(3000)))) == 1.0


def test_keys_inside_lists_are_missed():
    wanted = key_paths(parsed(ORDER))
    assert wanted == {"name", "items", "items[]", "items[].id", "items[].n"}
    assert missing(parsed('{"name": "x", "items": [{"id": 1, "n": 1}, {"id": 2}]}'), wanted) == "items[].n"
    assert missing(parsed('{"name": "x", "items": {}}'), wanted) == "items[]"
    assert missing(parsed('{"name": "x", "items": []}'), wanted) == ""  # a list of none is a list
    assert missing(parsed('{"items": []}'), wanted) == "name"


def test_the_form_of_a_task_has_the_keys_inside_lists():
    form = Format.learn(
        [ORDER.replace("Ann", name) for name in ("Ann", "Bob", "Cy", "Di", "Ed", "Fay", "Gil", "Hal", "Ida", "Jo")]
    )
    assert form.broken('{"name": "x", "items": [{"id": 1}]}', "") == "JSON without 'items[].n'"
    assert form.broken('{"name": "x", "items": [{"id": 1}]}', ORDER) == "JSON without 'items[].n'"
    assert form.broken(ORDER.replace("Ann", "Zoe"), "") == ""


def test_json_is_measured_by_its_fields():
    assert auto([ORDER.replace("1", str(i)) for i in range(8)]) == ("json_f1", "length")
