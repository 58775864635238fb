"""What deserves a word before training."""

from __future__ import annotations

import pytest
from reading_of import loaded

from luthier.data.warn import warnings_of


def said(tmp_path, rows, **settings):
    found = loaded(tmp_path, rows, **settings)
    return warnings_of(found.examples, found.about)


PAIR = {"prompt": "q", "completion": "a"}


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("intent", "x", "what is to be answered"),
        ("helpfulness", 3, "how good an answer is"),
        ("is_safe", False, "how good an answer is"),
        ("persona", "x", "an answer may need it"),
        ("notes", "a remark of many words, longer than the rest", "% of the text"),
    ],
)
def test_unread_columns_that_matter_are_warned_of(tmp_path, column, value, why):
    (line,) = said(tmp_path, [PAIR | {column: value}] * 3)
    assert line.startswith(f"column '{column}' is not read (") and why in line


def test_an_unread_column_is_told_the_field_that_suits_it(tmp_path):
    for column, field in {"thinking": "reasoning_content", "system_text": "system", "persona": "input"}.items():
        row = {"q": "q", "completion": "a", column: "a remark of many words"}
        (line,) = said(tmp_path, [row] * 3, columns={"prompt": "q"})
        assert f"; if it matters, --data.columns {field}={column} " in line
        assert said(tmp_path, [row] * 3, columns={"prompt": "q", field: column}) == ()


def test_who_named_the_column_of_the_answer_is_not_asked_whether_another_one_is(tmp_path):
    row = {"q": "q", "reply": "a", "category": "billing"}
    assert said(tmp_path, [row] * 3, columns={"prompt": "q", "completion": "reply"}) == ()


def test_names_of_rows_and_text_that_is_read_anyway_are_not(tmp_path):
    assert said(tmp_path, [PAIR | {"id": "0a7d-11e9-8b4c-0242", "source": "a long name of a source"}]) == ()
    turns = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": "yes"}]
    assert said(tmp_path, [{"messages": turns, "prompt": "a question"}]) == ()


def test_marks_of_templates_left_in_text_are_warned_of(tmp_path):
    chat = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
    (line,) = said(tmp_path, [{"text": chat}] * 2 + [{"text": "a document"}] * 3)
    assert "marks of a chat template are read as plain text" in line and "'<|im_start|>'" in line and "2 rows" in line
    (line,) = said(tmp_path, [{"prompt": "say [INST]", "completion": "a"}])
    assert "'[INST]'): 1 row" in line
    (line,) = said(tmp_path, [{"text": "Human: Hi\n\nAssistant: Yo"}], layout="text")
    assert line == "conversations are read as documents: 1 row; --data.layout templated reads their turns"


def test_places_for_pictures_are_warned_of(tmp_path):
    assert "place for a picture" in said(tmp_path, [{"prompt": "<image>What is it?", "completion": "a lute"}])[0]


def test_what_was_mended_is_told_with_its_rows(tmp_path):
    (line,) = said(tmp_path, [{"prompt": "q", "completion": "a</s>"}] * 2)
    assert line.startswith("a stop token written at the end of an answer was cut off") and line.endswith(": 2 rows")
