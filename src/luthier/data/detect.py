"""Which layout some rows have, and which column each of its fields is read from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from luthier.core.errors import InputError, unknown
from luthier.data import layout_errors, mapping
from luthier.data.cell_values import field_value
from luthier.data.layout_table import CHOICES, LAYOUTS, MIXED, USUAL, Layout
from luthier.data.mapping import plain_name
from luthier.data.read import Row


class UnknownLayout(InputError):
    """No layout reads the rows; what does may be found by a look at their values (`suggest`)."""


ANSWER_FIELDS = ("prompt", "completion", "instruction", "output")
PAIR_MAPPING = "prompt=COLUMN,completion=COLUMN"


def detect(rows: Sequence[Row], columns: Mapping[str, str], *, declared: str = "auto") -> Layout:
    """The layout of some first rows: `declared`, or the first of LAYOUTS whose needed fields most rows have. Of files with
    mappings of their own, those that are mapped as the first one is.

    Raises InputError, with the fields found and the nearest layouts, when there is none.
    """
    _check_fields(columns)
    mapping.check_columns(columns, rows)
    if declared == MIXED.name:
        return MIXED
    if declared != "auto":
        return _declared(declared, columns)
    mine = mapping.of_file(columns, rows[0].origin.file)
    if mine.keys() & {"spans", "entities"}:  # no other layout has this field, so to map it is to declare it
        return _declared("spans", mine)
    rows = [mapping.shaped(row, mine) for row in rows if mapping.of_file(columns, row.origin.file) == mine]
    found, columns = found_columns(rows), mine
    if not columns and not _is_tree(found):
        layout_errors.refuse_single_messages(rows, _plain_names(found))
    if not _has_choices(rows, found, columns) and not _is_tree(found):
        for layout in LAYOUTS.values():
            where = resolved(layout, found, columns)
            if layout.names >= columns.keys() and where.keys() >= set(layout.needed) and _most(rows, layout, where):
                if layout.name == "prompt":
                    _refuse_undecided(rows, found, columns)
                return layout
        _refuse_undecided(rows, found, columns)
    raise _unknown_layout(rows, found, columns)


def found_columns(rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns that hold something in at least half of the rows, in the order of their appearance."""
    count: dict[str, int] = {}
    for row in rows:
        for name, value in row.fields.items():
            count[name] = count.get(name, 0) + (value is not None)
    return tuple(name for name, times in count.items() if times and 2 * times >= len(rows))


def resolved(layout: Layout, found: Iterable[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Which column each field of the layout is read from, for the fields that are there.

    A field that is mapped, by any of its names, is read from that column alone. Names are compared without
    case, a blank counting as '_'. What a template or a path reads is no other field's, and what a template says is whole:
    `mapping.PARTS` are no part of it.
    """
    found = tuple(found)
    by_name = {plain_name(name): name for name in reversed(found)}
    apart = {plain_name(name) for name in mapping.used(columns, dict.fromkeys(found))} if columns else set()
    whole = {
        part for name, parts in mapping.PARTS.items() if mapping.is_template(columns.get(name, "")) for part in parts
    }
    canonical = {field.name for field in layout.fields}
    where: dict[str, str] = {}
    for field in layout.fields:
        # A name that is another field's own maps that one alone.
        own = (name for name in field.names if name == field.name or name not in canonical)
        mapped = tuple(columns[name] for name in own if name in columns)
        others = () if field.name in whole else tuple(name for name in field.names if plain_name(name) not in apart)
        names = mapped or others
        free = (by_name[plain_name(name)] for name in names if plain_name(name) in by_name)
        column = next((name for name in free if name not in where.values()), None)
        if column is not None:
            where[field.name] = column
    return where


def columns_of(layout: Layout, row: Row, columns: Mapping[str, str]) -> dict[str, str]:
    """Which column of this row (`mapping.shaped`) each field is read from: one that holds something, where several go by its names."""
    columns = mapping.of_file(columns, row.origin.file)
    where = resolved(layout, filled(row), columns)
    if len(where) < len(layout.fields):  # an empty column is better than none: it says that the field is empty
        free = (name for name in row.fields if name not in where.values())
        where = resolved(layout, free, columns) | where
    return where


def values_of(row: Row, where: Mapping[str, str]) -> dict[str, Any]:
    """field -> value, of the columns that this row has."""
    return {name: field_value(name, row.fields[column]) for name, column in where.items() if column in row.fields}


def filled(row: Row) -> tuple[str, ...]:
    """The columns of a row that hold something."""
    return tuple(name for name, value in row.fields.items() if not is_empty(value))


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, an empty text, list or object, NaN (what tables put into empty cells)."""
    return value is None or (isinstance(value, (str, list, tuple, dict)) and not value) or value != value


def own_layout(layout: Layout, row: Row) -> Layout:
    """The layout of one row: `layout`, or what its own columns tell where the layout is `mixed`."""
    if layout.name != MIXED.name:
        return layout
    found = detect([row], {})
    return layout.parts.get(found.name, found)


def _most(rows: Sequence[Row], layout: Layout, where: Mapping[str, str]) -> bool:
    """Whether `fits` holds for at least half of the rows that have the needed fields."""
    whole = [row for row in rows if all(where[name] in row.fields for name in layout.needed)]
    fitting = sum(layout.fits(values_of(row, where), where) for row in whole)
    return bool(whole) and 2 * fitting >= len(whole)


def _has_choices(rows: Sequence[Row], found: Sequence[str], columns: Mapping[str, str]) -> bool:
    """Whether the rows are multiple-choice questions: choices in one column, or in several. Two columns of answers, and which is
    better, are a comparison."""
    if columns.keys() & LAYOUTS["choice"].names & {"choices"}:
        return True
    named = [name for name in found if plain_name(name) in CHOICES and name not in columns.values()]
    if any(_holds_texts(row.fields.get(name)) for name in named for row in rows):
        return True
    where = resolved(LAYOUTS["choice"], found, columns)
    several = [column for name, column in where.items() if name.startswith("choice_")]
    beside = {"question", "answer"} <= where.keys()
    two_answers = len(several) == 2 and all(plain_name(column).startswith("answer") for column in several)
    if beside and ((len(several) > 1 and not two_answers) or "distractor_1" in where):
        return True
    return (
        "question" in where and layout_errors.column_of_choices(rows, _plain_names(found, columns.values())) is not None
    )


def _plain_names(found: Iterable[str], without: Iterable[str] = ()) -> dict[str, str]:
    """Plain name -> column."""
    return {plain_name(name): name for name in found if name not in set(without)}


def _refuse_undecided(rows: Sequence[Row], found: Sequence[str], columns: Mapping[str, str]) -> None:
    """Raises InputError for two answers side by side that no layout compares."""
    where = resolved(LAYOUTS["comparison"], found, columns)
    if {"output_1", "output_2"} <= where.keys():
        error = layout_errors.no_preference(where["output_1"], where["output_2"], listed(found))
        raise InputError(error.what, where=rows[0].origin, fix=error.fix)


def _is_tree(found: Sequence[str]) -> bool:
    """Whether the rows are messages that name the one they answer, or prompts with trees of answers (OpenAssistant)."""
    names = {plain_name(name) for name in found}
    return {"parent_id", "role"} <= names or {"message_tree_id", "prompt"} <= names


def _holds_texts(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(isinstance(item, (str, list, tuple, Mapping)) for item in value.values())
    return isinstance(value, (str, list, tuple)) and bool(value)


def _check_fields(columns: Mapping[str, str]) -> None:
    known = {name for layout in LAYOUTS.values() for name in layout.names}
    for key in columns:
        if (name := _field(key)) not in known:
            raise unknown("field", name, known, where="--data.columns")


def _declared(name: str, columns: Mapping[str, str]) -> Layout:
    if name not in LAYOUTS:
        raise unknown("layout", name, (*LAYOUTS, MIXED.name))
    for key in columns:
        if (field := _field(key)) not in LAYOUTS[name].names:
            raise unknown(f"field of layout '{name}'", field, LAYOUTS[name].names, where="--data.columns")
    return LAYOUTS[name]


def _field(key: str) -> str:
    """The field of FIELD or FILE:FIELD."""
    return key.rpartition(":")[2]


def _unknown_layout(rows: Sequence[Row], found: Sequence[str], columns: Mapping[str, str]) -> InputError:
    where = rows[0].origin
    if not found:
        raise InputError(
            "the files differ: no field is in most of their rows", where=where,
            fix="give them one by one, or --data.layout mixed",
        )  # fmt: skip
    if _has_choices(rows, found, columns):
        return InputError(
            f"multiple-choice questions, which teach nothing without their choices: found {listed(found)}",
            where=where, fix=f"declare --data.layout choice{_mapped(rows, found)} to learn the right letter from question and "
            "choices, or another layout",
        )  # fmt: skip
    if _is_tree(found):
        return InputError(
            f"messages that are nodes of trees: found {listed(found)}",
            where=where, fix="write each path of a tree as one conversation",
        )  # fmt: skip
    lacking = {
        layout.name: [name for name in layout.needed if name not in resolved(layout, found, columns)]
        for layout in LAYOUTS.values()
    }
    unfit = [name for name in USUAL if not lacking[name] and name != "text"]
    if unfit:  # the columns are there, but their values are not what they should be
        held = {column: rows[0].fields.get(column) for column in resolved(LAYOUTS[unfit[0]], found, columns).values()}
        odd = [
            f"'{column}' is {layout_errors.kind_of(value)}"
            for column, value in held.items()
            if not isinstance(value, str)
        ]
        if odd:
            return InputError(
                f"layout '{unfit[0]}' does not take such values: {listed(odd)}", where=where,
                fix="write them as text, or declare what it is with --data.layout",
            )  # fmt: skip
    share = {name: len(lacks) / len(LAYOUTS[name].needed) for name, lacks in lacking.items() if lacks}
    # Where nothing fits a little, the usual layouts are the ones to tell of.
    near = sorted(share, key=lambda name: (share[name], name not in USUAL))[:3]
    nearest = ", ".join(f"{name} (lacks {' and '.join(lacking[name])})" for name in near)
    return UnknownLayout(
        f"unknown layout: found {listed(found)}; nearest: {nearest}",
        where=where, fix=f"map the columns, such as --data.columns {_such(lacking[near[0]])}",
    )  # fmt: skip


def _such(lacks: Sequence[str]) -> str:
    """Fields to map: those of the nearest layout; where that is none of questions with answers, theirs too."""
    first = ",".join(f"{name}=COLUMN" for name in lacks)
    if lacks[0] in ANSWER_FIELDS:
        return first
    return f"{first}, or {PAIR_MAPPING} for questions with answers"


def _mapped(rows: Sequence[Row], found: Sequence[str]) -> str:
    """What says where the choices stand, where no name does."""
    column = layout_errors.column_of_choices(rows, _plain_names(found))
    if column is None or "choices" in resolved(LAYOUTS["choice"], found, {}):
        return ""
    return f" --data.columns choices={layout_errors.quoted(column)}"


def listed(names: Iterable[str], most: int = 12) -> str:
    all_names = [str(name) for name in names]
    return ", ".join(all_names[:most]) + (f" and {len(all_names) - most} more" if len(all_names) > most else "")
