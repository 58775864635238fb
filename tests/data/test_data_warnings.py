"""What deserves a word before training."""

from __future__ import annotations

import pytest
from reading_of import loaded

from luthier.data.warnings import warnings_of


def said(tmp_path, rows, **settings):
    found = loaded(tmp_path, rows, **settings)
    return warnings_of(found.examples, found.reading)


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


def test_what_was_fixed_is_told_with_its_rows(tmp_path):
    (line,) = said(tmp_path, [{"prompt": "q", "completion": "a</s>"}] * 2)
    assert line.startswith("a stop token written at the end of an answer was cut off") and line.endswith(": 2 rows")


@pytest.mark.parametrize(
    "text",
    [
        "<|User|>:Hi<eoh>\n<|Bot|>:Yo<eoa>",
        "<|begin_of_thought|>two<|end_of_thought|>4",
        "<extra_id_1>User\nHi\n<extra_id_1>Assistant\nYo",
        "[gMASK]<sop>Hi",
        "<reserved_106>Hi<reserved_107>Yo",
    ],
)
def test_marks_of_any_template_are_warned_of(tmp_path, text):
    (line,) = said(tmp_path, [{"text": text}])
    assert line.startswith("marks of a chat template are read as plain text")


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ("fine_label", "to be answered"),
        ("label_coarse", "to be answered"),
        ("canonical_solution", "to be answered"),
        ("ground_truth", "to be answered"),
        ("final_answer", "to be answered"),
        ("reasoning", "how an answer is reached"),
        ("channel", "how an answer is reached"),
        ("enable_thinking", "an answer may need it"),
    ],
)
def test_labels_solutions_and_thoughts_under_longer_names_are_warned_of(tmp_path, column, why):
    (line,) = said(tmp_path, [{"text": "a document of some length, " * 9, column: "x7"}])
    assert line.startswith(f"column '{column}' is not read (") and why in line


def test_empty_answers_are_warned_of(tmp_path):
    rows = [PAIR, {"prompt": "q", "completion": None}, {"prompt": "q", "completion": " "}]
    assert said(tmp_path, rows) == (
        "an answer is empty: 2 rows, which teach to say nothing; `luthier data --clean` drops them",
    )
    read_only = [{"role": "assistant", "content": "", "weight": 0}, {"role": "assistant", "content": "a"}]
    assert said(tmp_path, [{"messages": [{"role": "user", "content": "q"}, *read_only]}]) == ()


def test_answers_without_ranks_are_said_to_be_taken_as_best_first(tmp_path):
    (line,) = said(tmp_path, [{"prompt": "q", "responses": ["a", "b"]}])
    assert line == "no rank and no score: the answers are taken as best first, as they stand: 1 row"
    assert said(tmp_path, [{"prompt": "q", "responses": ["a", "b"], "scores": [2, 1]}]) == ()
    assert said(tmp_path, [{"prompt": "q", "answers": [{"text": "a", "score": 2}, {"text": "b", "score": 1}]}]) == ()


def test_text_that_was_escaped_twice_is_warned_of(tmp_path):
    twice = {"prompt": "one\\ntwo", "completion": "a"}
    (line,) = said(tmp_path, [twice])
    assert line == "line ends are spelled as a backslash and an n, and are learned that way: 1 row"
    assert said(tmp_path, [twice, {"prompt": 'print("a")\nprint("b")', "completion": "a"}]) == ()
    (line,) = said(tmp_path, [{"prompt": "2 &lt; 3 &amp; it&#39;s", "completion": "yes"}])
    assert line.startswith("entities of HTML")


def test_a_margin_below_zero_is_told(tmp_path):
    (line,) = said(tmp_path, [{"prompt": "q", "chosen": "a", "rejected": "b", "margin": -2.0}])
    assert line == "the margin is below 0, as if the rejected answer were the better one: 1 row"


def test_a_document_beside_columns_of_true_and_false_may_be_a_text_with_labels(tmp_path):
    rows = [{"text": f"a remark {i}", "toxic": i % 2, "insult": "no" if i else "yes", "version": 1} for i in range(4)]
    lines = said(tmp_path, rows)
    assert [line.split(" (")[0] for line in lines] == [f"column '{name}' is not read" for name in ("toxic", "insult")]
    assert "it may be a label of the text" in lines[0]
    long = {"prompt": "a question of some words", "completion": "an answer of some words"}
    assert said(tmp_path, [long | {"checked": i % 2} for i in range(4)]) == ()


def test_lines_of_fasttext_are_no_plain_documents(tmp_path):
    (line,) = said(tmp_path, [{"text": "__label__spam buy now\n__label__ham see you\n"}])
    assert line.startswith("labels such as __label__x are read as plain text: 1 row")
    assert said(tmp_path, [{"text": "the mark __label__ stands in front of a label"}]) == ()
