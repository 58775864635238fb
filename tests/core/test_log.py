"""Progress and notes: on standard error, figures for people."""

from __future__ import annotations

import io
import itertools
import sys

import pytest

from luthier.core import log


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (98_362_432, "98 MB"), (1.44e9, "1.4 GB"), (2e12, "2000.0 GB")],
)
def test_sizes(count, text):
    assert log.size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (187, "3:07"), (3723, "1:02:03")])
def test_clocks(seconds, text):
    assert log.clock(seconds) == text


def test_notes_go_to_standard_error(capsys):
    log.note("one")
    log.warn("two")
    assert capsys.readouterr() == ("", "one\nwarning: two\n")


def test_what_was_said_once_is_not_said_again(capsys):
    for _ in range(2):
        log.once("how this file was read")
        log.warn_once("what of it was lost")
    assert capsys.readouterr().err == "how this file was read\nwarning: what of it was lost\n"


def test_a_bar_in_a_pipe_says_its_last_state_once(capsys):
    with log.progress("work", 4) as bar:
        for _ in range(4):
            bar.advance(1, loss=0.12345, memory="3 MB", **{"tokens/s": 7})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("work ━━━━━━────────────────── 1/4")
    assert lines[-1] == "work " + "━" * 24 + " 4/4  loss 0.1235  memory 3 MB  tokens/s 7  left 0:00"


def test_a_bar_without_a_total(capsys):
    with log.progress("read", None) as bar:
        bar.advance(7, **{"rows/s": 3})
    assert capsys.readouterr().err.splitlines()[-1] == "read 7  rows/s 3  0:00"


def test_a_resumed_bar_counts_its_rate_from_where_it_began(capsys, monkeypatch):
    now = iter([0.0, 100.0, 100.0, 200.0, 200.0, 200.0])
    monkeypatch.setattr(log.time, "monotonic", lambda: next(now))
    bar = log.Bar("work", 100)
    bar.start_at(90)
    bar.advance(5)
    assert "95/100  0.05/s  left 1:40" in capsys.readouterr().err


def test_a_bar_says_where_work_of_unknown_length_stands(capsys, monkeypatch):
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    now = 0.0
    bar = log.Bar("answers", None)
    now = 20.0
    bar.at(40, 128, "step 40 of at most 128, 5 of 8 ended", memory="1.2 GB")
    assert capsys.readouterr().err == (
        "answers ━━━━━━━━──────────────── step 40 of at most 128, 5 of 8 ended  2/s  memory 1.2 GB  left 0:44\n"
    )


FIGURES = {"reward": "0.523 ↑", "KL": "0.31", "ended": "86%", "length": "41", "tokens/s": "230", "memory": "1.2 GB"}


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (130, f"training {'━' * 6}{'─' * 18} 12/50  reward 0.523 ↑  KL 0.31  ended 86%  length 41  tokens/s 230  memory 1.2 GB  left 1:16"),
        (118, f"training {'━' * 4}{'─' * 11} 12/50  reward 0.523 ↑  KL 0.31  ended 86%  length 41  tokens/s 230  memory 1.2 GB  left 1:16"),
        (105, "training 12/50  reward 0.523 ↑  KL 0.31  ended 86%  length 41  tokens/s 230  memory 1.2 GB  left 1:16"),
        (100, f"training {'━' * 3}{'─' * 9} 12/50  reward 0.523 ↑  KL 0.31  ended 86%  length 41  tokens/s 230  left 1:16"),
        (80, "training 12/50  reward 0.523 ↑  KL 0.31  ended 86%  length 41  left 1:16"),
        (50, "training 12/50  reward 0.523 ↑  left 1:16"),
        (40, f"training {'━' * 2}{'─' * 6} 12/50  reward 0.523 ↑"),
        (20, "training 12/50  rew"),
    ],
)  # fmt: skip
def test_a_bar_leaves_out_what_does_not_fit_and_keeps_what_is_given_first(monkeypatch, capsys, columns, line):
    now = 0.0
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    bar = log.Bar("training", 50)
    now = 24.0
    bar.advance(12, **FIGURES)
    assert capsys.readouterr().err == f"\r\x1b[2K{line}"


def test_a_bar_is_drawn_in_place_in_a_notebook(monkeypatch):
    """A cell's standard error is no terminal: ten seconds between lines would leave it empty, and it erases nothing by itself."""
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stderr", stream)
    now = iter(range(0, 100, 2))
    monkeypatch.setattr(log.time, "monotonic", lambda: float(next(now)))
    with log.progress("work", 3) as bar:
        for loss in ("12.5", "3.1", "0.9"):
            bar.advance(1, loss=loss)
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n") and "\x1b" not in text
    drawn = text.strip("\n").split("\r")[1:]
    assert [part.split("loss ")[1].split()[0] for part in drawn if "loss" in part][:3] == ["12.5", "3.1", "0.9"]
    assert all(len(later) >= len(earlier.rstrip()) for earlier, later in itertools.pairwise(drawn))


def test_a_bar_is_drawn_in_place_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with log.progress("work", 2) as bar:
        bar.advance(2)
    err = capsys.readouterr().err
    assert err.startswith("\r\x1b[2K")
    assert err.endswith("\n")
    assert err.count("\n") == 1


def test_a_bar_is_closed_when_the_work_fails(capsys):
    with pytest.raises(ZeroDivisionError), log.progress("work", 2) as bar:
        bar.advance(1 // 0)
    assert "work" in capsys.readouterr().err
