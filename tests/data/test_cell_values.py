"""Values in other programs' spellings."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.config.data import DataConfig
from luthier.data.cell_values import became_floats, field_value, structured
from luthier.data.load import load

TURNS = [{"role": "user", "content": 'It\'s a "b"\nc'}, {"role": "assistant", "content": "}\n {"}]

leaf = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9)
)
values = st.recursive(
    leaf, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3), max_leaves=8
)


@settings(max_examples=100, deadline=None)
@given(st.lists(values, min_size=1, max_size=3))
@pytest.mark.medium
def test_what_python_and_json_print_is_read_back(value):
    assert structured(repr(value)) == structured(json.dumps(value)) == value


def test_what_numpy_prints_is_read_back():
    assert structured(str(np.array(["a", "b c", "d"], dtype=object))) == ["a", "b c", "d"], "never joined to 'ab cd'"
    assert structured(str(np.array(TURNS, dtype=object))) == TURNS
    assert structured(str(np.array([1, -2, 3]))) == [1, -2, 3]
    assert structured(repr([np.array(["a", "b"]), np.float64(0.5)])) == [["a", "b"], 0.5]
    assert structured("[nan, None, True]") == [None, None, True]


@pytest.mark.parametrize(
    "text",
    [
        "['a' ... 'z']",
        "[open('x')]",
        "__import__('os')",
        "[x for x in y]",
        "[1, 2",
        "plain text",
        "[b'x']",
        "[" * 5000,
        "{**{}}",
        "",
    ],
)
def test_other_text_is_no_value(text):
    with pytest.raises(ValueError):
        structured(text)


def test_fields_that_hold_lists_read_them_from_text():
    assert field_value("messages", repr(TURNS)) == TURNS
    assert field_value("chosen", json.dumps(TURNS)) == TURNS
    assert field_value("tools", "[{'name': 'f'}]") == [{"name": "f"}]
    for text in ('[{"name": "x"}]', "[1, 2]", "{'role': 'user'}", "[broken"):
        assert field_value("completion", text) == text, "an answer may be JSON"
    assert field_value("text", repr(TURNS)) == repr(TURNS)
    by_columns = {"role": ["user", "assistant"], "content": [turn["content"] for turn in TURNS]}
    assert field_value("messages", by_columns) == TURNS
    assert field_value("messages", {"role": ["user"], "content": "a"}) == {"role": ["user"], "content": "a"}


@pytest.mark.parametrize(
    ("column", "became"),
    [([1.0, None], True), ([1.0, float("nan")], True), (["1.0", ""], True), ([1.0, 2.0], False), ([1.5, None], False),
     ([1, None], False), ([None], False), (["1.0", "v2.0", ""], False), ([1e300, None], False), ([True, None], False)],
)  # fmt: skip
def test_columns_that_became_floats(column, became):
    assert became_floats(column) is became


@pytest.mark.parametrize("printed", [repr(TURNS), str(np.array(TURNS, dtype=object)), json.dumps(TURNS)])
def test_conversations_in_a_table_of_text(tmp_path, printed):
    path = tmp_path / "a.csv"
    path.write_text("messages\n" + f'"{printed.replace(chr(34), chr(34) * 2)}"\n' * 2)
    chat = load([str(path)], DataConfig()).examples[1]
    assert [(turn.role, turn.content) for turn in chat.messages] == [(t["role"], t["content"]) for t in TURNS]
