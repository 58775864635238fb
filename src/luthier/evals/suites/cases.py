"""Groups, rows and {columns} -> cases: one prompt with its checks each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from luthier.core.errors import InputError, nearest
from luthier.core.types.examples import Message, Messages
from luthier.data.read import Row, read_rows
from luthier.evals.suites.document import Document, Place, validated
from luthier.evals.suites.spec import Case as CaseSpec
from luthier.evals.suites.spec import Check, Group, PromptSpec, Sampling

COLUMN = re.compile(r"\{\{|\}\}|\{([^{}\n]+)\}")
NAME_CHARACTERS = 60  # characters of a prompt that name a case without a name
SAMPLING: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 256, "seed": 0, "n": 1}

Fill = Callable[[Any], Any]


@dataclass(frozen=True)
class Case:
    """One prompt and what its answers must be. `number` is its place in the suite, `where` that of the case or its row in
    a file, `places` those of its checks."""

    number: int
    group: str
    name: str
    messages: Messages
    checks: tuple[Check, ...]
    places: tuple[str, ...]
    reference: str | None
    sampling: Mapping[str, Any]
    pass_rate: float
    where: str

    @property
    def prompt(self) -> str:
        """The last message of the user."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), self.messages[-1].content)


def expand(document: Document) -> list[Case]:
    """Every case of the suite, in order. Raises InputError, with file and line, for what cannot be asked or checked."""
    found: list[Case] = []
    names: set[str] = set()
    for i, group in enumerate(document.suite.groups):
        if group.name in names:
            raise InputError(f"two groups are called '{group.name}'", where=document.where(("groups", i, "name")))
        names.add(group.name)
        for case in _of_group(document, i, group):
            found.append(case(len(found)))
    if not found:
        raise InputError("a suite without cases", where=document.where(("groups",)))
    return found


def _of_group(document: Document, i: int, group: Group) -> Iterator[Callable[[int], Case]]:
    """The cases of a group, each still to be given its number."""
    sampling = SAMPLING | _given(document.suite.sampling) | _given(group.sampling)
    if sampling["n"] > 1 and sampling["temperature"] == 0:
        raise InputError(
            f"{sampling['n']} answers at temperature 0 are all the same", where=document.where(("groups", i, "sampling")),
            fix="give a temperature, such as 0.8",
        )  # fmt: skip
    if group.limit and not group.rows:
        raise InputError("'limit' is for groups with rows", where=document.where(("groups", i, "limit")))
    common = [(("groups", i, "checks", k), check) for k, check in enumerate(group.checks)]
    if not group.cases:
        templates: list[tuple[Place, CaseSpec]] = [(("groups", i), CaseSpec())]
    else:
        templates = [(("groups", i, "cases", j), case) for j, case in enumerate(group.cases)]
    for row in _rows(document, i, group):
        for place, own in templates:
            checks = [*common, *(((*place, "checks", k), check) for k, check in enumerate(own.checks))]
            if not checks:
                fix = "give `checks:` to the case or to its group"
                raise InputError("a case without checks", where=document.where(place), fix=fix)
            yield _case(document, group, own, place, checks, row, sampling)


def _given(sampling: Sampling) -> dict[str, Any]:
    return {key: value for key, value in sampling.model_dump().items() if value is not None}


def _rows(document: Document, i: int, group: Group) -> Iterator[Row | None]:
    if group.rows is None:
        yield None
        return
    file = str(document.path.parent / group.rows)
    try:
        some = False
        for row in islice(read_rows([file]), group.limit):
            some = True
            yield row
        if not some:
            raise InputError("no rows", where=file, fix="a group without cases tests nothing")
    except InputError as error:
        if str(error.where) == file:  # the file as a whole: say where it is named
            where = document.where(("groups", i, "rows"))
            raise InputError(f"{file}: {error.what}", where=where, fix=error.fix) from None
        raise


def _case(
    document: Document, group: Group, own: CaseSpec, place: Place, checks: list[tuple[Place, Check]], row: Row | None,
    sampling: Mapping[str, Any],
) -> Callable[[int], Case]:  # fmt: skip
    """A case from what the group and the case say, the columns of a row filled in."""
    where = document.where(place)

    def fill(value: Any, checked: bool = False) -> Any:
        return value if row is None else _filled(value, row, where, checked)

    def filled(at: Place, check: Check) -> Check:
        if row is None:
            return check
        values = fill(check.model_dump(by_alias=True, exclude_unset=True), checked=True)
        return validated(Check, values, document.path, document.root, at)

    messages = _messages(own if own.prompt is not None or own.messages is not None else group, where, fill)
    system = next((text for text in (own.system, group.system, document.suite.system) if text is not None), None)
    if system and messages[0].role != "system":
        messages = (Message("system", fill(system)), *messages)
    reference = group.reference if own.reference is None else own.reference
    rates = (own.pass_rate, group.pass_rate, document.suite.pass_rate, 1.0)
    told = tuple(filled(*check) for check in checks)
    places = tuple(document.where(at) for at, _ in checks)
    name = fill(own.name) or _opening(messages[-1].content)
    rate = next(rate for rate in rates if rate is not None)
    origin = str(row.origin) if row else where
    return lambda number: Case(
        number, group.name, name, messages, told, places, fill(reference), sampling, rate, origin
    )


def _messages(asked: PromptSpec, where: str, fill: Fill) -> Messages:
    if (asked.prompt is None) == (asked.messages is None):
        both = asked.prompt is not None
        what = "both a prompt and messages" if both else "nothing is asked"
        raise InputError(what, where=where, fix="give `prompt:` or `messages:`, one of them")
    if asked.prompt is not None:
        return (Message("user", fill(asked.prompt)),)
    turns = tuple(Message(turn.role, fill(turn.content)) for turn in asked.messages or ())
    if not turns or turns[-1].role == "assistant":
        raise InputError("the messages end where no answer can follow", where=where, fix="end with the user's message")
    return turns


def _opening(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= NAME_CHARACTERS else line[:NAME_CHARACTERS].rstrip() + "…"


def _filled(value: Any, row: Row, where: str, checked: bool) -> Any:
    """The value with every {column} in its texts replaced; {{ and }} are braces themselves. `checked`: it is a check."""
    if isinstance(value, dict):
        return {key: _filled(item, row, where, checked) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, row, where, checked) for item in value]
    if not isinstance(value, str):
        return value

    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return found[0][0]
        if name in row.fields:
            return _cell(row, name, checked)
        if not name.replace("_", "a").replace("-", "a").isalnum() or name[0].isdigit():
            return found[0]  # {"a": 1} and \d{3} are no columns
        guess = nearest(name, row.fields)
        fix = (
            f"did you mean '{{{guess}}}'?" if guess else f"there are: {', '.join(row.fields)}; {{{{ stands for a brace"
        )
        raise InputError(f"no column '{name}' in {row.origin}", where=where, fix=fix)

    return COLUMN.sub(replace, value)


def _cell(row: Row, name: str, checked: bool) -> str:
    """A column as text. An empty one would make a check that means nothing: every answer contains ''."""
    value = row.fields[name]
    if value is None or (checked and not str(value).strip()):
        what = f"column '{name}' is {'null' if value is None else 'empty, and a check reads it'}"
        raise InputError(what, where=row.origin, fix="fill it in, or remove the row")
    return str(value)
