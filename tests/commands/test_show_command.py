"""`luthier show` on every layout, plain, coloured and as JSON."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from luthier.cli import run
from luthier.commands import show as show_command


def turn(role, text):
    return {"role": role, "content": text}


def said(name, text):
    return {"from": name, "value": text}


ASK, YES, NO = turn("user", "the cat?"), turn("assistant", "yes"), turn("assistant", "no")
ADD = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL = {"type": "function", "function": {"name": "add", "description": "adds", "parameters": {}}}

# name -> (row, nodes, what the learned tokens of each node must say)
LAYOUTS = {
    "alpaca": ({"instruction": "name it", "input": "the cat", "output": "cat"}, ["cat"]),
    "sharegpt": ({"conversations": [said("human", "who"), said("gpt", "the dog")]}, ["the dog"]),
    "chat": ({"messages": [ASK, YES, ASK, NO]}, ["yesno"]),
    "tools": (
        {"tools": [TOOL], "messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [ADD]}, turn("tool", "2"), YES]},
        ["yes"],
    ),
    "prompt_completion": ({"prompt": "who", "completion": "the dog"}, ["the dog"]),
    "labels": ({"text": "where is it", "label": "place"}, ["place"]),
    "text": ({"text": "the cat sat on the mat by the tree"}, [" cat sat on the mat by the tree"]),
    "preference": ({"prompt": "who", "chosen": "dog", "rejected": "cat"}, ["", "dog", "cat"]),
    "preference_chat": ({"chosen": [ASK, YES], "rejected": [ASK, NO]}, ["", "yes", "no"]),
    "preference_sharegpt": (
        {"conversations": [said("human", "who")], "chosen": said("gpt", "dog"), "rejected": said("gpt", "cat")},
        ["", "dog", "cat"],
    ),
    "transcripts": (
        {"chosen": "\n\nHuman: who\n\nAssistant: dog", "rejected": "\n\nHuman: who\n\nAssistant: cat"},
        ["", "dog", "cat"],
    ),
    "accepted": ({"accepted": "a red cat", "rejected": "a blue dog"}, None),
    "comparison": ({"instruction": "who", "output_1": "dog", "output_2": "cat", "preference": 2}, ["", "cat", "dog"]),
    "unpaired": ({"prompt": "who", "completion": "dog", "label": False}, ["", "dog"]),
    "unpaired_chat": ({"messages": [ASK, YES], "label": True}, ["", "yes"]),
    "ranking": ({"prompt": "who", "responses": ["dog", "cat", "mat"]}, ["", "dog", "cat", "mat"]),
    "prompt": ({"prompt": "who"}, [""]),
    "ranks": ({"prompt": "who", "responses": ["no", "cat"], "ranks": [2, 1]}, None),
}  # fmt: skip
NOTHING_LEARNED = {
    "pair": {"anchor": "the cat", "positive": "a cat"},
    "score": {"sentence1": "the cat", "sentence2": "a cat", "score": 4.5},
    "triplet": {"anchor": "the cat", "positive": "a cat", "negative": "two"},
}


@pytest.fixture
def show(tmp_path, tiny_folder, capsys):
    def go(row, *options, status=0):
        path = tmp_path / "row.jsonl"
        path.write_text(json.dumps(row) + "\n")
        assert run(["show", str(path), "--model", str(tiny_folder), *options]) == status
        return capsys.readouterr()

    return go


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_in_plain_text_and_as_json(show, name):
    row, learned = LAYOUTS[name]
    plain = show(row).out
    first, *lines = plain.splitlines()
    assert "row.jsonl:1 · " in first
    assert "\x1b" not in plain
    result = json.loads(show(row, "--json").out)
    assert set(result) == {"rows", "read", "unread", "codes", "corrected", "warnings"}
    (record,) = result["rows"]
    assert set(record) == {"origin", "trained", "leaves", "tokens"}
    assert all(set(token) == {"text", "id", "trained", "node"} for token in record["tokens"])
    assert f" {record['trained']} trained" in first
    assert f" {len(record['tokens'])} tokens" in first
    nodes = sorted({token["node"] for token in record["tokens"]})
    if len(nodes) > 1:
        assert sum(line.strip().startswith("┌ node") for line in lines) == len(nodes)
    if learned is not None:
        said_by = [
            "".join(t["text"] for t in record["tokens"] if t["node"] == n and t["trained"] and "<|im" not in t["text"])
            for n in nodes
        ]
        if name == "tools":
            assert said_by[0].endswith("yes") and '"add"' in said_by[0]
        else:
            assert said_by == learned
            assert ("no stop token trained" in first) == (name == "prompt")


@pytest.mark.parametrize("name", NOTHING_LEARNED)
def test_layouts_with_nothing_to_learn_say_so(show, name):
    captured = show(NOTHING_LEARNED[name], status=2)
    assert captured.out == ""
    assert captured.err.startswith("luthier: ")
    assert captured.err.count("\n") == 1
    assert "row.jsonl:1" in captured.err


def test_colour_says_the_same_as_brackets(show, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, color_system="truecolor", highlight=False)
    row = LAYOUTS["chat"][0]
    plain = show(row).out
    monkeypatch.setattr(show_command, "console", lambda: screen)
    show(row)
    rich = screen.file.getvalue()
    assert "\x1b[30;48;2;166;227;161m" in rich or "\x1b[30;48;2;201;240;196m" in rich
    from rich.text import Text

    bare = Text.from_ansi(rich).plain
    assert [line.split("│", 1)[1].split() for line in bare.splitlines() if "│" in line] == [
        line.split("│", 1)[1].replace("¦", "").replace("[", "").replace("]", "").split()
        for line in plain.splitlines()
        if "│" in line
    ]


def test_plain_on_a_terminal(show, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(show_command, "console", lambda: screen)
    assert "[<|im_end|>■]" in show(LAYOUTS["chat"][0], "--plain").out
    assert screen.file.getvalue() == ""


def test_escape_sequences_of_data_are_shown_not_sent(show):
    out = show({"prompt": "\x1b[31mred", "completion": "\x9b2J"}).out
    assert "\\u001b" in out
    assert not {"\x1b", "\x9b"} & set(out)


def test_what_learns_nothing_is_refused_with_the_reason(show):
    error = show(
        {"prompt": "the cat sat on the mat " * 4, "completion": "yes"}, "--text.max_length", "16", status=2
    ).err
    assert "no token to be trained within 16 tokens" in error
    assert "raise --text.max_length" in error


def test_rows_that_are_left_out_are_named(show, tmp_path, tiny_folder, capsys):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "who", "completion": "yes"}, {"prompt": "the cat sat on the mat " * 9, "completion": "yes"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["show", str(path), "--model", str(tiny_folder), "--text.max_length", "48"]
    assert run(asked) == 0
    assert f"{path}:2 · left out: no token to be trained within 48 tokens" in capsys.readouterr().out
    assert run([*asked, "--json"]) == 0
    last = json.loads(capsys.readouterr().out)["rows"][-1]
    assert last["origin"] == f"{path}:2" and last["left_out"].startswith("no token to be trained")


def test_rows_and_turns(show, tmp_path, tiny_folder, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": [ASK, YES, ASK, NO]}) + "\n" for _ in range(5)))
    assert (
        run(["show", str(path), "--model", str(tiny_folder), "--limit", "2", "--text.train_on", "last", "--json"]) == 0
    )
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["origin"] for row in rows] == [f"{path}:1", f"{path}:2"]
    for row in rows:
        assert "".join(t["text"] for t in row["tokens"] if t["trained"]) == "no<|im_end|>"


def test_what_was_read_is_said_beside_and_answers_by_name(show):
    row = {"prompt": "who", "chosen": "dog", "rejected": "cat", "intent": "x"}
    captured = show(row)
    assert "read: chosen, rejected, prompt; not read: intent\n" in captured.err
    assert "warning: column 'intent' is not read" in captured.err
    assert "node 1 (chosen)" in captured.out and "node 2 (rejected)" in captured.out
    result = json.loads(show(row, "--json").out)
    assert result["unread"] == ["intent"]
    assert result["rows"][0]["leaves"] == {"1": "chosen", "2": "rejected"}


def test_a_few_rows_are_shown_as_all_of_them_are_read(show, tmp_path, tiny_folder, capsys):
    """The first three say 1 only; the others say that 0 is no tie."""
    path = tmp_path / "rows.jsonl"
    pairs = [{"instruction": "who", "output_1": "dog", "output_2": "cat", "preference": int(i < 3)} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    assert run(["show", str(path), "--model", str(tiny_folder)]) == 2
    assert "could mean two things" in capsys.readouterr().err
