"""Rows -> examples, a case for every layout, and the errors of rows that fit none."""

import pytest

from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Labelled, Message, Origin, Pair, Preference, Prompt, Ranking, Text
from luthier.data.columns_read import describe_columns
from luthier.data.convert import rows_with_examples, to_examples
from luthier.data.detect import detect
from luthier.data.layout_codes import with_codes
from luthier.data.layout_table import LAYOUTS
from luthier.data.read import Row
from sentences import sentence

ASK, YES, NO = Message("user", "q"), Message("assistant", "yes"), Message("assistant", "no")
RULE = Message("system", "s")
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "yes"}]
OTHER = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "no"}]
SAID = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "yes"}]

# (fields of a row, the layout they are detected as, the example they make)
CASES = [
    ({"text": "a"}, "text", Text("a")),
    ({"content": "a", "url": "u"}, "text", Text("a")),
    ({"instruction": "q", "output": "yes"}, "alpaca", Chat((ASK, YES))),
    ({"instruction": "q", "input": "", "output": "yes"}, "alpaca", Chat((ASK, YES))),
    ({"instruction": "q", "input": "i", "output": "yes"}, "alpaca", Chat((Message("user", "q", input="i"), YES))),
    ({"instruction": "q", "context": "i", "response": "yes"}, "alpaca", Chat((Message("user", "q", input="i"), YES))),
    (
        {"instruction": "q", "output": "yes", "system": "s", "history": [["h", "no"]]},
        "alpaca",
        Chat((RULE, Message("user", "h"), NO, ASK, YES)),
    ),
    ({"instruction": "q", "output": "yes", "history": ""}, "alpaca", Chat((ASK, YES))),
    ({"conversations": SAID}, "sharegpt", Chat((ASK, YES))),
    ({"conversations": SAID, "system": "s", "tools": ""}, "sharegpt", Chat((RULE, ASK, YES))),
    ({"messages": TURNS}, "chat", Chat((ASK, YES))),
    ({"conversations": TURNS}, "chat", Chat((ASK, YES))),
    ({"prompt": "q", "completion": "yes"}, "prompt_completion", Chat((ASK, YES))),
    ({"question": "q", "answer": "yes", "id": 3}, "prompt_completion", Chat((ASK, YES))),
    ({"Question": "q", "Answer": 42}, "prompt_completion", Chat((ASK, Message("assistant", "42")))),
    ({"query": "q", "response": "yes"}, "prompt_completion", Chat((ASK, YES))),
    ({"input": "q", "output": "yes"}, "prompt_completion", Chat((ASK, YES))),
    ({"prompt": TURNS[:1], "completion": TURNS[1:]}, "prompt_completion", Chat((ASK, YES))),
    ({"text": "q", "category": "yes"}, "labels", Chat((ASK, YES))),
    ({"text": "q", "label": 3}, "labels", Chat((ASK, Message("assistant", "3")))),
    ({"text": "q", "label": [[0, 1, "X"]]}, "spans", Chat((ASK, Message("assistant", '{"X": ["q"]}')))),
    ({"tokens": ["q"], "ner_tags": ["B-X"]}, "tagged", Chat((ASK, Message("assistant", '{"X": ["q"]}')))),
    ({"prompt": "q", "chosen": "yes", "rejected": "no"}, "preference", Preference((ASK,), (YES,), (NO,))),
    ({"prompt": "q", "chosen": TURNS, "rejected": OTHER}, "preference", Preference((ASK,), (YES,), (NO,))),
    ({"chosen": TURNS, "rejected": OTHER, "margin": 2}, "preference", Preference((ASK,), (YES,), (NO,), 2.0)),
    (
        {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": OTHER[1:]},
        "preference",
        Preference((ASK,), (YES,), (NO,)),
    ),
    (
        {"conversations": SAID[:1], "chosen": SAID[1], "rejected": {"from": "gpt", "value": "no"}},
        "preference",
        Preference((ASK,), (YES,), (NO,)),
    ),
    (
        {"instruction": "q", "input": "i", "output": "yes", "chosen": "yes", "rejected": "no"},
        "preference",
        Preference((Message("user", "q", input="i"),), (YES,), (NO,)),
    ),
    ({"accepted": "yes", "rejected": "no"}, "preference", Preference((), (YES,), (NO,))),
    (
        {"chosen": "\n\nHuman: q\n\nAssistant: yes", "rejected": "\n\nHuman: q\n\nAssistant: no"},
        "preference",
        Preference((ASK,), (YES,), (NO,)),
    ),
    (  # one dialogue ends earlier: each side keeps at least one turn
        {"chosen": "Human: q\n\nAssistant: yes\n\nHuman: q\n\nAssistant: no", "rejected": "Human: q\n\nAssistant: yes"},
        "preference",
        Preference((ASK,), (YES, ASK, NO), (YES,)),
    ),
    ({"prompt": "q", "completion": "no", "label": False}, "unpaired", Labelled((ASK,), (NO,), False)),
    ({"prompt": "q", "completion": "yes", "label": "true"}, "unpaired", Labelled((ASK,), (YES,), True)),
    ({"messages": OTHER, "label": 0}, "unpaired_chat", Labelled((ASK,), (NO,), False)),
    ({"prompt": "q", "responses": ["yes", "no"]}, "ranking", Ranking((ASK,), ((YES,), (NO,)), (1, 2))),
    (
        {"prompt": "q", "responses": ["no", "yes", "no"], "ranks": [2, 1, 2]},
        "ranking",
        Ranking((ASK,), ((NO,), (YES,), (NO,)), (2, 1, 2)),
    ),
    (
        {"instruction": "q", "output_1": "yes", "output_2": "no", "preference": 1.2},
        "comparison",
        Preference((ASK,), (YES,), (NO,)),
    ),
    (
        {"instruction": "q", "output_1": "no", "output_2": "yes", "preference": 2},
        "comparison",
        Preference((ASK,), (YES,), (NO,)),
    ),
    (
        {"post": "q", "summaries": [{"text": "no", "policy": "x"}, {"text": "yes"}], "choice": "b"},
        "comparison_list",
        Preference((ASK,), (YES,), (NO,)),
    ),
    ({"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"}, "templated", Chat((ASK, YES))),
    (
        {
            "id": 1,
            "data": {"text": "q"},
            "annotations": [{"result": [{"type": "choices", "value": {"choices": ["yes"]}}]}],
        },
        "label_studio",
        Chat((ASK, YES)),
    ),
    ({"anchor": "a", "positive": "b"}, "pair", Pair(("a", "b"))),
    ({"sentence1": "a", "sentence2": "b", "score": "4.5"}, "pair", Pair(("a", "b"), 4.5)),
    ({"text1": "a", "text2": "b", "score": None}, "pair", Pair(("a", "b"))),
    ({"query": "a", "positive": "b", "negative": "c"}, "triplet", Pair(("a", "b", "c"))),
    ({"prompt": "q", "id": 1}, "prompt", Prompt((ASK,))),
]


@pytest.mark.parametrize(("fields", "name", "expected"), CASES)
def test_layout_is_detected_and_parsed(fields, name, expected):
    rows = [Row(fields, Origin())] * 3
    layout = with_codes(detect(rows, {}), rows, {}, {})
    assert layout.name == name
    assert list(to_examples(rows, layout, {})) == [expected] * 3
    assert isinstance(expected, layout.example)


def test_every_layout_has_a_case():
    assert {name for _, name, _ in CASES} == set(LAYOUTS) - {
        "choice"
    }  # which is declared, never detected: test_multiple_choice.py


def rows_of(*fields):
    return [Row(item, Origin("f.jsonl", i)) for i, item in enumerate(fields, start=1)]


def fault(rows, columns=None, **options):
    columns = columns or {}
    with pytest.raises(InputError) as caught:
        list(to_examples(rows, detect(rows, columns, **options), columns))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_key_error_instruction_becomes_file_line_found_and_needed():
    """The fault axolotl#879, LLaMA-Factory#5503 and others report as KeyError: 'instruction'."""
    rows = rows_of(
        {"instruction": "q", "output": "yes"}, {"instruction": "q", "output": "yes"}, {"prompt": "q", "output": "yes"}
    )
    assert fault(rows).startswith(
        "f.jsonl:3: no field 'instruction': found prompt, output; layout 'alpaca' needs instruction, output;"
    )


def test_bad_rows_are_skipped_and_counted_on_demand_and_groups_are_kept():
    rows = rows_of({"text": "a", "doc": 7}, {"text": [1], "doc": 7}, {"doc": 8})
    left = []
    examples = list(
        to_examples(rows, LAYOUTS["text"], {}, group="doc", skipped=lambda o, why: left.append((o.line, why)))
    )
    assert [(e.text, e.group, e.origin.line) for e in examples] == [("a", "7", 1)]
    assert [line for line, _ in left] == [2, 3]


def test_unknown_layout_tells_what_was_found_and_what_is_near():
    message = fault(rows_of({"question": "q", "solution": "yes"}))
    assert message.startswith(
        "f.jsonl:1: unknown layout: found question, solution; nearest: prompt_completion (lacks completion)"
    )
    assert "--data.columns completion=COLUMN" in message
    assert "alpaca" in fault(rows_of({"foo": 1}))


def test_columns_of_any_name_are_told_to_be_a_prompt_and_a_completion_too():
    message = fault(rows_of({"customer": "q", "reply": "a", "category": "billing"}))
    assert message.endswith("--data.columns text=COLUMN, or prompt=COLUMN,completion=COLUMN for questions with answers")


def test_reasoning_in_a_column_of_its_own_is_the_thought_before_the_answer():
    why = {"reasoning_content": "why"}
    for row in (
        {"instruction": "q", "output": "4", "why": "2 + 2"},
        {"prompt": "q", "completion": "4", "why": "2 + 2"},
    ):
        (example,) = to_examples(rows_of(row), detect(rows_of(row), why), why)
        assert (example.messages[-1].content, example.messages[-1].reasoning) == ("4", "2 + 2")
        assert not next(iter(to_examples(rows_of(row), detect(rows_of(row), {}), {}))).messages[-1].reasoning
    said = rows_of({"prompt": "q", "completion": "<think>2 + 2</think>4", "reasoning_content": "2 + 2"})
    assert not next(iter(to_examples(said, detect(said, {}), {}))).messages[-1].fields
    other = rows_of({"prompt": "q", "completion": "<think>one</think>4", "reasoning_content": "two"})
    with pytest.raises(InputError, match=sentence("reasoning twice")):
        list(to_examples(other, detect(other, {}), {}))


def test_files_of_several_kinds_are_not_blamed_on_one():
    rows = rows_of({"instruction": "q", "output": "a"}, {"prompt": "q"}, {"text": "t"})
    assert "the files differ: no field is in most of their rows; give them one by one" in fault(rows)


def test_multiple_choice_is_not_mistaken_for_questions_with_answers():
    assert "multiple-choice" in fault(rows_of({"question": "q", "choices": ["a", "b"], "answer": 1}))


def test_columns_are_mapped_by_any_name_of_a_field():
    rows = rows_of({"question": "q", "Best Answer": "yes", "answer": "no"})
    for name in ("completion", "answer", "output"):
        columns = {name: "best_answer"}
        layout = detect(rows, columns)
        assert layout.name == "prompt_completion"
        assert next(to_examples(rows, layout, columns)).messages == (ASK, YES)
    assert describe_columns(layout, rows, columns).unread == ("answer",)


def test_wrong_mappings_are_errors():
    rows = rows_of({"question": "q", "answer": "yes"})
    assert "did you mean 'output'" in fault(rows, {"outptu": "answer"})
    assert "did you mean 'answer'" in fault(rows, {"output": "anwser"})
    assert "unknown layout 'alpac'; did you mean 'alpaca'" in fault(rows, declared="alpac")
    assert "unknown field of layout 'text'" in fault(rows, {"label": "answer"}, declared="text")


def test_declared_layout_reads_a_reference_answer():
    rows = rows_of({"prompt": "q", "answer": "yes"})
    assert list(to_examples(rows, detect(rows, {}, declared="prompt"), {})) == [
        Prompt((ASK,), "yes", origin=Origin("f.jsonl", 1))
    ]


@pytest.mark.parametrize("verdict", [1.5, 0, None])
def test_ties_are_left_out_and_counted_but_are_no_errors(verdict):
    rows = rows_of({"instruction": "q", "output_1": "yes", "output_2": "no", "preference": verdict})
    ties = []
    assert (
        list(rows_with_examples(rows, LAYOUTS["comparison"], {}, unused=lambda o, why: ties.append((o.line, why))))
        == []
    )
    assert ties == [(1, "a tie: neither answer is preferred")]
    assert list(to_examples(rows, LAYOUTS["comparison"], {})) == []


@pytest.mark.parametrize(
    ("name", "fields", "fault"),
    [
        (
            "comparison",
            {"instruction": "q", "output_1": "a", "output_2": "b", "preference": 3},
            "preference out of range",
        ),
        ("unpaired", {"prompt": "q", "completion": "a", "label": "maybe"}, "label neither true nor false"),
        ("unpaired_chat", {"messages": TURNS[:1], "label": True}, "conversation without an answer"),
        ("chat", {"messages": []}, "conversation empty"),
        ("chat", {"messages": "hello"}, "messages as text"),
        ("ranking", {"prompt": "q", "responses": ["a"]}, "not a list of answers"),
        ("ranking", {"prompt": "q", "responses": ["a", "b"], "ranks": [1]}, "ranks not one a response"),
        ("ranking", {"prompt": "q", "responses": ["a", "b"], "ranks": [1, 1.5]}, "ranks not one a response"),
        ("pair", {"sentence1": "a", "sentence2": "b", "score": "high"}, "score not a number"),
        ("pair", {"sentence1": "a", "sentence2": "b", "score": float("nan")}, "number not finite"),
        ("alpaca", {"instruction": {"a": 1}, "output": "b"}, "field not text"),
        ("alpaca", {"instruction": "a", "output": "b", "history": ["x"]}, "history not pairs"),
        ("alpaca", {"instruction": "a", "output": "b", "history": 5}, "history not pairs"),
        (
            "preference",
            {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 10**400},
            "number beyond range",
        ),
    ],
)
def test_bad_values_name_file_and_line(name, fields, fault):
    with pytest.raises(InputError, match="^" + sentence(fault, where="f.jsonl:1")):
        list(to_examples(rows_of(fields), LAYOUTS[name], {}))


def test_detection_forgives_single_rows_and_empty_columns():
    good = {"instruction": "q", "output": "yes", "chosen": None, "rejected": None}
    assert detect(rows_of(good, good, {"foo": 1}), {}).name == "alpaca"


def test_unknown_group_column():
    with pytest.raises(InputError, match=sentence("no field to group by")):
        list(to_examples(rows_of({"text": "a"}), LAYOUTS["text"], {}, group="doc"))
