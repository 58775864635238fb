"""JSON files that hold rows in other ways than one after the other."""

import json

import pytest

from luthier.core.errors import InputError
from luthier.data.read import read_rows

ROWS = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]
UNSEEN = [{"prompt": "e", "completion": "f"}]


def read(folder, value, name="a.json", **how):
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return [row.fields for row in read_rows([str(path)], **how)]


def fault(folder, value, name="a.json"):
    with pytest.raises(InputError) as caught:
        read(folder, value, name)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"version": "1.0", "train": ROWS}, "the rows are those under 'train'; not read: version"),
        ({"train": ROWS, "version": "1.0"}, "the rows are the list under 'train'; not read: version"),
        ({"info": {"by": "me"}, "qa_pairs": ROWS}, "the rows are those under 'qa_pairs'; not read: info"),
        ({"sources": [{"url": "x"}], "data": ROWS}, "the rows are those under 'data'; not read: sources"),
        ({"train": ROWS, "test": UNSEEN}, "the rows are the list under 'train'; not read: test"),
        ({"test": UNSEEN, "train": ROWS}, "the rows are those under 'train'; not read: test"),
        ({"v": 2, "data": {"test": UNSEEN, "train": ROWS}}, "the rows are those under 'data'; not read: v"),
        ({"prompt": ["a", "c"], "completion": ["b", "d"]}, "a table by columns: prompt, completion"),
        (
            {"prompt": {"0": "a", "1": "c"}, "completion": {"0": "b", "1": "d"}},
            "a table by columns: prompt, completion",
        ),
        (
            {"prompt": {"x": "a", "y": "c"}, "completion": {"x": "b", "y": "d"}},
            "a table by columns: prompt, completion",
        ),
        (
            {"columns": ["prompt", "completion"], "index": [0, 1], "data": [["a", "b"], ["c", "d"]]},
            "a table by columns",
        ),
    ],
)
def test_an_object_that_holds_rows(tmp_path, value, said, capsys):
    assert read(tmp_path, value) == ROWS
    assert f"a.json: {said}" in capsys.readouterr().err


def test_an_object_of_rows_by_their_ids(tmp_path, capsys):
    assert read(tmp_path, {"x1": ROWS[0], "x2": ROWS[1]}) == [{"id": "x1"} | ROWS[0], {"id": "x2"} | ROWS[1]]
    assert "the rows are the values of one object, 2 keys such as 'x1'" in capsys.readouterr().err


def test_the_held_out_split_is_read_where_it_is_asked_for(tmp_path):
    for value in ({"train": ROWS, "test": UNSEEN}, {"test": ROWS, "validation": UNSEEN, "train": ROWS}):
        assert read(tmp_path, value, held_out=True) == UNSEEN
    assert read(tmp_path, {"train": ROWS}, held_out=True) == ROWS


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}], "tools": [{"name": "f"}]},
        {"prompt": "a", "completion": "b", "sources": [{"url": "x"}]},
        {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]},
        {"prompt": "a", "responses": ["b", "c"], "ranks": [1, 2]},
        {"conversations": [{"from": "human", "value": "a"}]},
        {"prompt": {"role": "user", "content": "a"}, "completion": {"role": "assistant", "content": "b"}},
    ],
)
def test_one_object_may_be_a_row(tmp_path, row, capsys):
    assert read(tmp_path, row) == [row]
    assert not capsys.readouterr().err


def test_lists_that_nothing_tells_apart_are_refused(tmp_path):
    assert "several lists of rows, under 'easy', 'hard'" in fault(tmp_path, {"easy": ROWS, "hard": UNSEEN})


def test_questions_about_passages(tmp_path, capsys):
    asked = [
        {
            "id": "1",
            "question": "Who?",
            "answers": [{"text": "Jo", "answer_start": 0}, {"text": "Jo M.", "answer_start": 0}],
        },
        {"id": "2", "question": "Why?", "answers": [], "is_impossible": True},
    ]
    article = {"title": "t", "paragraphs": [{"context": "Jo did.", "qas": asked}]}
    row = {
        "instruction": "Who?",
        "input": "Jo did.",
        "output": "Jo",
        "title": "t",
        "answers": ["Jo", "Jo M."],
        "id": "1",
    }
    for value in ({"version": "2.0", "data": [article]}, {"data": [article], "version": "2.0"}, [article]):
        assert [{k: v for k, v in got.items() if k != "is_impossible"} for got in read(tmp_path, value)] == [row]
    said = capsys.readouterr().err
    assert "instruction = the question, input = its passage, output = its first answer" in said
    assert "a.json: questions without an answer are left out: 1" in said


def test_rows_on_one_line_are_named_by_their_number(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS))
    assert [row.origin.line for row in read_rows([str(path)])] == [1, 2]
    path.write_text(json.dumps(ROWS, indent=1))
    assert [row.origin.line for row in read_rows([str(path)])] == [2, 6]


def test_whole_numbers_are_whole_where_others_are_missing(tmp_path, capsys):
    lines = '{"a": 42.0, "b": 1.5, "c": 2.0}\n{"a": NaN, "b": null, "c": 3.0}\n{"a": 7.0, "b": 2.0, "c": 4.0}\n'
    rows = read(tmp_path, lines, "a.jsonl")
    assert json.dumps(rows) == json.dumps(
        [{"a": 42, "b": 1.5, "c": 2.0}, {"a": None, "b": None, "c": 3.0}, {"a": 7, "b": 2.0, "c": 4.0}]
    )
    assert "'a' holds whole numbers" in capsys.readouterr().err


def test_a_line_is_a_row_whatever_its_texts_hold(tmp_path, capsys):
    lines = (
        '{"a": "x\u2028y\x85z\u200b"}\n{"a": "1", "a": "2"}\n{"a": "\\u0000 \\ud83d\\ude00"}\n{"a": 1'
        + "0" * 29
        + "}\n"
    )
    assert [row["a"] for row in read(tmp_path, lines, "a.jsonl")] == ["x\u2028y\x85z\u200b", "2", "\x00 😀", 10**29]
    assert "a.jsonl:2: the key 'a' occurs twice" in capsys.readouterr().err


def test_lines_that_are_not_json_say_what_they_are(tmp_path):
    assert "a.jsonl:1: two objects on one line, as where files were joined" in fault(
        tmp_path, '{"a": 1}{"a": 2}\n', "a.jsonl"
    )
    assert "a.jsonl:1: broken JSON: an object as Python prints it" in fault(tmp_path, "{'a': None}\n", "a.jsonl")
