"""Multiple choice: a question, its choices and the right one -> a chat that shows the choices and answers with a letter.

Never read unasked (`--data.layout choice`): such questions are benchmarks too, and without their choices they teach nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import Chat, Message
from luthier.data.codes import Codes, declared, plain_code
from luthier.data.layouts import Values, beside, opened
from luthier.data.messages import text_of
from luthier.data.preferences import Found

LETTERS = "ABCDEFGHIJ"
PLACES = range(1, len(LETTERS) + 1)
_MARKED = re.compile(r"[\[(]?([A-Ja-j])[\])]?[.:)]?")
_LISTED = re.compile(r"\(?([A-J])[.):]\s*")


STEMS = ("choice", "option", "opt", "op", "ending", "sol", "alternative", "answer", "hyp")


def names_of(place: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the column of a choice, its place counted from 1: where columns count from 0 (choice0, ending0), and
    others (option1, sol_1, opa, A)."""
    letter = LETTERS[place - 1].lower()
    zero, other = ((f"_{place - 1}", f"{place - 1}"), (f"_{place}", f"{place}", f"_{letter}", letter))
    return _names(zero), (*_names(other), letter)


def _names(ends: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{stem}{end}" for stem in STEMS for end in ends)


@dataclass(frozen=True)
class Question:
    """One question: what is asked, the texts of its choices, the labels that the row gives them ("" for none) and the names of
    their columns."""

    question: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    columns: tuple[str, ...] = ()


def choice(values: Values) -> Chat:
    """The question with lettered choices, under what it is about; the completion is the letter of the right choice."""
    question = _question(values, {})
    place = _place(values, question)
    about = text_of(values.get("context"), "context")
    lines = [f"{LETTERS[i]}. {text}" for i, text in enumerate(question.texts)]
    asked = "\n\n".join(part for part in (about, question.question) if part)
    content = "\n".join([asked, *lines, "Answer:"])
    turns = (Message("user", content), Message("assistant", LETTERS[place]))
    return Chat(opened(values, turns), **beside(values))


def answer_codes(found: Found, given: Mapping[str, str]) -> Codes | None:
    """How the answers name their choices, from all rows: by label, letter, text, or by number from 0 or from 1.

    Raises InputError where numbers could count from 0 or from 1, and where answers name nothing.
    """
    if given:
        return declared(given, LETTERS)
    read: Counter[str] = Counter()
    said: dict[str, list[int | None]] = {name: [] for name in _ANSWER_FORMS}
    answers: set[str] = set()
    for fields, where in found:
        values = {name: fields[column] for name, column in where.items()}
        try:
            question = _question(values, where)
        except InputError:
            continue  # told when the row is read
        if values.get("answer") is None:
            continue
        answers.add(plain_code(values["answer"]))
        read["rows"] += 1
        for name, way in _ANSWER_FORMS.items():
            said[name].append(way(values["answer"], question))
    whole = [name for name in _ANSWER_FORMS if said[name] and None not in said[name]]
    if not read["rows"] or "label" in whole:
        return None
    named = {plain_code(found[0][1].get(f"choice_{place}")): LETTERS[place - 1] for place in PLACES}
    if answers <= named.keys():
        return Codes(named, source="the names of the columns")
    if "text" in whole and any(not answer.lstrip("-").isdigit() for answer in answers):
        return None
    if len({tuple(said[name]) for name in whole}) > 1:
        codes = sorted(answers)
        example = ",".join(f"{code}={letter}" for code, letter in zip(codes, LETTERS, strict=False))
        raise InputError(
            f"the answers ({', '.join(codes)}) could name choices as {' or as '.join(_FORM_NAMES[name] for name in whole)}",
            fix=f"say what each means, such as --data.values '{example}'",
        )
    if whole and whole[0] in ("index0", "index1"):
        first = int(whole[0][-1])
        return Codes({str(i + first): LETTERS[i] for i in range(len(LETTERS))}, source="all rows")
    return None


def _question(values: Values, where: Mapping[str, str]) -> Question:
    """Raises InputError where there are no choices, or fewer than two, or more than there are letters."""
    asked, written = values.get("question"), values.get("choices")
    if isinstance(asked, Mapping):  # {"stem": ..., "choices": [...]}
        written = asked.get("choices") if written is None else written
        asked = asked.get("stem", asked.get("text"))
    labels: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    if written is not None:
        texts, labels = _written(written)
    elif "distractor_1" in values:
        wrong = [text_of(values[f"distractor_{i}"], "distractor") for i in PLACES if f"distractor_{i}" in values]
        texts = tuple(sorted([*wrong, text_of(values.get("answer"), "answer")]))  # no place tells the right one
    else:
        there = [f"choice_{i}" for i in PLACES if values.get(f"choice_{i}") not in (None, "")]
        texts = tuple(text_of(values[name], name) for name in there)
        columns = tuple(where.get(name, "") for name in there)
    if not 2 <= len(texts) <= len(LETTERS):
        raise InputError(f"a question with {len(texts)} choices", fix=f"give it 2 to {len(LETTERS)}")
    if not labels and all(found := [_LISTED.match(text) for text in texts]):
        marks = [match[1] for match in found if match]
        if marks == list(LETTERS[: len(marks)]):  # "A)21": the letters are written before the choices
            texts = tuple(_LISTED.sub("", text, count=1) for text in texts)
    return Question(text_of(asked, "question").rstrip(), texts, labels, columns)


def _written(written: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(texts, labels) of choices in one field: a list, {text, label}, {A: ..., B: ...}, or a list of {label, text}."""
    if isinstance(written, Mapping):
        texts = written.get("text", written.get("choices"))
        if isinstance(texts, (list, tuple)):
            labels = written.get("label", written.get("labels")) or ()
            return tuple(text_of(item, "choices") for item in texts), tuple(str(label) for label in labels)
        items = [(key, value) for key, value in written.items() if value is not None]  # a table adds keys as null
        return tuple(text_of(value, "choices") for _, value in items), tuple(str(key) for key, _ in items)
    if not isinstance(written, (list, tuple)):
        raise InputError("field 'choices' is neither a list nor an object", fix="write the choices as a list")
    if written and all(isinstance(item, Mapping) for item in written):
        texts = tuple(text_of(item.get("text", item.get("content")), "choices") for item in written)
        return texts, tuple(str(item.get("label", item.get("id", ""))) for item in written)
    return tuple(text_of(item, "choices") for item in written), ()


def _place(values: Values, question: Question) -> int:
    """Which choice is right. Raises InputError where the answer names none."""
    if set(question.labels) <= {"0", "1"} and question.labels.count("1") == 1:
        return question.labels.index("1")  # truth values beside the choices
    if values.get("answer") is None:
        raise InputError("nothing says which choice is right", fix="map it with --data.columns answer=COLUMN")
    answer = values["answer"]
    for name in ("label", "text", "letter"):
        if (place := _ANSWER_FORMS[name](answer, question)) is not None:
            return place
    raise InputError(
        f"answer {answer!r} names none of the {len(question.texts)} choices",
        fix="say what it means with --data.values, or leave such rows out with --data.skip_bad",
    )


def _by_label(answer: Any, question: Question) -> int | None:
    labels = [plain_code(label) for label in question.labels]
    return labels.index(plain_code(answer)) if labels.count(plain_code(answer)) == 1 else None


def _by_letter(answer: Any, question: Question) -> int | None:
    columns = [plain_code(name) for name in question.columns]
    if plain_code(answer) in columns:
        return columns.index(plain_code(answer))
    found = _MARKED.fullmatch(str(answer).strip())
    place = LETTERS.index(found[1].upper()) if found else len(LETTERS)
    return place if place < len(question.texts) else None


def _by_text(answer: Any, question: Question) -> int | None:
    texts = [text.strip() for text in question.texts]
    return texts.index(str(answer).strip()) if texts.count(str(answer).strip()) == 1 else None


def _by_number(first: int, answer: Any, question: Question) -> int | None:
    code = plain_code(answer)
    return int(code) - first if code.isdigit() and 0 <= int(code) - first < len(question.texts) else None


_AnswerForm = Callable[[Any, Question], int | None]
_ANSWER_FORMS: dict[str, _AnswerForm] = {
    "label": _by_label, "letter": _by_letter, "text": _by_text,
    "index0": partial(_by_number, 0), "index1": partial(_by_number, 1),
}  # fmt: skip
_FORM_NAMES = {
    "label": "labels", "letter": "letters", "text": "their text", "index0": "numbers from 0", "index1": "numbers from 1",
}  # fmt: skip
