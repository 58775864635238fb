"""Tokens that a tokenizer gets: how they are written, and which are new to a model."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

from luthier.core.errors import InputError
from luthier.text import new_tokens


def written(folder: Path, text: str) -> str:
    path = folder / "tokens.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<call>\n</call>\n", ["<call>", "</call>"]),
        ("\ufeff<call>\r\n\r\nmyelin\r\n<call>", ["<call>", "myelin"]),
        ('["<call>", "two words", "\\n"]'.replace(', "\\n"', ""), ["<call>", "two words"]),
    ],
    ids=["lines", "of Windows", "a list"],
)
def test_tokens_are_lines_or_a_list(text, found, tmp_path: Path) -> None:
    assert new_tokens.read(written(tmp_path, text)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no token in this file"),
        ("[1, 2]", "not a list of texts"),
        ('["a"', "not JSON"),
        ("a\n \n", ":2: a token of spaces alone"),
        ("x" * 129, "a token of 129 characters"),
    ],
    ids=["nothing", "numbers", "half", "spaces", "long"],
)
def test_what_is_no_token_is_named_with_its_place(text, words, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        new_tokens.read(written(tmp_path, text))
    with pytest.raises(InputError, match=re.escape("no such file")):
        new_tokens.read(str(tmp_path / "none.txt"))


def test_new_tokens_are_those_without_a_row(tiny_tokenizer, capsys) -> None:
    """One is the tokenizer's already; one is too, but the embedding ends before it."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    size = len(tokenizer)
    tokenizer.add_tokens(["<late>"])
    assert new_tokens.add(tokenizer, ["<|im_end|>", "<late>", "<call>"], rows=size) == [size, size + 1]
    assert "2 of 3 tokens are already in the tokenizer, such as '<|im_end|>'" in capsys.readouterr().err
    ids = tokenizer("the<call>cat")["input_ids"]
    assert ids.count(size + 1) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the<call>cat"
