"""Rows that would be read as what they are not, and why no layout reads some: errors that name columns and the way out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.core.errors import InputError
from luthier.data.messages import ROLE_OF
from luthier.data.multiple_choice import LETTERS
from luthier.data.rows import Row

ANSWER_COLUMNS = {
    "answer", "answer_key", "answerkey", "correct", "correct_answer", "correct_option", "answer_idx", "answer_index",
    "output", "completion", "response", "solution",
}  # fmt: skip
CONTEXT_COLUMNS = {
    "input", "context", "contexts", "passage", "passages", "article", "support", "evidence", "facts", "history", "tools",
    "tokens", "sentences",
}  # fmt: skip
IDENTIFYING = re.compile(r"(.*_)?(id|uuid|url|index|system|source_lang|target_lang|lang|language|split|model)")
MESSAGE_COLUMNS = (("role", "content"), ("role", "text"), ("from", "value"))


def column_of_choices(rows: Sequence[Row], names: Mapping[str, str]) -> str | None:
    """The column whose lists of texts the answers pick from, where all answers are letters or places; None where there is none.
    `names`: plain name -> column."""
    answers = [column for plain, column in names.items() if plain in ANSWER_COLUMNS]
    lists = [
        column
        for plain, column in names.items()
        if plain not in CONTEXT_COLUMNS and any(_texts(row.fields.get(column)) for row in rows)
    ]
    for column in lists:
        for answer in answers:
            both = [row.fields for row in rows if row.fields.get(column) and row.fields.get(answer) is not None]
            if both and all(_is_choice(fields[answer], fields[column]) for fields in both):
                return column
    return None


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 1 and all(isinstance(item, str) for item in value)


def _is_choice(answer: Any, texts: Any) -> bool:
    """Whether an answer is a letter or a place in a list of texts."""
    if not _texts(texts) or isinstance(answer, bool):
        return False
    if isinstance(answer, int):
        return 0 <= answer <= len(texts)
    return isinstance(answer, str) and len(answer) == 1 and answer.upper() in LETTERS[: len(texts)]


def refuse_single_messages(rows: Sequence[Row], names: Mapping[str, str]) -> None:
    """Raises InputError where each row is one message of a conversation: learned as a document, its role would be lost."""
    for role_key, text_key in MESSAGE_COLUMNS:
        if role_key in names and text_key in names:
            roles = [str(row.fields.get(names[role_key])).lower() for row in rows]
            if 2 * sum(role in ROLE_OF for role in roles) >= len(roles):
                raise InputError(
                    f"each row is one message ({names[role_key]}, {names[text_key]}), not a conversation", where=rows[0].origin,
                    fix='write each conversation as one row: {"messages": [{"role": ..., "content": ...}, ...]}',
                )  # fmt: skip


def no_preference(first: str, second: str, found: str) -> InputError:
    """Two answers stand side by side, and nothing that is known says which is better."""
    return InputError(
        f"two answers ('{first}', '{second}'), and no known column says which is better: found {found}",
        fix="map it with --data.columns preference=COLUMN, or declare another layout with --data.layout",
    )


def kind_of(value: Any) -> str:
    """What a value is, in a word or two."""
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, (list, tuple)) else "text" if isinstance(value, str) else "a number"


def quoted(name: str) -> str:
    return name if name.replace("_", "").isalnum() else f"'{name}'"
