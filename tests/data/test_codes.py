"""Which answer a code calls the better one; what could mean two things is refused."""

from __future__ import annotations

import pytest
from reading_of import loaded

from luthier.core.errors import InputError
from sentences import sentence

ONE, TWO = "first answer", "second answer"


def rows_of(columns, field, codes, **more):
    first, second = columns
    return [{"prompt": "q", first: ONE, second: TWO, field: code, **more} for code in codes]


def chosen(found):
    return [1 if example.chosen[0].content == ONE else 2 for example in found.examples]


NAMED = [
    (("output_1", "output_2"), "preference", [1, 2, 2], [1, 2, 2]),
    (("output_1", "output_2"), "preference", [1.2, 1.9, 1.0], [1, 2, 1]),
    (("response_0", "response_1"), "better_response_id", [0, 1, 1], [1, 2, 2]),
    (("response_a", "response_b"), "winner", ["a", "B", "a"], [1, 2, 1]),
    (("response_a", "response_b"), "winner", ["response_a", "model_b", "A"], [1, 2, 1]),
    (("answer_a", "answer_b"), "verdict", ["A>B", "B>>A", "[[A]]"], [1, 2, 1]),
    (("answer_a", "answer_b"), "label", [1, 2, 2], [1, 2, 2]),
    (("conversation_a", "conversation_b"), "winner", ["model_a", "model_b", "model_b"], [1, 2, 2]),
]


@pytest.mark.parametrize(("columns", "field", "codes", "expected"), NAMED)
def test_codes_that_name_an_answer_are_understood(tmp_path, columns, field, codes, expected):
    assert chosen(loaded(tmp_path, rows_of(columns, field, codes))) == expected


@pytest.mark.parametrize("tie", ["tie", "tie (bothbad)", "both", "A=B", "[[C]]", None])
def test_ties_give_no_example(tmp_path, tie):
    found = loaded(tmp_path, rows_of(("response_a", "response_b"), "winner", ["a", tie, "b"]))
    assert chosen(found) == [1, 2] and found.unused.count == 1


TWO_THINGS, NOBODY = "preference could mean two things", "preference names no response"
AMBIGUOUS = [
    (("output_1", "output_2"), "preference", [0, 1, 0, 1], TWO_THINGS),
    (("output_1", "output_2"), "preference", [0, 1, 2, 0], TWO_THINGS),  # 0 a tie, or 2?
    (("output_1", "output_2"), "preference", [0, 0], TWO_THINGS),
    (("response_a", "response_b"), "label", [0, 1], TWO_THINGS),
    (("response_a", "response_b"), "label", [1, 1], TWO_THINGS),
    (("response_0", "response_1"), "label", [0, 1, 2], TWO_THINGS),
    (("response_a", "response_b"), "preference", [True, False], NOBODY),
    (("response_a", "response_b"), "preference", [-1, 0, 1], TWO_THINGS),
    (("response_a", "response_b"), "winner", ["gpt", "llama"], NOBODY),
    (("response1", "response2"), "overall_preference", [-3, 2, 1], TWO_THINGS),
]


@pytest.mark.parametrize(("columns", "field", "codes", "fault"), AMBIGUOUS)
def test_what_could_mean_two_things_is_refused_until_it_is_said(tmp_path, columns, field, codes, fault):
    rows = rows_of(columns, field, codes)
    with pytest.raises(InputError, match=sentence(fault, where="rows.jsonl:1", column=field)):
        loaded(tmp_path, rows)
    means = {
        str(code): target for code, target in zip(dict.fromkeys(codes), ("output_2", "output_1", "tie"), strict=False)
    }
    if len(means) > 1:
        first = loaded(tmp_path, rows, values=means)
        assert chosen(first)[0] == 2, "as it was said, not as it was guessed"


def test_meanings_that_are_unknown_and_values_that_are_not_listed(tmp_path):
    rows = rows_of(("output_1", "output_2"), "preference", [0, 1])
    with pytest.raises(InputError, match=sentence("unknown meaning", meaning="first")):
        loaded(tmp_path, rows, values={"0": "first", "1": "output_2"})
    with pytest.raises(InputError, match=sentence("value without a meaning", where="rows.jsonl:2", value=1)):
        loaded(tmp_path, rows, values={"0": "output_1"})
    with pytest.raises(InputError, match=sentence("no coded field")):
        loaded(tmp_path, [{"prompt": "q", "completion": "a"}], values={"0": "output_1"})


def test_a_code_far_down_settles_all_rows(tmp_path):
    """Sorted files: two hundred rows of 1 say nothing yet."""
    rows = rows_of(("output_1", "output_2"), "preference", [1] * 300 + [0] * 300)
    with pytest.raises(InputError, match=sentence("preference could mean two things", values="'0', '1'")):
        loaded(tmp_path, rows)


def test_scores_decide_what_0_and_1_mean(tmp_path):
    """SHP: 1 is human_ref_A, which the scores tell."""
    columns = ("human_ref_A", "human_ref_B")
    rows = [
        {"history": "q", columns[0]: ONE, columns[1]: TWO, "labels": label, "score_A": 9 * label, "score_B": 4}
        for label in (0, 1, 1)
    ]
    assert chosen(loaded(tmp_path, rows)) == [2, 1, 1]
    for row in rows:
        row["score_A"] = 9  # now the labels say the contrary in a third of the rows
    with pytest.raises(InputError, match=sentence("values and scores contradict")):
        loaded(tmp_path, rows)


def test_scores_alone_and_winners_of_their_own_columns(tmp_path):
    scored = [{"question": "q", "answer_0": ONE, "answer_1": TWO, "score_0": s, "score_1": 0} for s in (1.0, -1.0, 0)]
    found = loaded(tmp_path, scored)
    assert chosen(found) == [1, 2] and found.unused.count == 1
    won = [
        {"prompt": "q", "response_a": ONE, "response_b": TWO, "winner_model_a": a, "winner_model_b": b, "winner_tie": t}
        for a, b, t in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    assert chosen(loaded(tmp_path, won)) == [1, 2]


def test_scores_that_say_the_contrary_are_refused(tmp_path):
    rows = rows_of(("response_a", "response_b"), "winner", ["a", "a"], score_a=1, score_b=5)
    with pytest.raises(InputError, match=sentence("scores contradict the column", column="winner", odd=2, rows=2)):
        loaded(tmp_path, rows)
    turned = [{"prompt": "q", "chosen": ONE, "rejected": TWO, "score_chosen": 3, "score_rejected": 8}] * 2
    with pytest.raises(InputError, match=sentence("preference reversed")):
        loaded(tmp_path, turned)
    one = {"prompt": "q", "chosen": ONE, "rejected": TWO, "score_chosen": 8, "score_rejected": 3}
    assert loaded(tmp_path, [one, one, *turned[:1]]).reading.corrected == {
        "the rejected answer has the higher score": 1
    }


def test_two_answers_in_a_list_count_from_0(tmp_path):
    rows = [{"prompt": "q", "responses": [ONE, TWO], "preferred": place} for place in (0, 1)]
    assert chosen(loaded(tmp_path, rows)) == [1, 2]
    with pytest.raises(InputError, match=sentence("preference could mean two things", values="'1'")):
        loaded(tmp_path, rows[1:])


def test_labels_of_single_answers(tmp_path):
    rows = [{"prompt": "q", "completion": "a", "label": label} for label in ("good", "bad")]
    with pytest.raises(InputError, match=sentence("label neither true nor false", label="good")):
        loaded(tmp_path, rows)
    found = loaded(tmp_path, rows, values={"good": "true", "bad": "false"})
    assert [example.label for example in found.examples] == [True, False]
    assert found.reading.lines()[1] == "label good -> wanted: 1; bad -> unwanted: 1"


def test_numbers_of_classes_get_names(tmp_path):
    rows = [{"text": "t", "label": 0}, {"text": "u", "label": 1}]
    found = loaded(tmp_path, rows, values={"0": "calm", "1": "angry"})
    assert [example.messages[-1].content for example in found.examples] == ["calm", "angry"]


def test_codes_of_mixed_rows_are_settled_too(tmp_path):
    rows = [*rows_of(("output_1", "output_2"), "preference", [0, 1]), {"text": "a document"}]
    with pytest.raises(InputError, match=sentence("preference could mean two things")):
        loaded(tmp_path, rows, layout="mixed")
    found = loaded(tmp_path, rows, layout="mixed", values={"1": "output_1", "0": "output_2"})
    assert chosen(type(found)(found.layout, found.reading, found.examples[:2], (), found.skipped, found.unused)) == [
        2,
        1,
    ]
