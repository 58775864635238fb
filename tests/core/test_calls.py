"""Whatever a library raises is one line; what is ours, or the user's hand, passes."""

from __future__ import annotations

import errno

import pytest

from luthier.core.errors import InputError, RunError
from luthier.core.foreign.calls import library_errors


class Panic(BaseException):
    """As Rust's panics come."""


def told(error):
    with pytest.raises(InputError) as caught, library_errors("cannot read it", where="a.bin", fix="copy it"):
        raise error
    return caught.value.what


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("first\nsecond"), "cannot read it: first"),
        (KeyError("name"), "cannot read it: 'name' is missing"),
        (AssertionError(), "cannot read it: AssertionError"),
        (Panic("called `unwrap` on `None`"), "cannot read it: called `unwrap` on `None`"),
        (MemoryError(), "cannot read it: it takes more memory than there is here"),
        (RecursionError("maximum"), "cannot read it: it is nested too deeply"),
        (OSError("x" * 9000), "cannot read it: " + "x" * 199 + "…"),
    ],
)
def test_one_line(error, reason):
    assert told(error) == reason


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), RunError("ours"), OSError(errno.ENOSPC, "full")])
def test_what_passes(error):
    with pytest.raises(type(error)) as caught, library_errors("cannot read it", where="a", fix="b"):
        raise error
    assert caught.value is error
