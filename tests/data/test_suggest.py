"""The error of rows that no layout reads names a mapping, and the mapping reads them."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import yaml
from click.testing import CliRunner

from luthier.commands.data import command
from luthier.commands.settings import config_of
from luthier.config.data import DataConfig
from luthier.core.errors import InputError
from luthier.core.types.examples import Preference, Ranking
from luthier.data.example_text import answer_text, prompt_text
from luthier.data.load import load
from sentences import sentence

Q, A, B = "Where is my card, please?", "It was sent on Monday.", "No idea."
TURNS = [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]
SAID = [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]
# Rows that no layout reads as they are, and what is to be asked ("" for a document) and answered.
UNKNOWN = {
    "ticket, category, why": ({"ticket": Q, "category": "card", "why": "It says so."}, Q, "card"),
    "customer, agent": ({"id": 1, "customer": Q, "agent": A}, Q, A),
    "user, assistant": ({"user": Q, "assistant": A}, Q, A),
    "human, bot": ({"human": Q, "bot": A}, Q, A),
    "q, a": ({"q": Q, "a": A}, Q, A),
    "Q, A": ({"Q": Q, "A": A}, Q, A),
    "frage, antwort": ({"frage": Q, "antwort": A, "quelle": "handbuch"}, Q, A),
    "pregunta, respuesta": ({"respuesta": A, "pregunta": Q}, Q, A),
    "question, solution": ({"question": Q, "solution": A}, Q, A),
    "problem, solution": ({"problem": Q, "level": "3", "solution": A}, Q, A),
    "task, result": ({"task": Q, "result": A}, Q, A),
    "article, highlights": ({"article": Q, "highlights": A, "id": "f3"}, Q, A),
    "dialogue, summary": ({"dialogue": Q, "summary": A}, Q, A),
    "report, summary": ({"report": Q, "summary": A}, Q, A),
    "headline, body": ({"headline": Q, "body": A}, Q, A),
    "src, tgt": ({"src": Q, "tgt": A}, Q, A),
    "source, target": ({"source": Q, "target": A}, Q, A),
    "en, de": ({"en": Q, "de": A}, Q, A),
    "translation": ({"translation": {"en": Q, "de": A}}, Q, A),
    "sql": ({"natural_language": Q, "sql": "SELECT 1"}, Q, "SELECT 1"),
    "code": ({"task_description": Q, "code_solution": "x = 1"}, Q, "x = 1"),
    "email, subject, priority": ({"email": Q, "priority": "high"}, Q, "high"),
    "tweet, sentiment": ({"tweet": Q, "sentiment": "angry", "user_id": 7}, Q, "angry"),
    "review, stars": ({"review": Q, "stars": 2}, Q, "2"),
    "comment, tags": ({"comment": Q, "tags": ["card", "post"]}, Q, "card, post"),
    "sms, topic": ({"sms": Q, "topic": "card"}, Q, "card"),
    "grammar": ({"src_text": Q, "corrected_text": A}, Q, A),
    "rewriting": ({"original": Q, "rewritten": A}, Q, A),
    "camel case": ({"userMessage": Q, "botReply": A, "createdAt": "2024-01-02"}, Q, A),
    "blanks in names": ({"User Message": Q, "Agent Reply": A}, Q, A),
    "nested objects": ({"data": {"question": Q, "answer": A}, "id": 3}, Q, A),
    "nested deeper": ({"row": {"in": {"text": Q}, "out": {"text": A}}}, Q, A),
    "turns under another name": ({"dialog": TURNS, "source": "x"}, Q, A),
    "turns in an object": ({"chat": {"turns": TURNS}, "title": "Card"}, Q, A),
    "sharegpt under another name": ({"thread": SAID}, Q, A),
    "good, bad": ({"question": Q, "good": A, "bad": B}, Q, A),
    "winner, loser": ({"ask": Q, "winning_reply": A, "losing_reply": B}, Q, A),
    "candidates with stars": ({"question": Q, "replies": [B, A], "stars": [1, 5]}, Q, A),
    "one text": ({"story": Q, "author_id": 5}, "", Q),
    "lyrics": ({"lyrics": Q, "year": 1999}, "", Q),
    "unknown words": ({"foo": Q, "bar": A}, Q, A),
    "cells of numbers": ({"n": 3, "url": "https://example.org/x", "sms_text": Q, "class": 4}, Q, "4"),
}  # fmt: skip


def written(tmp_path, row):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(varied(row, mark)) + "\n" for mark in ("", "!", "?")))
    return str(path)


def varied(value, mark):
    """The row with other texts: what is the same in all rows says nothing."""
    if isinstance(value, dict):
        return {key: item if key in ("role", "from") else varied(item, mark) for key, item in value.items()}
    if isinstance(value, list):
        return [varied(item, mark) for item in value]
    return value + mark if isinstance(value, str) else value


def followed(path, advice):
    """The rows of a file as they are read with the options of an error's advice, parsed as the command line parses them."""
    options = shlex.split(re.match(r"try (.*); `luthier data FILE --suggest` writes it as YAML$", advice)[1])
    given = command.make_context("data", [path, *options]).params
    settings = config_of([path], {name: value for name, value in given.items() if name.startswith("data__")})
    return load([path], settings.data)


def test_there_are_forty_layouts():
    assert len(UNKNOWN) >= 40


@pytest.mark.parametrize("name", UNKNOWN)
def test_the_advice_of_the_error_is_followed(tmp_path, name):
    row, asked, answered = UNKNOWN[name]
    path = written(tmp_path, row)
    with pytest.raises(InputError, match=sentence("unknown layout, with a mapping", where="rows.jsonl:1")) as caught:
        load([path], config_of([path], {}).data)
    found = followed(path, caught.value.fix)
    assert len(found.examples) == 3
    assert (prompt_text(found.examples[0]), answer_text(found.examples[0])) == (asked, answered)


def test_answers_of_two_qualities_are_compared(tmp_path):
    row = UNKNOWN["good, bad"][0]
    with pytest.raises(InputError) as caught:
        load([path := written(tmp_path, row)], config_of([path], {}).data)
    assert isinstance(followed(path, caught.value.fix).examples[0], Preference)
    row = UNKNOWN["candidates with stars"][0]
    with pytest.raises(InputError) as caught:
        load([path := written(tmp_path, row)], config_of([path], {}).data)
    (example, *_) = followed(path, caught.value.fix).examples
    assert isinstance(example, Ranking)
    assert example.ranks == (2, 1)


def test_the_error_shows_the_first_row(tmp_path):
    row = {"foo": "a word " * 20, "of": {"a": 1, "b": 2}, "many": [1, 2], "yes": True, "empty": "", "bar": "x"}
    path = written(tmp_path, row)
    columns = (
        "foo (text: a word a word a word a word a wo…), of (an object of a, b), many (a list of 2: a number: 1), "
        "yes (a truth value: True), bar (text: x)"
    )
    with pytest.raises(InputError, match=sentence("unknown layout, with a mapping", columns=columns)):
        load([path], config_of([path], {}).data)


def test_rows_that_nothing_reads_are_shown_too(tmp_path):
    path = written(tmp_path, {"foo": 1, "bar": [[2]]})
    with pytest.raises(
        InputError,
        match=sentence(
            "unknown layout, shown", columns="foo (a number: 1), bar (a list of 1: a list of 1: a number: 2)"
        ),
    ):
        load([path], config_of([path], {}).data)


def test_a_mapping_that_was_given_is_not_replaced_by_another(tmp_path):
    path = written(tmp_path, {"foo": Q, "bar": A})
    with pytest.raises(InputError, match=sentence("unknown layout", columns="foo, bar")):
        load([path], DataConfig(columns={"chosen": "foo"}))


@pytest.mark.parametrize("name", ["ticket, category, why", "blanks in names", "nested deeper", "lyrics"])
def test_suggest_writes_yaml_that_trains(tmp_path, name):
    row, asked, answered = UNKNOWN[name]
    path = written(tmp_path, row)
    result = CliRunner().invoke(command, [path, "--suggest"], catch_exceptions=False)
    assert result.exit_code == 0
    settings = tmp_path / "rows.yaml"
    settings.write_text(result.stdout)
    found = load([path], config_of([str(settings)], {}).data)
    assert (prompt_text(found.examples[0]), answer_text(found.examples[0])) == (asked, answered)
    assert yaml.safe_load(result.stdout)["data"]["path"] == path


def test_suggest_of_a_known_layout_says_what_is_read(tmp_path):
    path = written(tmp_path, {"question": Q, "response": A, "more": 1})
    result = CliRunner().invoke(command, [path, "--suggest", "--json"], catch_exceptions=False)
    assert json.loads(result.stdout) == {
        "data": {
            "path": path,
            "layout": "prompt_completion",
            "columns": {"prompt": "question", "completion": "response"},
        }
    }


def test_suggest_of_rows_that_nothing_reads_is_an_error(tmp_path):
    path = written(tmp_path, {"foo": 1, "bar": 2})
    result = CliRunner().invoke(command, [path, "--suggest"])
    assert isinstance(result.exception, InputError)
