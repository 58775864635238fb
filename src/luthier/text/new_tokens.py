"""Tokens that a tokenizer gets before training: words and marks of the user's own, one a line or as a JSON list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from luthier.core import log
from luthier.core.errors import InputError
from luthier.core.foreign.forms import read_line
from luthier.core.storage.files import small_file

WHERE = "--tune.add_tokens"
LARGEST = 16 << 20  # bytes of such a file
LONGEST = 128  # characters of a token: each is looked for at every character of a text


def read(path: str) -> list[str]:
    """The tokens of a file, in its order, each once. Raises InputError for a file without any, and for what is no token."""
    file = Path(path).expanduser()
    try:
        content = small_file(file, LARGEST)
    except FileNotFoundError:
        raise InputError(f"no such file: {file}", where=WHERE, fix="give a file of tokens, one per line") from None
    if content.lstrip().startswith(b"["):
        found = read_line(content, where=file, fix="write a list of texts")
        if not isinstance(found, list) or not all(isinstance(token, str) for token in found):
            raise InputError("not a list of texts", where=file, fix='such as ["<call>", "</call>"]')
    else:
        try:
            found = [line for line in content.decode("utf-8-sig").splitlines() if line]
        except UnicodeDecodeError:
            raise InputError("not UTF-8", where=file, fix="save it as UTF-8") from None
    for number, token in enumerate(found, 1):
        if not token.strip() or len(token) > LONGEST:
            what = f"a token of {len(token):,} characters" if token.strip() else "a token of spaces alone"
            raise InputError(what, where=f"{file}:{number}", fix=f"tokens have up to {LONGEST} characters")
    if not found:
        raise InputError("no token in this file", where=file, fix="write one per line")
    return list(dict.fromkeys(found))


def add(tokenizer: Any, tokens: list[str], rows: int) -> list[int]:
    """Add to transformers' tokenizer those of `tokens` that it does not have; return the ids of those, and of those that an embedding
    of `rows` rows has none for. They are found wherever they stand in a text, and stay in what is decoded."""
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    new = [token for token in tokens if token not in known]
    fresh = set(new)
    if len(new) < len(tokens):
        had = next(token for token in tokens if token in known)
        log.note(f"{len(tokens) - len(new)} of {len(tokens)} tokens are already in the tokenizer, such as '{had}'")
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in new])
    ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in tokens}
    return sorted(number for token, number in ids.items() if token in fresh or number >= rows)
