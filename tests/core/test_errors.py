"""Errors are one line: what, where, how to fix it."""

from __future__ import annotations

import pytest

from luthier.core.errors import DiskFull, InputError, LuthierError, RunError, Stopped, nearest, unknown


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ({}, "wrong"),
        ({"where": "a:3"}, "a:3: wrong"),
        ({"fix": "do so"}, "wrong; do so"),
        ({"where": 3, "fix": "do so"}, "3: wrong; do so"),
    ],
)
def test_what_where_and_how(named, text):
    assert str(LuthierError("wrong", **named)) == text


def test_exit_statuses():
    assert [e.exit_code for e in (InputError, RunError, DiskFull, Stopped)] == [2, 1, 2, 130]


def test_the_nearest_name():
    names = ["train", "data", "chat"]
    assert (nearest("trian", names), nearest("xyz", names), nearest("", [])) == ("train", None, None)


def test_an_unknown_name_gets_the_nearest_or_the_list():
    assert str(unknown("tune kind", "loar", ["full", "lora"], where="--tune")) == (
        "--tune: unknown tune kind 'loar'; did you mean 'lora'?"
    )
    assert str(unknown("kind", "x", ["b", "a"])) == "unknown kind 'x'; known: a, b"


def test_an_error_that_quotes_a_whole_file_is_one_short_line():
    error = InputError("this is '" + "[0, " * 100_000 + "]'\nof type list", where="a" * 5000, fix="fix it")
    assert len(str(error)) < 1300 and "\n" not in str(error)
    assert (
        error.what.startswith("this is '[0,")
        and error.what.endswith("of type list")
        and str(error).endswith("; fix it")
    )
