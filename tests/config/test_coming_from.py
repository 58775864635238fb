"""The page for people from other programs says what Luthier says: each name in its tables is understood as the setting beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from luthier.config.elsewhere import needless, setting_for
from luthier.config.run import fields, flag_of

PAGE = Path(__file__).parents[2] / "docs" / "coming_from.md"
# Our own last name too, so that the setting is found by it; or read from the kind of its value, as `stage` is.
OWN = {"optimizer", "tokens", "method"}


def rows():
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 5:
            names = {name for cell in cells[1:4] for name in re.findall(r"`(\w+)`", cell)}
            yield pytest.param(names, cells[4], id=cells[0])


@pytest.mark.parametrize(("names", "ours"), rows())
def test_each_name_is_understood_as_the_setting_beside_it(names, ours):
    flag = next(iter(re.findall(r"`--([\w.]+)`", ours)), None)
    settings = {name for name in fields() if flag_of(name) == f"--{flag}"} if flag else {"data.path"}
    assert len(settings) == 1, ours
    said = {name: setting_for(name) for name in names - OWN if name not in PARTS}
    assert set(said.values()) <= settings, said


# Lines that say how learning goes together with others: `translate` reads them, each by itself is explained so.
PARTS = {"rl", "pref_loss", "quantization_bit"}


def test_what_needs_no_setting_is_said_by_the_program_too():
    for name in (
        "packing",
        "flash_attention",
        "logging_steps",
        "resume_from_checkpoint",
        "neftune_noise_alpha",
        "group_by_length",
    ):
        assert needless(name)
