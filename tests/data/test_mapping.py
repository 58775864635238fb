"""Columns of any shape: templates over columns, paths into nested ones, a mapping of one file."""

from __future__ import annotations

import json
from datetime import date, datetime, time
from decimal import Decimal

import pytest
from reading_of import loaded

from luthier.config.data import DataConfig
from luthier.config.run import RunConfig
from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Labelled, Origin, Text
from luthier.data.clean import CleanSettings
from luthier.data.example_text import answer_text, prompt_text
from luthier.data.load import load
from luthier.data.mapping import pieces, shaped, value_at
from luthier.data.replace_answer import with_answer
from luthier.data.rows import Row
from luthier.inspect.describe_data import rewrite
from sentences import sentence

TICKETS = [
    {"ticket": "My card is lost.", "category": "card", "why": "It says so.", "meta": {"title": "Lost", "tags": ["a", "b"], "n": 3}},
    {"ticket": "I cannot log in.", "category": "login", "why": "No access.", "meta": {"title": "Login", "tags": [], "n": 4}},
]  # fmt: skip


def asked(found, place=0):
    return prompt_text(found.examples[place]), answer_text(found.examples[place])


def test_a_newcomers_rows_are_read_by_two_templates(tmp_path):
    found = loaded(tmp_path, TICKETS, prompt="{ticket}", completion="{category}\\n{why}")
    assert found.layout.name == "prompt_completion"
    assert asked(found) == ("My card is lost.", "card\nIt says so.")
    assert found.reading.lines() == ["read: prompt = {ticket}, completion = {category}\\n{why}; not read: meta"]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{category}", "card"),
        ("{{{category}}}", "{card}"),
        ("{meta.title}: {meta.n}", "Lost: 3"),
        ("[{meta.tags}]", "[a, b]"),
        ("{meta.tags.1}", "b"),
        ("{ Category }\\t{why}\\\\n", "card\tIt says so.\\n"),
        ("a\nb {category}", "a\nb card"),
        ("\\d {category}", "\\d card"),
    ],
)
def test_what_a_template_says(tmp_path, template, text):
    assert asked(loaded(tmp_path, TICKETS[:1], prompt="ticket", completion=template)) == ("My card is lost.", text)


def test_values_are_written_as_json_writes_them_and_null_as_nothing(tmp_path):
    rows = [{"q": "Is it?", "yes": True, "n": 1.5, "none": None, "objects": [{"a": "x"}, {"a": "y"}]}]
    found = loaded(tmp_path, rows, prompt="{q}", completion="{yes} {n} <{none}> {objects.a}")
    assert asked(found) == ("Is it?", "true 1.5 <> x, y")


def test_paths_read_nested_values_of_any_field(tmp_path):
    rows = [
        {
            "talk": {"turns": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
            "of": {"id": 7},
        }
    ]
    found = loaded(tmp_path, rows, columns={"messages": "talk.turns"}, group="of.id")
    assert (found.layout.name, asked(found), found.examples[0].group) == ("chat", ("Hi", "Hello"), "7")
    assert found.reading.read == {"messages": "talk.turns"}


def test_a_column_whose_name_has_a_dot_comes_before_a_path(tmp_path):
    rows = [{"a.b": "the column", "a": {"b": "the path"}}]
    assert loaded(tmp_path, rows, columns={"text": "a.b"}).examples[0].text == "the column"


def test_cells_that_spell_objects_are_looked_into(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('q,meta\nWhere?,"{""place"": ""Lima""}"\n')
    found = load([str(path)], DataConfig(prompt="q", completion="{meta.place}"))
    assert asked(found) == ("Where?", "Lima")


def test_what_a_template_reads_is_read_as_nothing_else(tmp_path):
    """`label` would make an unpaired answer, `context` would stand below the prompt, `instruction` would be one."""
    rows = [{"question": "q", "context": "c", "label": "1", "answer": "a", "instruction": "i"}]
    found = loaded(tmp_path, rows, prompt="{context}: {question}", completion="{label} {answer}")
    assert isinstance(found.examples[0], Chat)
    assert asked(found) == ("c: q", "1 a")
    alone = loaded(tmp_path, [{"question": "q", "context": "c", "answer": "a"}], prompt="Say: {question}")
    assert asked(alone) == ("Say: q", "a")


def test_a_layout_may_be_declared_beside_templates(tmp_path):
    rows = [{"q": "Name a colour.", "a": "Blue.", "good": True}]
    columns = {"label": "good"}
    found = loaded(tmp_path, rows, layout="unpaired", prompt="{q}", completion="{a}", columns=columns)
    assert isinstance(found.examples[0], Labelled)
    assert found.examples[0].label is True


def test_any_field_takes_a_template(tmp_path):
    found = loaded(tmp_path, TICKETS, columns={"text": "{meta.title}\\n\\n{ticket}"}, layout="text")
    assert found.examples[0] == Text("Lost\n\nMy card is lost.", origin=found.examples[0].origin)
    assert found.reading.unread == ("category", "why", "meta.tags", "meta.n")


def test_files_may_have_mappings_of_their_own(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"q": "1", "a": "one"}) + "\n")
    (tmp_path / "test.jsonl").write_text(json.dumps({"frage": "2", "text": {"antwort": "two"}}) + "\n")
    paths = [str(tmp_path / name) for name in ("train.jsonl", "test.jsonl")]
    settings = DataConfig(
        path=paths[:1], eval=paths[1:], prompt="q", completion="a",
        columns={"test.jsonl:prompt": "{frage}?", "te*.jsonl:completion": "text.antwort"},
    )  # fmt: skip
    assert asked(load(paths[:1], settings)) == ("1", "one")
    assert asked(load(paths[1:], settings, held_out=True)) == ("2?", "two")
    both = load(paths, settings)  # of one layout, whichever file comes first
    assert [asked(both, place) for place in (0, 1)] == [("1", "one"), ("2?", "two")]
    assert both.reading.read == {"prompt": "q", "completion": "a"}


def test_new_files_have_the_rows_as_they_were(tmp_path):
    found = loaded(tmp_path, TICKETS, prompt="{ticket}", completion="{category}\\n{why}")
    rewrite(found, tmp_path, RunConfig(), CleanSettings(), False)
    assert [json.loads(line) for line in (tmp_path / "clean.jsonl").read_text().splitlines()] == TICKETS


def test_an_answer_is_corrected_in_its_column(tmp_path):
    found = loaded(tmp_path, TICKETS, prompt="{meta.title}: {ticket}", completion="why")
    columns = {"prompt": "{meta.title}: {ticket}", "completion": "why"}
    row = with_answer(found.rows[0], found.examples[0], "Other.", found.layout, columns)
    assert row.fields == TICKETS[0] | {"why": "Other."}


SETTINGS = [
    (
        {"prompt": "{tikcet}", "completion": "why"},
        sentence("unknown column", where="--data.prompt '{tikcet}'", column="tikcet", fix="did you mean 'ticket'?"),
    ),
    (
        {"prompt": "ticket", "completion": "{meta.titel}"},
        sentence(
            "unknown column",
            where="--data.completion '{meta.titel}'",
            column="meta.titel",
            fix="did you mean 'meta.title'?",
        ),
    ),
    (
        {"prompt": "Hello", "completion": "why"},
        sentence("unknown column", where="--data.columns prompt=Hello", column="Hello"),
    ),
    (
        {"columns": {"text": "meta.titel"}},
        sentence("unknown column", where="--data.columns text=meta.titel", fix="did you mean 'meta.title'?"),
    ),
    ({"prompt": "{ticket", "completion": "why"}, sentence("brace alone", where="--data.prompt '{ticket'", brace="{")),
    (
        {"prompt": "{{ticket}}", "completion": "why"},
        sentence("template without a column", where="--data.prompt '{{ticket}}'"),
    ),
    (
        {"prompt": "{meta}", "completion": "why"},
        sentence("object in a template", where="rows.jsonl:1", column="meta", path="meta.title"),
    ),
    (
        {"prompt": "{ticket}", "columns": {"prompt": "why"}},
        sentence("mapped twice", where="--data.prompt", field="prompt"),
    ),
    (
        {"columns": {"rwos.jsonl:text": "why"}},
        sentence(
            "unknown name", where="--data.columns rwos.jsonl:text=why", kind="file", fix="did you mean 'rows.jsonl'?"
        ),
    ),
]


@pytest.mark.parametrize(("settings", "said"), SETTINGS, ids=str)
def test_a_mapping_that_cannot_be_followed_is_refused(tmp_path, settings, said):
    with pytest.raises(InputError, match=said):
        loaded(tmp_path, TICKETS, **settings)


def test_a_row_without_a_column_is_a_bad_row(tmp_path):
    rows = [*TICKETS, {"ticket": "Hm.", "category": "other"}]
    settings = {"prompt": "{ticket}", "completion": "{category}\\n{why}"}
    with pytest.raises(InputError, match=sentence("no column of a template", where="rows.jsonl:3", column="why")):
        loaded(tmp_path, rows, **settings)
    found = loaded(tmp_path, rows, skip_bad=True, **settings)
    assert (len(found.examples), found.skipped.count) == (2, 1)


def test_pieces_and_paths_are_plain_functions():
    assert pieces("a {b} {{c}}") == (("a ", False), ("b", True), (" ", False), ("{", False), ("c", False), ("}", False))
    assert value_at({"A b": [{"c": 1}, {"c": 2}]}, "a_b.c") == [1, 2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (date(2024, 1, 31), "2024-01-31"),
        (datetime(2024, 1, 31, 9, 30), "2024-01-31T09:30:00"),
        (time(9, 30), "09:30:00"),
        (Decimal("1.50"), "1.50"),
        ([date(2024, 1, 31), None, True], "2024-01-31, , true"),
    ],
    ids=str,
)
def test_dates_and_decimals_of_tables_stand_in_a_template_as_they_are(value, text):
    row = Row({"when": value}, Origin("rows.parquet", 1))
    assert shaped(row, {"prompt": "on {when}"}).fields["on {when}"] == f"on {text}"


def test_a_mapping_of_a_replay_file_is_refused_for_nothing_applies_it(tmp_path):
    for name in ("own.jsonl", "general.jsonl"):
        (tmp_path / name).write_text('{"x": "q", "completion": "yes"}\n')
    own, general = (str(tmp_path / name) for name in ("own.jsonl", "general.jsonl"))
    settings = DataConfig(path=(own,), replay=(general,), columns={"prompt": "x", "general.jsonl:prompt": "x"})
    with pytest.raises(InputError, match=sentence("unknown name", kind="file", name="general.jsonl")):
        load([own], settings)


def test_a_mapping_of_the_data_is_not_one_of_other_rows(tmp_path):
    """Replay, general texts and rows to go on learning from are read by their own columns."""
    rows = [{"ticket": "My card is lost.", "prompt": "Hi", "completion": "Hello"}]
    path = tmp_path / "general.jsonl"
    path.write_text(json.dumps(rows[0]) + "\n")
    settings = DataConfig(
        prompt="{ticket}!", completion="{ticket}?", layout="prompt_completion", columns={"system": "ticket"}, limit=1,
        group="ticket", skip_bad=True,
    )  # fmt: skip
    other = settings.of_other_rows()
    assert asked(load([str(path)], other)) == ("Hi", "Hello")
    assert other == DataConfig(skip_bad=True)
