"""What is printed: nothing that moves the cursor, nothing that hides, one line where one line is promised."""

from __future__ import annotations

import io

import pytest

from luthier.core import log
from luthier.core.errors import InputError, unknown
from luthier.core.screen import Screen, clean, line, printable

HOSTILE = [
    ("\x1b[31mred", "�[31mred"),
    ("\x1b]0;title\x07", "�]0;title�"),
    ("\x9b2J", "�2J"),
    ("a\x7fb\x00", "a�b�"),
    ("user\u202egnp.exe", "user�gnp.exe"),
    ("\u2066in\u2069\u061c\u200e\u200f", "�in����"),
    ("a\u200bb\ufeff\u2060", "a�b��"),
    ("tag\U000e0041\U000e007f", "tag��"),
    ("half \udc80", "half �"),
    ("👩\u200d🚀 é 句 نمی\u200cخواهم", "👩\u200d🚀 é 句 نمی\u200cخواهم"),  # joiners belong to emoji and to scripts
]


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_what_a_terminal_would_act_on_is_shown(text, shown):
    assert clean(text) == shown
    assert str(InputError(text, where=text, fix=text)) == f"{shown}: {shown}; {shown}"


def test_line_ends_and_tabs():
    assert clean("a\r\nb\tc\rd") == "a\nb   c�d"
    assert printable("a\r\nb\tc") == "a\nb\tc"
    assert line("one\r\n two\u2028three\x85four\n\n") == "one two three four"


def test_an_error_is_one_line_whatever_is_in_the_names(capsys):
    assert str(unknown("column", "a\nluthier: all is well", ["b\x1b[A"])) == (
        "unknown column 'a luthier: all is well'; known: b�[A"
    )
    log.warn("column 'x\nluthier: done\x1b[2K'")
    with log.progress("judged by \x1b]0;x\x07\n", 1) as bar:
        bar.advance(1, **{"loss\x1b[A": "1\r2"})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warning: column 'x luthier: done�[2K'"
    assert len(lines) == 3
    assert "loss�[A 1 2" in lines[-1]


def test_standard_output_lets_colours_pass_and_nothing_else(monkeypatch):
    """Past everything else that cleans: a traceback, the log of a library."""
    out = io.BytesIO()
    monkeypatch.setattr(Screen, "isatty", lambda self: True)
    screen = Screen(out, encoding="utf-8", errors="backslashreplace")
    screen.write("\x1b[31mluthier: bad\x1b[0m \x1b[2K\r\x1b[1A\x1b[?25l kept\n")
    screen.write("\x1b]0;owned\x07 \x1b]8;;http://x\x1b\\link \x1b[6n \x1bP \x9b1m \udcff \u202e\n")
    screen.flush()
    ours, foreign, _ = out.getvalue().decode().split("\n")
    assert ours == "\x1b[31mluthier: bad\x1b[0m \x1b[2K\r\x1b[1A\x1b[?25l kept"
    assert foreign == "�]0;owned� �]8;;http://x�\\link �[6n �P �1m � �"


def test_a_pipe_gets_no_escapes_at_all(monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    out = io.BytesIO()
    screen = Screen(out, encoding="utf-8", errors="backslashreplace")
    screen.write("\x1b[31mred\x1b[0m\r\n")
    screen.flush()
    assert out.getvalue().decode() == "�[31mred�[0m\n"
