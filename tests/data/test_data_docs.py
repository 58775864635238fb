"""The examples in docs/data.md are what they say they are."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from luthier.core.types.examples import Origin
from luthier.data.convert import to_examples
from luthier.data.data_card import Card
from luthier.data.detect import detect
from luthier.data.layout_codes import with_codes
from luthier.data.layout_table import LAYOUTS
from luthier.data.read import Row

DOCUMENT = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def examples():
    for section in re.split(r"^### ", DOCUMENT, flags=re.MULTILINE)[1:]:
        names = section.split("\n", 1)[0].split(", ")
        for block in re.findall(r"```json\n(.*?)```", section, flags=re.DOTALL):
            decoder, position = json.JSONDecoder(), 0
            while position < len(block.rstrip()):
                value, position = decoder.raw_decode(block, position)
                position += len(block[position:]) - len(block[position:].lstrip())
                yield names, value


@pytest.mark.parametrize(("names", "value"), examples())
def test_example_has_the_layout_of_its_section(names, value):
    rows = [Row(value, Origin())]
    layout = with_codes(detect(rows, {}), rows, {}, {})
    assert layout.name in names
    assert len(list(to_examples(rows, layout, {}))) == 1


def test_every_layout_and_every_key_of_the_card_is_described():
    for name, layout in LAYOUTS.items():
        row = next(line for line in DOCUMENT.splitlines() if line.startswith(f"| `{name}` |"))
        assert all(f"`{field}`" in row or (field == "messages" and name == "sharegpt") for field in layout.needed)
    for field in fields(Card):
        assert f"`{field.name}`" in DOCUMENT
