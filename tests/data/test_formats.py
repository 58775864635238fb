"""Rows of any layout, written as other tools take them, and read again as what they were."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from reading_of import loaded

from luthier.commands.data import command
from luthier.config.data import FORMATS, DataConfig
from luthier.core.errors import InputError
from luthier.data.example_text import identity
from luthier.data.formats import WRITERS, rows_in
from luthier.data.load import load
from sentences import sentence


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
CHAT = {
    "messages": [
        turn("system", "s"),
        turn("user", "q"),
        turn("assistant", "a"),
        turn("user", "r"),
        turn("assistant", "b"),
    ]
}
ANSWERED = [turn("tool", "2", tool_call_id="c1"), turn("assistant", "b")]
CALLING = {"tools": TOOLS, "messages": [turn("user", "q"), {"role": "assistant", "tool_calls": [CALL]}, *ANSWERED]}
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
ALPACA = {"instruction": "q", "input": "i", "output": "a"}
ASKED = [turn("user", "q")]

# (row, format, the row that is written)
WRITTEN = [
    (ALPACA, "openai", {"messages": [turn("user", "q\n\ni"), turn("assistant", "a")]}),
    (ALPACA, "alpaca", ALPACA),
    (ALPACA, "sharegpt", {"conversations": [{"from": "human", "value": "q\n\ni"}, {"from": "gpt", "value": "a"}]}),
    (CHAT, "trl", CHAT),
    (CHAT, "openai", CHAT),
    (CHAT, "alpaca", {"instruction": "r", "input": "", "output": "b", "history": [["q", "a"]], "system": "s"}),
    (CALLING, "openai", CALLING),
    (
        PAIR,
        "openai",
        {
            "input": {"messages": ASKED},
            "preferred_output": [turn("assistant", "a")],
            "non_preferred_output": [turn("assistant", "b")],
        },
    ),
    (PAIR, "trl", {"prompt": ASKED, "chosen": [turn("assistant", "a")], "rejected": [turn("assistant", "b")]}),
    (
        {"prompt": "q", "completion": "a", "label": True},
        "trl",
        {"prompt": ASKED, "completion": [turn("assistant", "a")], "label": True},
    ),
    ({"text": "t"}, "trl", {"text": "t"}),
]


@pytest.mark.parametrize(("row", "name", "written"), WRITTEN, ids=str)
def test_what_is_written_reads_as_the_same(tmp_path, row, name, written):
    found = loaded(tmp_path, [row])
    (made,) = rows_in(name, found.examples)
    assert made == written
    again = loaded(tmp_path, [made])
    assert identity(again.examples[0]) == identity(found.examples[0])


REFUSED = [
    (PAIR, "alpaca", "preference"),
    (PAIR, "sharegpt", "preference"),
    ({"text": "t"}, "openai", "text"),
    (CALLING, "alpaca", "chat"),
    (CALLING, "sharegpt", "chat"),  # it has no place for the id of a call
    (
        {"messages": [turn("user", "q"), turn("assistant", "a", weight=0), turn("user", "r"), turn("assistant", "b")]},
        "alpaca",
        "chat",
    ),
]


@pytest.mark.parametrize(("row", "name", "kind"), REFUSED, ids=str)
def test_what_a_format_cannot_say_is_refused_with_its_place(tmp_path, row, name, kind):
    with pytest.raises(InputError, match=sentence("format cannot say", where="rows.jsonl:1", format=name, kind=kind)):
        list(rows_in(name, loaded(tmp_path, [row]).examples))


def test_sharegpt_writes_calls_as_turns(tmp_path):
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'}
    row = {
        "conversations": [
            {"from": "human", "value": "q"},
            call,
            {"from": "observation", "value": "2"},
            {"from": "gpt", "value": "b"},
        ]
    }
    assert list(rows_in("sharegpt", loaded(tmp_path, [row]).examples)) == [row]


@pytest.mark.medium
def test_the_command_writes_a_new_file(tmp_path):
    source, out = tmp_path / "tickets.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"ticket": "q", "category": "c", "why": "w"}) + "\n")
    arguments = [
        str(source),
        "--data.prompt",
        "{ticket}",
        "--data.completion",
        "{category}\\n{why}",
        "--to",
        "openai",
        str(out),
        "--json",
    ]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert json.loads(result.stdout)["written"] == {"openai": {"path": str(out), "rows": 1}}
    assert load([str(out)], DataConfig()).examples[0].messages[-1].content == "c\nw"
    assert isinstance(CliRunner().invoke(command, arguments).exception, InputError)  # it is there already


@pytest.mark.medium
def test_a_row_that_cannot_be_written_leaves_no_file(tmp_path):
    source, out = tmp_path / "texts.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "t"}\n')
    result = CliRunner().invoke(command, [str(source), "--to", "openai", str(out)])
    assert isinstance(result.exception, InputError)
    assert not out.exists()


def test_every_format_that_is_offered_is_written():
    assert set(FORMATS) == set(WRITERS)
