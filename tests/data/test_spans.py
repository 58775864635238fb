"""What people marked in texts, read as rows of extraction."""

from __future__ import annotations

import json

import pytest
from reading_of import loaded

from luthier.core.errors import InputError
from luthier.data.example_text import answer_text, prompt_text
from luthier.evals.metrics.answer_metrics import auto
from sentences import sentence

TEXT = "Anna lives in Lima, Ben too."
PLACES = [[14, 18, "PLACE"], [20, 23, "PERSON"], [0, 4, "PERSON"]]
ANSWER = {"PERSON": ["Anna", "Ben"], "PLACE": ["Lima"]}


def studio(*made):
    return {
        "id": 1,
        "data": {"text": TEXT},
        "annotations": [{"result": [_marked(*span) for span in one]} for one in made],
    }


def _marked(start, end, label):
    value = {"start": start, "end": end, "text": TEXT[start:end], "labels": [label]}
    return {"from_name": "label", "to_name": "text", "type": "labels", "value": value}


# name -> (row, layout, what is answered)
READ = {
    "doccano": ({"id": 0, "text": TEXT, "label": PLACES}, "spans", ANSWER),
    "label studio": (studio(PLACES), "label_studio", ANSWER),
    "label studio by two": (studio(PLACES, PLACES[::-1]), "label_studio", ANSWER),
    "conll": (
        {
            "tokens": ["Anna", "Bell", "met", "Ben", "in", "Lima", "Peru"],
            "ner_tags": ["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC", "B-LOC"],
        },
        "tagged",
        {"PER": ["Anna Bell", "Ben"], "LOC": ["Lima", "Peru"]},
    ),
    "tags without a beginning": (
        {"words": ["Anna", "Bell", "Lima"], "tags": ["I-PER", "I-PER", "I-LOC"]},
        "tagged",
        {"PER": ["Anna Bell"], "LOC": ["Lima"]},
    ),
}


@pytest.mark.parametrize("name", READ)
def test_marked_texts_are_rows_of_extraction(tmp_path, name):
    row, layout, answer = READ[name]
    found = loaded(tmp_path, [row])
    assert found.layout.name == layout
    assert prompt_text(found.examples[0]) in (TEXT, " ".join(row.get("tokens", row.get("words", []))))
    assert list(json.loads(answer_text(found.examples[0])).items()) == list(answer.items())


# What is called spans or entities may stand beside any text: rows and what is answered, once they are said to be spans.
DECLARED = {
    "doccano's sequence labels": (
        {
            "text": TEXT,
            "entities": [{"id": 1, "label": "PLACE", "start_offset": 14, "end_offset": 18}],
            "relations": [],
        },
        {"PLACE": ["Lima"]},
    ),
    "spans by start and end": (
        {"text": TEXT, "spans": [{"start": 0, "end": 4, "type": "PERSON"}]},
        {"PERSON": ["Anna"]},
    ),
}


@pytest.mark.parametrize("settings", [{"layout": "spans"}, {"columns": "column of its own"}], ids=["layout", "columns"])
@pytest.mark.parametrize("name", DECLARED)
def test_spans_beside_a_text_are_read_where_the_user_says_so(tmp_path, name, settings):
    row, answer = DECLARED[name]
    assert loaded(tmp_path, [row]).layout.name == "text"
    told = {"columns": {"spans": next(key for key in row if key != "text")}} if "columns" in settings else settings
    found = loaded(tmp_path, [row], **told)
    assert found.layout.name == "spans"
    assert json.loads(answer_text(found.examples[0])) == answer


@pytest.mark.parametrize("label", ["label", "intent", "category"])
@pytest.mark.parametrize("beside", ["spans", "entities"])
def test_a_label_beside_spans_stays_the_answer(tmp_path, label, beside):
    rows = [{"text": TEXT, label: "greeting", beside: [{"start": 0, "end": 4, "label": "PERSON"}]}]
    found = loaded(tmp_path, rows)
    assert (found.layout.name, answer_text(found.examples[0])) == ("labels", "greeting")


@pytest.mark.parametrize(("more", "layout"), [({}, "text"), ({"label": "greeting"}, "labels")], ids=["text", "labels"])
def test_a_text_beside_its_tokens_and_tags_is_read_as_without_them(tmp_path, more, layout):
    row = {"text": "Anna Bell", "tokens": ["Anna", "Bell"], "ner_tags": ["B-PER", "I-PER"], **more}
    assert loaded(tmp_path, [row]).layout.name == layout


def test_texts_without_spans_answer_nothing_marked(tmp_path):
    rows = [*[{"text": TEXT, "label": PLACES}] * 2, {"text": "Nobody.", "label": []}, {"text": "Later.", "label": None}]
    found = loaded(tmp_path, rows)
    assert [answer_text(example) for example in found.examples] == [*[json.dumps(ANSWER)] * 2, "{}"]
    assert dict(found.unused.reasons) == {"no annotation": 1}


def test_their_answers_are_measured_by_fields():
    assert "json_f1" in auto([json.dumps(ANSWER), "{}"])


REFUSED = [
    ({"text": "Anna", "label": [[0, 5, "PERSON"]]}, {}, sentence("span not within the text", start=0, end=5, label="PERSON", length=4)),
    ({"text": "Anna", "label": [["Anna"]]}, {"layout": "spans"}, sentence("spans unknown")),
    (studio(PLACES, PLACES[:1]), {}, sentence("annotators marked different spans")),
    ({"tokens": ["a", "b"], "ner_tags": ["B-X"]}, {}, sentence("tags not one a token")),
    ({"tokens": ["a"], "ner_tags": [3]}, {"layout": "tagged"}, sentence("tag unknown", tag=3)),
]  # fmt: skip


@pytest.mark.parametrize(("row", "settings", "said"), REFUSED, ids=str)
def test_what_is_not_within_the_text_is_refused(tmp_path, row, settings, said):
    with pytest.raises(InputError, match=said):
        loaded(tmp_path, [row], **settings)
