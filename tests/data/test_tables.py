"""CSV and TSV: headers, separators, quotes, and cells that stand for nothing."""

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.core.errors import InputError
from luthier.data.read import read_rows


def put(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def fields(path, **how):
    return [row.fields for row in read_rows([path], **how)]


def places(path):
    return [row.origin.line for row in read_rows([path])]


def fault(*paths):
    with pytest.raises(InputError) as caught:
        list(read_rows(list(paths)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_csv_line_numbers_with_line_ends_inside_cells(tmp_path):
    path = put(tmp_path, "a.csv", 'text,label\n"one\ntwo",x\nthree,y\n')
    assert fields(path) == [{"text": "one\ntwo", "label": "x"}, {"text": "three", "label": "y"}]
    assert places(path) == [2, 4]


def test_csv_faults(tmp_path):
    ragged = put(tmp_path, "a.csv", "text,label\nno, not this,x\nfine,y\n")
    assert "a.csv:2: 3 cells, but the first row has 2" in fault(ragged)
    assert [row.fields["text"] for row in read_rows([ragged], skipped=lambda origin, reason: None)] == ["fine"]
    assert "broken quoting" in fault(put(tmp_path, "b.csv", 'text,label\n"never closed,x\n'))


def test_csv_field_longer_than_the_libraries_limit(tmp_path):
    assert len(fields(put(tmp_path, "a.csv", f"text,label\n{'x' * 200_000},y\n"))[0]["text"]) == 200_000


def test_csv_with_semicolons_and_with_an_index_column(tmp_path):
    assert fields(put(tmp_path, "a.csv", "text;label\none, two;x\n")) == [{"text": "one, two", "label": "x"}]
    assert fields(put(tmp_path, "b.csv", ",text\n0,one\n")) == [{"index": "0", "text": "one"}]


def test_table_without_names_is_recognised(tmp_path):
    path = put(tmp_path, "a.csv", "A man sings.,A man is singing.,4.75\nA dog runs.,A cat sleeps.,0\n")
    assert fields(path)[0] == {"sentence1": "A man sings.", "sentence2": "A man is singing.", "score": "4.75"}
    assert places(path) == [1, 2]
    assert fields(put(tmp_path, "b.csv", "Where is it?,card\n")) == [{"column1": "Where is it?", "column2": "card"}]


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), min_size=1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries({"text": cell, "label": cell}), min_size=1, max_size=5))
def test_csv_reads_back_what_the_standard_library_wrote(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    assert fields(str(path)) == rows
