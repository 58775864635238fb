"""Values of files held against their form: what is refused, and how it is told."""

from __future__ import annotations

import json
from typing import Required

import pytest
from typing_extensions import TypedDict

from luthier.core.errors import InputError
from luthier.core.foreign.forms import MAX_DEPTH, Count, Number, read_line, require_form
from sentences import sentence


class Line(TypedDict, total=False):
    row: Required[Count]
    loss: Number
    names: list[str]


def refused(form, value):
    with pytest.raises(InputError) as caught:
        require_form(form, value, where="a.jsonl:3", fix="fix it")
    assert str(caught.value).startswith("a.jsonl:3: ") and str(caught.value).endswith("; fix it")
    return caught.value.what


def test_what_is_of_the_form_is_itself_other_keys_and_all():
    value = {"row": 3, "loss": 2, "names": ["a"], "beside": {"x": [None]}}
    assert require_form(Line, value, where="", fix="") is value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, "'row' is missing"),
        ([], "this should be a valid dictionary, not a list"),
        ({"row": "3"}, "'row' should be a valid integer, not \"3\""),
        ({"row": True}, "'row' should be a valid integer, not true"),
        ({"row": 1.0}, "'row' should be a valid integer, not 1.0"),
        ({"row": -1}, "'row' should be greater than or equal to 0, not -1"),
        ({"row": 10**30}, "'row' should be less than or equal to"),
        ({"row": 0, "loss": float("nan")}, "'loss' should be"),
        ({"row": 0, "loss": 1e300}, "'loss' should be less than or equal to 1"),
        ({"row": 0, "names": ["a", {}]}, "'names.1' should be a valid string, not an object"),
        ({"row": "x" * 9000}, "xxx..."),
    ],
)
def test_what_is_not_is_told_with_its_place(value, told):
    assert told in refused(Line, value)


def test_a_line_that_is_no_json():
    for line, told in (
        (b"{", sentence("not json")),
        (b"\xff{}", sentence("not utf-8")),
        (b"9" * 5000, sentence("not json")),
        (b"[" * 99_999, sentence("nested too deep")),
    ):
        with pytest.raises(InputError, match=told):
            read_line(line, where="a:1", fix="fix it")


def test_how_deep_a_line_may_be():
    deep = json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert read_line(json.dumps(deep).encode(), where="", fix="") == deep
    with pytest.raises(InputError, match=sentence("nested too deep", most=MAX_DEPTH)):
        read_line(b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), where="", fix="")
    flat = json.dumps([[]] * 5000).encode()
    assert len(read_line(flat, where="", fix="")) == 5000
