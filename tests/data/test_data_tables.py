"""CSV and TSV: headers, separators, quotes, and cells that stand for nothing."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_of import fault, fields, places, put

from luthier.data.cell_values import MISSING_VALUES
from luthier.data.read import read_rows
from luthier.data.table_records import tab_records


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


def test_csv_with_bars_between_plain_names(tmp_path):
    assert fields(put(tmp_path, "a.csv", "text|label\none, two|x\n")) == [{"text": "one, two", "label": "x"}]
    assert fields(put(tmp_path, "b.csv", "text\nyes|no\n")) == [{"text": "yes|no"}]


def test_table_without_names_is_recognised(tmp_path):
    path = put(tmp_path, "a.csv", "A man sings.,A man is singing.,4.75\nA dog runs.,A cat sleeps.,0\n")
    assert fields(path)[0] == {"sentence1": "A man sings.", "sentence2": "A man is singing.", "score": "4.75"}
    assert places(path) == [1, 2]
    assert fields(put(tmp_path, "b.csv", "Where is it?,card\n")) == [{"column1": "Where is it?", "column2": "card"}]


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), min_size=1)
cell = cell.filter(lambda text: text not in MISSING_VALUES)  # such a cell is null


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries({"text": cell, "label": cell}), min_size=1, max_size=5))
def test_csv_reads_back_what_the_standard_library_wrote(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    assert fields(str(path)) == rows


def test_a_header_is_told_from_a_record(tmp_path, capsys):
    questions = "".join(f'"Name a thing. ({i})",Blue,Red,Green,Four,{"ABCD"[i % 4]}\n' for i in range(5))
    assert fields(put(tmp_path, "mmlu.csv", questions))[1] == {
        "question": "Name a thing. (1)", "A": "Blue", "B": "Red", "C": "Green", "D": "Four", "answer": "B",
    }  # fmt: skip
    assert (
        "mmlu.csv: no header: its first row is a record; the columns are called question, A, B"
        in capsys.readouterr().err
    )
    labels = "Where is my card,card_arrival\nIt is gone,lost_card\nHas it come,card_arrival\nHas it come,card_arrival\n"
    path = put(tmp_path, "labels.csv", labels)
    assert fields(path)[0] == {"column1": "Where is my card", "column2": "card_arrival"}, "a name does not come again"
    assert len(fields(path)) == 4, "equal records are no headers"
    for header in ("question,answer", "Frage,Antwort", "text,label", "What they asked,What was said"):
        assert list(fields(put(tmp_path, "named.csv", f"{header}\nWhere?,label\n"))[0]) == header.split(",")


def test_what_spreadsheets_leave(tmp_path):
    rows = [{"question": "a", "answer": "b"}, {"question": "c", "answer": ""}]
    assert fields(put(tmp_path, "a.csv", "sep=;\r\nquestion;answer\r\na;b\r\nc;\r\n")) == rows
    assert fields(put(tmp_path, "b.csv", '"sep=,"\nquestion,answer,,\na,b,,\n,,,\nc,,,\n')) == rows
    assert places(str(tmp_path / "a.csv")) == [3, 4]
    assert "c.csv:3: 4 cells, but the first row has 2" in fault(
        put(tmp_path, "c.csv", "question,answer,,\na,b,,\nc,d,,e\n")
    )
    assert fields(put(tmp_path, "d.csv", "question,,answer\na,x,b\n")) == [
        {"question": "a", "column2": "x", "answer": "b"}
    ]


def test_the_header_of_a_joined_file_is_no_row(tmp_path, capsys):
    path = put(tmp_path, "a.csv", "question,answer\na,b\nquestion,answer\nc,d\n")
    assert [row["question"] for row in fields(path)] == ["a", "c"]
    assert "a.csv: the header is repeated" in capsys.readouterr().err


def test_cells_without_a_value(tmp_path, capsys):
    path = put(tmp_path, "a.csv", "prompt,completion,margin,input\na,42.0,0.5,x\nNancy,,None,None\nnan,7.0,NaN,<NA>\n")
    assert fields(path) == [
        {"prompt": "a", "completion": "42", "margin": "0.5", "input": "x"},
        {"prompt": "Nancy", "completion": "", "margin": None, "input": "None"},
        {"prompt": None, "completion": "7", "margin": None, "input": None},
    ]
    said = capsys.readouterr().err
    assert "'completion' holds whole numbers" in said
    assert "cells that hold only 'nan' are read as missing values" in said
    assert "'None' in column 'input' is read as that word" in said
    assert fields(put(tmp_path, "b.csv", "text,label\nversion,2.0\nnext,3.0\n"))[0]["label"] == "2.0", "none is missing"


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        (
            'Who?\tJo.\n"Never, she said.\tA line.\nIt ended?\tthe word "done"\n',
            ["Who?", '"Never, she said.', "It ended?"],
        ),
        ('Title?\t"Never say never\nA lute?\tAn instrument.\nLast?\tit ended"\n', ["Title?", "A lute?", "Last?"]),
        ('"Kim"\twho\n"Emma"\twho, else\n', ['"Kim"', '"Emma"']),
        ('5" pipe\ta\n"x"\tb\n', ['5" pipe', '"x"']),
        ('""hi"" she said\ta\n', ['""hi"" she said']),
        ('"never closed\ta\n', ['"never closed']),
    ],
)
def test_in_a_corpus_with_tabs_a_quotation_mark_is_a_letter(tmp_path, text, cells, capsys):
    assert [row["question"] for row in fields(put(tmp_path, "a.tsv", "question\tanswer\n" + text))] == cells
    assert "quotation marks are read as ordinary characters" in capsys.readouterr().err


def test_one_column_with_tabs_has_letters_too(tmp_path):
    assert [row["text"] for row in fields(put(tmp_path, "a.tsv", 'text\n"He said\nno," she said\n'))] == [
        '"He said',
        'no," she said',
    ]


def test_a_quotation_mark_far_behind_is_a_letter_too(tmp_path):
    lines = [f"q{i}\ta{i}" for i in range(1500)]
    lines[700], lines[1400] = '"q700\ta', 'q1400\ta"'
    rows = fields(put(tmp_path, "a.tsv", "question\tanswer\n" + "\n".join(lines)))
    assert len(rows) == 1500
    assert (rows[700]["question"], rows[1400]["answer"]) == ('"q700', 'a"')


tabbed = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r\ufeff"), min_size=1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(tabbed, min_size=1, max_size=6), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
)
def test_tables_with_tabs_that_programs_quoted_are_read_back(texts, quoting):
    rows = [("id", "text", "label"), *((str(i), text, "x") for i, text in enumerate(texts))]
    target = io.StringIO()
    csv.writer(target, delimiter="\t", quoting=quoting, lineterminator="\n").writerows(rows)
    lines = enumerate(_lines(target.getvalue()), start=1)
    assert [tuple(cells) for _, cells in tab_records(lines, "a.tsv")] == rows


def _lines(text):
    return [line + "\n" for line in text.removesuffix("\n").split("\n")]
