"""Rows as public data sets write them: read as what they are, or refused with the cause."""

from __future__ import annotations

import pytest
from reading_of import loaded

from luthier.core.errors import InputError
from luthier.core.types.examples import Message
from luthier.data.example_text import answer_text, prompt_text
from sentences import sentence


def turn(role, content):
    return {"role": role, "content": content}


# name -> (rows, layout, prompt of the first row, its answer, columns that are not read)
READ = {
    "question, context, answer": (
        [{"question": "q", "context": "c", "answer": "a"}], "prompt_completion", "q\n\nc", "a", ()
    ),
    "prompt, input, output": ([{"prompt": "q", "input": "c", "output": "a"}], "prompt_completion", "q\n\nc", "a", ()),
    "squad": (
        [{"question": "q", "context": "c", "answers": {"text": ["a", "b"], "answer_start": [0, 1]}, "id": "x"}],
        "prompt_completion", "q\n\nc", "a", ("id",),
    ),
    "dolly": (
        [{"instruction": "q", "context": "", "response": "a", "category": "qa"}], "alpaca", "q", "a", ("category",)
    ),
    "capybara": (
        [{"conversation": [{"input": "q", "output": "a"}, {"input": "r", "output": "b"}]}], "chat", "q\n\na\n\nr", "b", ()
    ),
    "orca dpo": (
        [{"system": "s", "question": "q", "chosen": "a", "rejected": "b"}], "preference", "s\n\nq", "a", ()
    ),
    "orca dpo of argilla": (
        [{"system": "", "input": "q", "chosen": "a", "rejected": "b", "generations": ["a", "b"], "rating": [5, 1]}],
        "preference", "q", "a", ("generations", "rating"),
    ),
    "openai preference": (
        [{"input": {"messages": [turn("user", "q")]}, "preferred_output": [turn("assistant", "a")],
          "non_preferred_output": [turn("assistant", "b")]}],
        "preference", "q", "a", (),
    ),
    "ultrafeedback binarized": (
        [{"prompt": "q", "chosen": [turn("user", "q"), turn("assistant", "a")], "score_chosen": 8.0, "score_rejected": 3.0,
          "rejected": [turn("user", "q"), turn("assistant", "b")], "messages": [turn("user", "q"), turn("assistant", "a")]}],
        "preference", "q", "a", (),
    ),
    "prompt beside the conversation of its answer": (
        [{"prompt": "q", "chosen": "a", "rejected": "b", "messages": [turn("user", "q"), turn("assistant", "a")]}],
        "preference", "q", "a", (),
    ),
    "stack exchange pairs": ([{"question": "q", "response_j": "a", "response_k": "b"}], "preference", "q", "a", ()),
    "nectar": (
        [{"prompt": "\n\nHuman: q\n\nAssistant: ", "answers": [{"answer": "b", "rank": 2.0}, {"answer": "a", "rank": 1.0}]}],
        "ranking", "q", "a", (),
    ),
    "distilabel": (
        [{"instruction": "q", "generations": ["b", "a"], "ratings": [1, 5], "rationales": ["x", "y"]}],
        "ranking", "q", "a", ("rationales",),
    ),
    "chatbot arena": (
        [{"winner": "model_b", "conversation_a": [turn("user", "q"), turn("assistant", "b")],
          "conversation_b": [turn("user", "q"), turn("assistant", "a")], "judge": "j"}],
        "comparison", "q", "a", ("judge",),
    ),
    "pku safe rlhf": (
        [{"prompt": "q", "response_0": "b", "response_1": "a", "better_response_id": 1, "safer_response_id": 0}],
        "comparison", "q", "a", ("safer_response_id",),
    ),
    "webgpt": (
        [{"question": {"dataset": "d", "full_text": "q"}, "answer_0": "b", "answer_1": "a", "score_0": -1, "score_1": 1}],
        "comparison", "q", "a", (),
    ),
    "summaries from feedback": (
        [{"info": {"post": "q"}, "summaries": [{"text": "b"}, {"text": "a"}], "choice": choice} for choice in (1, 0)],
        "comparison_list", "q", "a", (),
    ),
    "doccano": ([{"id": 0, "text": "q", "label": ["a"]}], "labels", "q", "a", ("id",)),
    "names of classes": ([{"text": "q", "label": 3, "label_text": "a"}], "labels", "q", "a", ("label",)),
    "label studio": (
        [{"id": 1, "data": {"text": "q"}, "annotations": [{"result": [{"type": "choices", "value": {"choices": ["a"]}}]}]}],
        "label_studio", "q", "a", ("id",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_read_as_what_they_are(tmp_path, name):
    rows, layout, prompt, answer, unread = READ[name]
    found = loaded(tmp_path, rows)
    assert found.layout.name == layout
    assert (prompt_text(found.examples[0]), answer_text(found.examples[0])) == (prompt, answer)
    assert found.reading.unread == unread


SPANS = {"result": [{"type": "labels", "value": {"start": 0}}]}
REFUSED = {
    "labels that are lists": ({"text": "q", "label": [["WORD"]]}, sentence("labels of spans")),
    "label studio spans": ({"data": {"text": "q"}, "annotations": [SPANS]}, sentence("annotation of labels")),
    "label studio pictures": (
        {"data": {"image": "x", "text2": "y"}, "annotations": [SPANS]},
        sentence("task not of one text", columns="image, text2"),
    ),
    "trees of openassistant": (
        {"message_tree_id": "x", "prompt": {"text": "q", "replies": []}},
        sentence("messages as trees"),
    ),
    "messages of openassistant": ({"text": "q", "role": "prompter", "parent_id": "x"}, sentence("messages as trees")),
    "pictures": (
        {"messages": [turn("user", "<image>q"), turn("assistant", "a")], "images": ["a.png"]},
        sentence("pictures or sound"),
    ),
    "a picture beside a question": ({"question": "q", "answer": "a", "image": "a.png"}, sentence("pictures or sound")),
    "pictures in a turn": (
        {"messages": [{**turn("user", "q"), "images": ["a"]}, turn("assistant", "a")]},
        sentence("pictures or sound"),
    ),
    "a context of objects": (
        {"question": "q", "answer": "a", "context": {"title": ["t"]}},
        sentence("field not text", field="input", kind="an object"),
    ),
    "two system prompts": (
        {"system": "s", "messages": [turn("system", "t"), turn("user", "q"), turn("assistant", "a")]},
        sentence("two system prompts"),
    ),
    "tokens": ({"tokens": ["a"], "ner_tags": [0]}, sentence("unknown layout")),
    "answers that are all right": (
        {"question": "q", "answers": ["a", "b"]},
        sentence("layout does not take values", columns="'answers' is a list"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_cause(tmp_path, name):
    row, why = REFUSED[name]
    with pytest.raises(InputError, match=why):
        loaded(tmp_path, [row])


def test_several_passages_are_joined(tmp_path):
    (example,) = loaded(tmp_path, [{"question": "q", "context": ["one", "two"], "answer": "a"}]).examples
    assert example.messages[0] == Message("user", "q", input="one\n\ntwo")


def test_a_picture_beside_a_document_is_only_told_of(tmp_path):
    assert loaded(tmp_path, [{"text": "a red coat", "label": "coat", "image": "http://x"}]).reading.unread == ("image",)


def test_people_who_disagree(tmp_path):
    def annotation(label, **more):
        return {"result": [{"type": "choices", "value": {"choices": [label]}}], **more}

    row = {"data": {"text": "q"}, "annotations": [annotation("a"), annotation("b")]}
    with pytest.raises(InputError, match=sentence("annotators chose differently", names="a and b")):
        loaded(tmp_path, [row])
    row["annotations"][1]["was_cancelled"] = True
    none = {"data": {"text": "r"}, "annotations": []}
    found = loaded(tmp_path, [row, none])
    assert answer_text(found.examples[0]) == "a" and found.unused.count == 1


ANSWERED = {"response_1": "a", "response_2": "b"}
MISREAD = {
    "single messages": ([turn("user", "q"), turn("assistant", "a")], "each row is one message (role, content)"),
    "single turns of ShareGPT": ([{"from": "human", "value": "q"}], "each row is one message (from, value)"),
    "two answers and a strength": ([{"prompt": "q", **ANSWERED, "preference_strength": -3}], "two answers ('response_1'"),
    "two answers and a truth": ([{"prompt": "q", **ANSWERED, "first_is_better": True}], "two answers ('response_1'"),
    "letters of possible answers": ([{"question": "q", "answer": "A", "possible_answers": ["a", "b"]}], "multiple-choice"),
    "letters of a list of any name": ([{"instruction": "q", "output": "B", "what to take": ["a", "b"]}], "multiple-choice"),
    "places in a list of any name": (
        [{"question": "q", "answer": 1, "answers": ["a", "b"]}], "--data.layout choice --data.columns choices=answers"
    ),
    "incorrect answers": (
        [{"Question": "q", "Correct Answer": "a", "Incorrect Answer 1": "b", "Incorrect Answer 2": "c"}], "multiple-choice"
    ),
    "an order in words": ([{"prompt": "q", "responses": ["a", "b"], "ranking": "B>A"}], "column 'ranking' may say"),
    "a flag of another tool": (
        [{"messages": [turn("user", "q"), turn("assistant", "a") | {"train_on_turn": False}]}], "'train_on_turn' may say"
    ),
    "an answer that is a truth": ([{"question": "q", "answer": True}], "'answer' is a truth value"),
    "a translation": ([{"translation": {"en": "a", "de": "b"}}], "--data.columns prompt=translation.en,completion=translation.de"),
    "texts of unknown names": (
        [{"id": "1", "source": "a", "target": "b"}], "--data.columns prompt=source,completion=target"
    ),
    "turns of an unknown name": ([{"items": [turn("user", "q")]}], "--data.columns messages=items"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISREAD)
def test_what_would_be_read_as_something_else_is_refused_with_the_way_out(tmp_path, name):
    rows, said = MISREAD[name]
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, rows)
    assert said in str(caught.value)


def test_lists_beside_short_answers_are_no_choices(tmp_path):
    aliases = [
        {"question": "q", "answer": "a", "aliases": ["a", "b"]},
        {"question": "r", "answer": "Rome", "aliases": ["x", "y"]},
    ]
    assert loaded(tmp_path, aliases).layout.name == "prompt_completion"
    words = [{"sentence": "q r", "label": 1, "tokens": ["q", "r"]}]
    assert loaded(tmp_path, words).layout.name == "labels"


def test_a_refusal_is_what_the_model_said_and_functions_are_tools(tmp_path):
    declined = turn("assistant", None) | {"refusal": "I cannot."}
    (chat,) = loaded(tmp_path, [{"messages": [turn("user", "q"), declined], "functions": [{"name": "f"}]}]).examples
    assert chat.messages[-1].content == "I cannot." and chat.tools[0]["function"]["name"] == "f"


def test_a_text_without_a_label_gives_no_example(tmp_path):
    found = loaded(tmp_path, [{"text": "q", "label": "a"}, {"text": "r", "label": None}])
    assert len(found.examples) == 1 and dict(found.unused.reasons) == {"no label": 1}
