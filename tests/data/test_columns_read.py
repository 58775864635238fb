"""What was read as what, and what was not: no column is lost without a word."""

from __future__ import annotations

from reading_of import loaded


def test_the_line_names_what_is_read_and_what_is_not(tmp_path):
    rows = [{"utterance": "hello", "category": "greeting", "intent": "hi", "tags": ["x"], "empty": ""}] * 3
    about = loaded(tmp_path, rows).reading
    assert about.lines() == ["read: text = utterance, label = category; not read: intent, tags"]
    assert about.as_dict() == {
        "read": {"text": "utterance", "label": "category"}, "unread": ["intent", "tags"], "codes": {}, "corrected": {},
    }  # fmt: skip


def test_columns_of_few_rows_and_rows_far_down_are_told_of(tmp_path):
    rows = [{"prompt": "q", "completion": "a"}] * 300 + [{"prompt": "q", "completion": "a", "remark": "see below"}]
    about = loaded(tmp_path, rows).reading
    assert about.unread == ("remark",)
    assert about.lines() == ["read: prompt, completion; not read: remark (in 1 of 301 rows)"]


def test_rows_that_name_a_field_differently_are_all_told_of(tmp_path):
    rows = [{"prompt": "q", "completion": "a"}] * 3 + [{"prompt": "q", "answer": "a"}] * 2
    found = loaded(tmp_path, rows)
    assert [example.messages[-1].content for example in found.examples] == ["a"] * 5
    assert found.reading.lines() == ["read: prompt, completion = completion or answer; not read: nothing"]


def test_of_two_columns_for_a_field_the_one_that_holds_something_is_read(tmp_path):
    rows = [{"prompt": "q", "completion": None, "answer": "a"}] * 2
    found = loaded(tmp_path, rows)
    assert found.examples[0].messages[-1].content == "a"
    assert found.reading.read == {"prompt": "prompt", "completion": "answer"}


def test_keys_of_turns_and_of_answers_that_nothing_reads_join_the_line(tmp_path):
    turns = [{"role": "user", "content": "q", "mood": "calm"}, {"role": "assistant", "content": "a"}]
    assert loaded(tmp_path, [{"messages": turns}]).reading.unread == ("messages.mood",)
    answers = [{"text": "a", "score": 2, "critique": "good"}, {"text": "b", "score": 1, "critique": "bad"}]
    assert loaded(tmp_path, [{"prompt": "q", "responses": answers}]).reading.unread == ("responses.critique",)


def test_codes_are_counted_ties_too(tmp_path):
    row = {"instruction": "q", "output_1": "a", "output_2": "b"}
    rows = [row | {"preference": value} for value in (1, 1, 2, 1.5)]
    about = loaded(tmp_path, rows).reading
    assert about.lines()[1] == "preference 1 -> output_1 better: 2; 2 -> output_2 better: 1; 1.5 -> a tie: 1"
    assert about.as_dict()["codes"]["2"] == {"means": "output_2 better", "rows": 1}


def test_many_codes_that_mean_the_same_stand_together(tmp_path):
    row = {"instruction": "q", "output_1": "a", "output_2": "b"}
    rows = [row | {"preference": 1 + i / 100} for i in range(30)] + [row | {"preference": 2}]
    assert loaded(tmp_path, rows).reading.codes == {
        "1.0 and 29 more": ("output_1 better", 30),
        "2": ("output_2 better", 1),
    }


def test_mixed_rows_are_read_each_by_its_own_layout(tmp_path):
    rows = [{"text": "a document", "source": "s"}, {"prompt": "q", "completion": "a"}]
    about = loaded(tmp_path, rows, layout="mixed").reading
    assert about.read == {"text": "text", "prompt": "prompt", "completion": "completion"}
    assert about.unread == ("source",)
