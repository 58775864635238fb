"""Multiple choice: refused, or read with its choices."""

from __future__ import annotations

import pytest
from reading_of import loaded

from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Message
from sentences import sentence

TEXTS = ("red", "green", "blue", "grey")


def questions(answers, **columns):
    return [{"question": f"Which one, {i}?", **columns, "answer": answer} for i, answer in enumerate(answers)]


SPREAD = dict(zip("ABCD", TEXTS, strict=True))
KINDS = [  # rows of three questions, whose right answers are B, D and A
    questions("BDA", choices=list(TEXTS)),
    questions("BDA", options=SPREAD),
    questions("BDA", **SPREAD),
    questions(["(B)", "d.", "a"], choices=list(TEXTS)),
    questions(["green", "grey", "red"], choices=list(TEXTS)),
    questions([1, 3, 0], choices=list(TEXTS)),
    questions(["2", "4", "1"], choices=list(TEXTS)),
    questions(["B", "D", "A"], choices={"text": list(TEXTS), "label": list("ABCD")}),
    questions(["2", "4", "1"], choices={"text": list(TEXTS), "label": ["1", "2", "3", "4"]}),
    questions("BDA", choices=[{"label": label, "text": text} for label, text in SPREAD.items()]),
    questions("BDA", options=[f"{label}) {text}" for label, text in SPREAD.items()]),
    questions([1, 3, 0], **{f"choice{i}": text for i, text in enumerate(TEXTS)}),
    questions([1, 3, 0], **{f"ending_{i}": text for i, text in enumerate(TEXTS)}),
    questions([2, 4, 1], **{f"option{i}": text for i, text in enumerate(TEXTS, 1)}),
    questions(["option_b", "option_d", "option_a"], **{f"option_{label.lower()}": text for label, text in SPREAD.items()}),
    [row | {"cop": row.pop("answer")} for row in questions([1, 3, 0], **{f"op{x}": t for x, t in zip("abcd", TEXTS, strict=True)})],
]  # fmt: skip


@pytest.mark.parametrize("rows", KINDS)
def test_without_its_choices_it_is_refused_with_them_it_is_read(tmp_path, rows):
    with pytest.raises(InputError, match=sentence("choices without choices")):
        loaded(tmp_path, rows)
    found = loaded(tmp_path, rows, layout="choice")
    assert [example.messages[-1].content for example in found.examples] == ["B", "D", "A"]
    first = found.examples[0]
    assert isinstance(first, Chat)
    assert first.messages == (
        Message("user", "Which one, 0?\nA. red\nB. green\nC. blue\nD. grey\nAnswer:"),
        Message("assistant", "B"),
    )


def test_a_passage_stands_before_the_question(tmp_path):
    rows = [{"article": "Text.", "question": "Which?", "options": ["x", "y"], "answer": "A"}]
    (example,) = loaded(tmp_path, rows, layout="choice").examples
    assert example.messages[0].content == "Text.\n\nWhich?\nA. x\nB. y\nAnswer:"


def test_wrong_answers_beside_the_right_one(tmp_path):
    """SciQ: no place may tell the right one, so the choices stand in the order of the alphabet."""
    row = {"question": "q", "distractor1": "zinc", "distractor2": "air", "correct_answer": "mist", "support": "s"}
    with pytest.raises(InputError, match=sentence("choices without choices")):
        loaded(tmp_path, [row])
    (example,) = loaded(tmp_path, [row], layout="choice").examples
    assert [turn.content for turn in example.messages] == ["s\n\nq\nA. air\nB. mist\nC. zinc\nAnswer:", "B"]


def test_truth_values_beside_choices(tmp_path):
    rows = [{"question": "q", "mc1_targets": {"choices": ["x", "y"], "labels": [0, 1]}}]
    assert loaded(tmp_path, rows, layout="choice").examples[0].messages[-1].content == "B"


def test_numbers_that_could_count_from_0_or_1(tmp_path):
    rows = questions([1, 2, 3], choices=list(TEXTS))
    with pytest.raises(
        InputError,
        match=sentence("answers could name choices in several ways", ways="numbers from 0 or as numbers from 1"),
    ):
        loaded(tmp_path, rows, layout="choice")
    found = loaded(tmp_path, rows, layout="choice", values={"1": "A", "2": "B", "3": "C"})
    assert [example.messages[-1].content for example in found.examples] == ["A", "B", "C"]
    assert found.reading.lines()[1] == "answer 1 -> A: 1; 2 -> B: 1; 3 -> C: 1"
    with pytest.raises(
        InputError,
        match=sentence(
            "answers could name choices in several ways", ways="their text or as numbers from 0 or as numbers from 1"
        ),
    ):
        loaded(tmp_path, questions([3, 3], choices=["2", "3", "4", "5"]), layout="choice")


def test_an_answer_that_names_no_choice(tmp_path):
    with pytest.raises(InputError, match=sentence("answer names no choice", where="rows.jsonl:2", answer="E", count=4)):
        loaded(tmp_path, questions("BE", choices=list(TEXTS)), layout="choice")


def test_settings_that_are_called_options_are_no_choices(tmp_path):
    rows = [{"question": "q", "answer": "a", "options": {"temperature": 1}}]
    assert loaded(tmp_path, rows).layout.name == "prompt_completion"
