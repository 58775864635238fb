"""Rows -> Examples: the table of layouts, how one is found, and what is said when a row does not fit.

To add a layout: a function in `layouts.py` and a row in LAYOUTS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from luthier.core.errors import InputError, unknown
from luthier.core.types import Chat, Example, Labelled, Pair, Preference, Prompt, Ranking, Text
from luthier.data import flags, layouts
from luthier.data.layouts import Unused, Values
from luthier.data.read import Report, Row


@dataclass(frozen=True, slots=True)
class Field:
    """What a layout reads: a column of this name, or of the first of `others` that is there."""

    name: str
    others: tuple[str, ...] = ()
    needed: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """All names it goes by, its own first."""
        return (self.name, *self.others)


def _always(values: Values) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to write examples down. `fits` looks at a row whose columns have the right names."""

    name: str
    example: type[Example]
    fields: tuple[Field, ...]
    parse: Callable[[Values], Example]
    about: str
    fits: Callable[[Values], bool] = _always

    @property
    def needed(self) -> tuple[str, ...]:
        """The names of the fields every row must have."""
        return tuple(field.name for field in self.fields if field.needed)

    @property
    def names(self) -> set[str]:
        """All names its fields go by."""
        return {name for field in self.fields for name in field.names}


def _fields(needed: str, optional: str = "") -> tuple[Field, ...]:
    """'a|b c' -> field a, which may be called b, and field c."""
    split = [(word.split("|"), True) for word in needed.split()]
    split += [(word.split("|"), False) for word in optional.split()]
    return tuple(Field(names[0], tuple(names[1:]), need) for names, need in split)


def _is_truth(values: Values) -> bool:
    return flags.truth(values["label"]) is not None


_BESIDE = "system tools chat_template_kwargs|template_kwargs"  # what any row with a prompt may have
_PROMPT = "prompt|question|query"
_ANSWER = "completion|response|answer|output"
_TALK = "messages|conversations|conversation"
_ANY_PROMPT = "messages|conversations prompt|question instruction input"

# Tried from the top: the first whose needed fields are all there, and whose `fits` holds.
_TABLE = (
    Layout(
        "comparison", Preference, _fields("instruction|prompt|question output_1 output_2 preference", f"input {_BESIDE}"),
        layouts.comparison, "two answers and which is better: 1, 2, or a tie",
    ),
    Layout(
        "ranking", Ranking, _fields("prompt|instruction|question responses", f"ranks {_BESIDE}"),
        layouts.ranking, "several answers to a prompt, best first or with ranks",
    ),
    Layout(
        "preference", Preference,
        _fields("chosen|accepted|preferred rejected|non_preferred", f"{_ANY_PROMPT} margin {_BESIDE}"),
        layouts.preference, "a preferred and a rejected answer, with or without their prompt",
    ),
    Layout(
        "unpaired", Labelled, _fields(f"{_PROMPT}|instruction {_ANSWER} label|kto_tag", _BESIDE),
        layouts.unpaired, "an answer, and whether it was wanted", _is_truth,
    ),
    Layout(
        "unpaired_chat", Labelled, _fields(f"{_TALK} label|kto_tag", _BESIDE),
        layouts.unpaired, "a conversation, and whether its last answer was wanted", _is_truth,
    ),
    Layout(
        "sharegpt", Chat, _fields(_TALK, _BESIDE),
        layouts.conversation, "conversations of from and value", lambda values: _speaks(values, "from"),
    ),
    Layout(
        "chat", Chat, _fields(_TALK, _BESIDE),
        layouts.conversation, "conversations of role and content, as OpenAI writes them",
    ),
    Layout(
        "alpaca", Chat, _fields("instruction output|response|answer|completion", f"input|context history {_BESIDE}"),
        layouts.alpaca, "an instruction, perhaps with an input, and its output",
    ),
    Layout(
        "triplet", Pair,
        _fields("anchor|query|sentence1|text1 positive|pos|sentence2|text2 negative|neg|sentence3|text3", "score"),
        layouts.pair, "a text, one that belongs to it, and one that does not",
    ),
    Layout(
        "pair", Pair, _fields("anchor|sentence1|text1|premise positive|sentence2|text2|hypothesis", "score|similarity"),
        layouts.pair, "two texts that belong together, perhaps with a score",
    ),
    Layout(
        "prompt_completion", Chat, _fields(f"{_PROMPT}|input {_ANSWER}", _BESIDE),
        layouts.prompt_completion, "a prompt and its completion, a question and its answer",
        lambda values: not isinstance(values["completion"], (dict, bool)),
    ),
    Layout(
        "labels", Chat, _fields("text|sentence|utterance label|category|intent|class", _BESIDE),
        layouts.labels, "a text and the label to answer with",
    ),
    Layout("prompt", Prompt, _fields("prompt", f"answer|reference|solution {_BESIDE}"), layouts.prompt, "prompts only"),
    Layout("text", Text, _fields("text|content|document"), layouts.text, "documents"),
)  # fmt: skip

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _TABLE}

# Declared, never detected: each row's layout is told from its own columns.
MIXED = Layout("mixed", Example, (), layouts.text, "rows of several layouts, each told by its own columns")

_USUAL = ("prompt_completion", "alpaca", "chat", "text")

# Columns of multiple-choice questions: a benchmark, which no layout can train on as it stands.
CHOICES = {"choices", "endings", "mc1_targets", "options"}


def _speaks(values: Values, key: str) -> bool:
    turns = values["messages"]
    return isinstance(turns, list) and any(isinstance(turn, Mapping) and key in turn for turn in turns)


def detect(rows: Sequence[Row], columns: Mapping[str, str], *, declared: str = "auto") -> Layout:
    """The layout of some first rows: `declared`, or the first of LAYOUTS whose needed fields most rows have.

    Raises InputError, with the fields found and the nearest layouts, when there is none.
    """
    found = found_columns(rows)
    _check_columns(columns, rows)
    if declared == MIXED.name:
        return MIXED
    if declared != "auto":
        if declared not in LAYOUTS:
            raise unknown("layout", declared, (*LAYOUTS, MIXED.name))
        for name in columns:
            if name not in LAYOUTS[declared].names:
                raise unknown(f"field of layout '{declared}'", name, LAYOUTS[declared].names, where="--data.columns")
        return LAYOUTS[declared]
    if not CHOICES & {_plain(name) for name in found}:
        for layout in LAYOUTS.values():
            where = resolved(layout, found, columns)
            if layout.names >= columns.keys() and where.keys() >= set(layout.needed) and _most(rows, layout, where):
                return layout
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
    case, a blank counting as '_'.
    """
    by_name = {_plain(name): name for name in reversed(tuple(found))}
    where: dict[str, str] = {}
    for field in layout.fields:
        mapped = tuple(columns[name] for name in field.names if name in columns)
        names = mapped or field.names
        free = (by_name[_plain(name)] for name in names if _plain(name) in by_name)
        column = next((name for name in free if name not in where.values()), None)
        if column is not None:
            where[field.name] = column
    return where


def describe(layout: Layout, rows: Sequence[Row], columns: Mapping[str, str]) -> dict[str, Any]:
    """The layout in words: its name, what it is, the column of each field, and the columns that nothing reads."""
    found = found_columns(rows)
    where = resolved(layout, found, columns)
    unread = [name for name in found if name not in where.values()]
    return {"layout": layout.name, "about": layout.about, "fields": where, "unread": unread}


def to_examples(
    rows: Iterable[Row],
    layout: Layout,
    columns: Mapping[str, str],
    *,
    group: str | None = None,
    skipped: Report | None = None,
    unused: Report | None = None,
) -> Iterator[Example]:
    """An example for each row. `group` names the column whose equal values belong together.

    A bad row goes to `skipped`, or raises InputError with file, line, the fields found and those needed.
    A sound row without an example (a tie) goes to `unused`, and is never an error. An empty text is
    kept, because the data card counts it and `clean` drops it; what makes a row bad is a missing
    field, a value of the wrong kind, an unknown role, an empty conversation.
    """
    for _, example in to_pairs(rows, layout, columns, group=group, skipped=skipped, unused=unused):
        yield example


def to_pairs(
    rows: Iterable[Row],
    layout: Layout,
    columns: Mapping[str, str],
    *,
    group: str | None = None,
    skipped: Report | None = None,
    unused: Report | None = None,
) -> Iterator[tuple[Row, Example]]:
    """As `to_examples`, each example with its row."""
    known: dict[tuple[str, ...], tuple[Layout, dict[str, str]]] = {}
    for row in rows:
        # A table gives absent fields as null: they tell nothing about a mixed row.
        names = tuple(n for n, value in row.fields.items() if layout is not MIXED or value is not None)
        try:
            if names not in known or layout is MIXED:
                own = detect([row], {}) if layout is MIXED else layout
                known[names] = own, resolved(own, names, columns)
            own, where = known[names]
            values = {field: row.fields[column] for field, column in where.items()}
            example = _parsed(own, values, names)
            example = replace(example, origin=row.origin, group=_group(row, group))
        except InputError as error:
            if skipped is None:
                raise InputError(error.what, where=row.origin, mend=error.mend) from None
            skipped(row.origin, error.what)
        except Unused as reason:
            if unused is not None:
                unused(row.origin, str(reason))
        else:
            yield row, example


def _parsed(layout: Layout, values: dict[str, Any], names: tuple[str, ...]) -> Example:
    lacking = [name for name in layout.needed if name not in values]
    if lacking:
        raise InputError(
            f"no field '{lacking[0]}': found {_listed(names)}; layout '{layout.name}' needs {_listed(layout.needed)}",
            mend=f"map it with --data.columns {lacking[0]}=COLUMN, or leave such rows out with --data.skip_bad",
        )
    # A table gives absent fields as null: an optional field that is null is absent.
    return layout.parse({k: v for k, v in values.items() if v is not None or k in layout.needed})


def _group(row: Row, group: str | None) -> str:
    if group is None:
        return ""
    if row.fields.get(group) is None:
        raise InputError(f"no field '{group}' to group by: found {_listed(row.fields)}", mend="check --data.group")
    return str(row.fields[group])


def _most(rows: Sequence[Row], layout: Layout, where: Mapping[str, str]) -> bool:
    """Whether `fits` holds for at least half of the rows that have the needed fields."""
    needed = layout.needed
    whole = [row.fields for row in rows if all(where[name] in row.fields for name in needed)]
    fitting = sum(layout.fits({name: row[where[name]] for name in needed}) for row in whole)
    return bool(whole) and 2 * fitting >= len(whole)


def _check_columns(columns: Mapping[str, str], rows: Sequence[Row]) -> None:
    known = {name for layout in LAYOUTS.values() for name in layout.names}
    there = {_plain(name): name for row in rows for name in row.fields}
    for name, column in columns.items():
        if name not in known:
            raise unknown("field", name, known, where="--data.columns")
        if _plain(column) not in there:
            raise unknown("column", column, there.values(), where=f"--data.columns {name}={column}")


def _unknown_layout(rows: Sequence[Row], found: Sequence[str], columns: Mapping[str, str]) -> InputError:
    where = rows[0].origin
    if not found:
        raise InputError(
            "the files differ: no field stands in most of their rows", where=where,
            mend="give them one by one, or --data.layout mixed",
        )  # fmt: skip
    if CHOICES & {_plain(name) for name in found}:
        return InputError(
            f"multiple-choice questions, which are measured, not trained on: found {_listed(found)}",
            where=where, mend="make a prompt and a completion of each, or declare --data.layout and --data.columns",
        )  # fmt: skip
    lacking = {
        layout.name: [name for name in layout.needed if name not in resolved(layout, found, columns)]
        for layout in LAYOUTS.values()
    }
    share = {name: len(lacks) / len(LAYOUTS[name].needed) for name, lacks in lacking.items() if lacks}
    # Where nothing fits a little, the usual layouts are the ones to tell of.
    near = sorted(share, key=lambda name: (share[name], name not in _USUAL))[:3]
    listed = ", ".join(f"{name} (lacks {' and '.join(lacking[name])})" for name in near)
    return InputError(
        f"unknown layout: found {_listed(found)}; nearest: {listed}",
        where=where, mend=f"map the columns, such as --data.columns {lacking[near[0]][0]}=COLUMN",
    )  # fmt: skip


def _listed(names: Iterable[str], most: int = 12) -> str:
    all_names = [str(name) for name in names]
    return ", ".join(all_names[:most]) + (f" and {len(all_names) - most} more" if len(all_names) > most else "")


def _plain(name: str) -> str:
    return str(name).strip().lower().replace(" ", "_")
