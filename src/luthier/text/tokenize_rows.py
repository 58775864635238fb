"""The segments of many rows -> ids, at once; where the tokenizer fails, the row at fault is found."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.core.errors import InputError
from luthier.text.tokenizer import Tokenizer

Ids = list[int] | InputError


def tokenized(pieces: Sequence[tuple[str, str]], sizes: Sequence[int], tokenizer: Tokenizer) -> list[Ids]:
    """The ids of all segments, of which the rows have so many each. Where the tokenizer fails, the error stands for those of
    the row at fault."""
    try:
        return list(tokenizer.encode_pieces(pieces))
    except InputError:
        out: list[Ids] = []
    for size in sizes:
        try:
            out += tokenizer.encode_pieces(pieces[len(out) : len(out) + size])
        except InputError as error:
            out += [error] * size
    return out


def ids_of(found: Sequence[Ids]) -> list[list[int]]:
    """The ids of a branch. Raises InputError where the tokenizer failed."""
    out = []
    for ids in found:
        if isinstance(ids, InputError):
            raise ids
        out.append(ids)
    return out
