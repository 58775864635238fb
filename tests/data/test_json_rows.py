"""The JSON reader: any cut of the file into pieces gives the same values and lines."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.core.errors import InputError
from luthier.data.json_rows import JsonReader, half_character
from sentences import sentence


def values(text, size=5):
    pieces = iter([text[i : i + size] for i in range(0, len(text), size)])
    return [(line, value) for line, value, _ in JsonReader(pieces, "f.json")]


few = settings(max_examples=40, deadline=None)
leaf = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12)
inner = leaf | st.lists(leaf, max_size=3) | st.dictionaries(st.text(max_size=5), leaf, max_size=3)
record = st.dictionaries(st.text(max_size=5), inner, max_size=4)
rows_of_any_kind = st.lists(record, min_size=1, max_size=5)


@pytest.mark.medium
@few
@given(rows_of_any_kind, st.integers(1, 40), st.sampled_from([None, 2]), st.booleans())
def test_array_in_pieces(rows, size, indent, ascii_only):
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    assert [value for _, value in values(text, size)] == rows


@few
@given(rows_of_any_kind, st.integers(1, 40))
def test_values_that_follow_each_other(rows, size):
    text = "\n".join(json.dumps(row, indent=1) for row in rows)
    assert [value for _, value in values(text, size)] == rows


def test_lines_are_those_on_which_a_value_begins():
    assert values('[\n{"a": 1},\n\n{"a":\n2}, {"a": 3}\n]') == [(2, {"a": 1}), (4, {"a": 2}), (5, {"a": 3})]


def test_rows_wrapped_in_an_object_are_read_one_by_one():
    text = '{"data": [{"a": 1},\n{"a": 2}], "version": 1, "info": {"by": [1]}}'
    reader = JsonReader(iter([text]), "f.json")
    assert [(line, value) for line, value, _ in reader] == [(1, {"a": 1}), (2, {"a": 2})]
    assert (reader.wrapper, reader.beside) == ("data", ["version", "info"])
    assert values('{"messages": [{"role": "user"}]}') == [(1, {"messages": [{"role": "user"}]})]
    for end in ("", ', "n": ', ', "n": 1', "} 1", ', "n" 1}'):
        with pytest.raises(InputError, match=sentence("broken json in array")):
            values('{"data": [{"a": 1}]' + end, size=100)


def test_a_number_that_is_none_is_null_and_a_mark_between_values_is_space():
    assert values('\ufeff{"a": NaN}\n\ufeff{"a": [NaN, Infinity]}') == [
        (1, {"a": None}),
        (2, {"a": [None, float("inf")]}),
    ]


def test_a_key_that_stands_twice_is_told_where_a_value_is_lost(capsys):
    assert values('[{"a": 1, "a": 1},\n{"a": {"b": 1, "b": 2}}]', size=100)[1][1] == {"a": {"b": 2}}
    assert "f.json:2: the key 'b' occurs twice in one object; the last value is used" in capsys.readouterr().err
    values('[{"a": 1, "a": 1}]')
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ['[{"a": 1}', '[{"a": 1},', '[{"a": 1} {"a": 2}]', '[{"a": "x', "[{'a': 1}]", "[1] 2", '{"a": 1,}']
)
def test_broken_text_is_an_error_whatever_the_pieces(text):
    for size in (1, 3, 100):
        with pytest.raises(InputError, match=sentence("broken json in array", where="f.json:1")):
            values(text, size)


def test_a_fault_is_found_without_reading_the_rest_of_the_file():
    read = []

    def pieces():
        yield '[{"a": 1}, {"a" 2}, ' + " " * 100
        for _ in range(1000):
            read.append(1)
            yield '{"a": 3}, '

    with pytest.raises(InputError):
        list(JsonReader(pieces(), "f.json"))
    assert not read


def test_half_characters():
    assert half_character(r'{"a": "\ud83d"}')
    assert not half_character(r'{"a": "\ud83d\ude00"}')
    assert not half_character('{"a": "plain"}')
