"""Where results go: words for people are clean, JSON is exact."""

from __future__ import annotations

import json

import pytest
from rich.table import Table

from luthier.commands.chat import ChatSession
from luthier.commands.output import console, print_json

EVIL = "\x1b[31mx\x1b]0;own\u202e[red]y[/red] :smile: \ud800\tz"
SHOWN = "�[31mx�]0;own�[red]y[/red] :smile: �"


def test_a_table_of_foreign_words_has_no_markup_emoji_or_escapes(capsys):
    table = Table(EVIL, EVIL)
    table.add_row(EVIL, "b")
    console().print(table)
    console().print(EVIL)
    out = capsys.readouterr().out
    assert out.count(SHOWN[:-2]) == 4
    assert not {"\x1b", "\u202e"} & set(out)


def test_json_is_exact_and_holds_nothing_that_a_terminal_would_act_on(capsys):
    print_json({EVIL: ["\u2028\U000e0041\x9b\x7f", "é 句"]})
    out = capsys.readouterr().out
    assert json.loads(out) == {EVIL: ["\u2028\U000e0041\x9b\x7f", "é 句"]}
    assert out.isprintable() or not {"\x1b", "\u202e", "\u2028", "\x9b", "\x7f", "\U000e0041"} & set(out)
    assert "é 句" in out


class Answering:
    """A model that says one thing, in two pieces."""

    active, names = "base", ()

    def switch(self, name):
        pass

    def answer(self, turns, sampling, **more):
        yield from (EVIL, "\x1b[2J\n")


@pytest.mark.parametrize("compare", [None, "base"])
def test_what_a_model_says_in_a_chat_moves_nothing(capsys, compare):
    ChatSession(Answering(), compare, "be\x1b[2J\nkind", {}).say("who?")
    out = capsys.readouterr().out
    assert f"{SHOWN}\tz�[2J\n" in out  # a tab is a tab: code is copied from here
    assert "\x1b" not in out
