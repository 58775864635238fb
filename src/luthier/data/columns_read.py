"""How the columns of some rows were read: which field from which column, and what nothing reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import REASONING
from luthier.data import mapping, messages, rankings
from luthier.data.codes import BOTH, FIRST, SECOND, natural
from luthier.data.detect import is_empty, own_layout, resolved
from luthier.data.layout_table import Layout
from luthier.data.learned_turns import truth
from luthier.data.read import Row

# What chat templates read of a turn; other keys are kept for a template of the user's own (see `Message.fields`).
TURN_KEYS = frozenset({*messages.READ_KEYS, *REASONING, "tool_call_id", "tool_responses"})


ANSWER_KEYS = frozenset({*rankings.TEXTS, *rankings.RANKS, *rankings.SCORES})
ANSWER_LISTS = ("responses", "outputs")
MAX_LISTED_CODES = 20  # coded values that are listed one by one
CODE_MEANINGS = {
    FIRST: "output_1 better",
    SECOND: "output_2 better",
    BOTH: "a tie",
    "true": "wanted",
    "false": "unwanted",
}


@dataclass(frozen=True)
class ColumnsRead:
    """What was read as what.

    layout  name of the layout            rows    how many rows this tells of
    read    field -> its column, the commonest where rows differ; `others` are the further columns of a field
    unread  the columns that hold something in some row where nothing reads it, in the order of their appearance;
            keys of messages that nothing reads stand as `messages.key`
    filled  rows in which an unread column holds something; share: how much of all characters stands in it
    said    unread columns whose text the columns that are read hold too
    marks   unread columns that hold nothing but true and false, or 1 and 0, and both of them
    codes   how the values of the field `code` were understood: value -> (what it means, rows)
    corrected  what was put right while reading -> rows
    mapped  fields whose column the user named
    """

    layout: str
    rows: int = 0
    read: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    filled: Mapping[str, int] = field(default_factory=dict)
    share: Mapping[str, float] = field(default_factory=dict)
    said: frozenset[str] = frozenset()
    marks: frozenset[str] = frozenset()
    code: str = ""
    codes: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    corrected: Mapping[str, int] = field(default_factory=dict)
    mapped: frozenset[str] = frozenset()

    def as_dict(self) -> dict[str, Any]:
        """Keys of `--json`: `read`, `unread`, `codes`, `corrected`."""
        codes = {value: {"means": means, "rows": rows} for value, (means, rows) in self.codes.items()}
        return {"read": dict(self.read), "unread": list(self.unread), "codes": codes, "corrected": dict(self.corrected)}

    def lines(self) -> list[str]:
        """For people: what was read as what and what was not; under it the codes, where there are any."""
        pairs = [self._pair(name, column) for name, column in self.read.items()]
        left = [self._left(column) for column in self.unread]
        out = [f"read: {', '.join(pairs) or 'nothing'}; not read: {', '.join(left) or 'nothing'}"]
        if self.codes:
            told = "; ".join(f"{value} -> {means}: {rows}" for value, (means, rows) in self.codes.items())
            out.append(f"{self.read.get(self.code, self.code)} {told}")
        return out

    def _pair(self, name: str, column: str) -> str:
        columns = " or ".join((column, *self.others.get(name, ())))
        return name if columns == name else f"{name} = {columns}"

    def _left(self, column: str) -> str:
        rows = self.filled[column]
        return column if 2 * rows >= self.rows else f"{column} (in {rows} of {self.rows} rows)"


def describe_columns(layout: Layout, rows: Iterable[Row], columns: Mapping[str, str]) -> ColumnsRead:
    """How `layout` reads these rows."""
    used: dict[str, Counter[str]] = {}
    filled: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    repeated: Counter[str] = Counter()
    marks: dict[str, set[bool | None]] = {}
    coded: Counter[tuple[str, str]] = Counter()
    order: dict[str, None] = {}
    total = count = 0
    known: dict[tuple[str, ...], dict[str, str]] = {}
    for row in (mapping.shaped(row, columns) for row in rows):
        count += 1
        holding = {name: value for name, value in row.fields.items() if not is_empty(value)}
        own = own_layout(layout, row)
        mine = mapping.of_file(columns, row.origin.file)
        names = (own.name, row.origin.file if columns else "", *holding)
        if names not in known:
            known[names] = resolved(own, holding, mine)
        where = known[names]
        for name, column in where.items():
            used.setdefault(name, Counter()).update([column])
        if (means := _code_meanings(own, where, row)) is not None:
            coded[str(row.fields[where[own.code]]), means] += 1
        read = set(where.values())
        texts = [list(texts_in(holding[column])) for column in where.values()]
        total += sum(len(text) for part in texts for text in part)
        within = mapping.used(mine, holding)
        left = [(name, value) for name, value in holding.items() if name not in read and name not in within]
        left += [item for name, paths in within.items() for item in _beside(name, holding[name], paths)]
        left += [item for name, column in where.items() for item in _nested(name, holding[column], own)]
        for name, value in left:
            order.setdefault(str(name))
            filled[str(name)] += 1
            marks.setdefault(str(name), set()).add(truth(value))
            size = sum(map(len, texts_in(value)))
            sizes[str(name)] += size
            total += size
            words = [text for text in texts_in(value) if not text.isdigit()]
            repeated[str(name)] += bool(words) and all(
                any(word in text for part in texts for text in part) for word in words
            )
    return ColumnsRead(
        layout.name, count,
        {name: counts.most_common(1)[0][0] for name, counts in used.items()},
        {name: tuple(c for c, _ in counts.most_common()[1:]) for name, counts in used.items() if len(counts) > 1},
        tuple(order), dict(filled), {name: sizes[name] / max(1, total) for name in order},
        frozenset(name for name in order if repeated[name] == filled[name]),
        frozenset(name for name in order if marks[name] == {True, False}), layout.code, _most_frequent(coded),
        mapped=frozenset(part.name for part in layout.fields if {key.rpartition(":")[2] for key in columns} & set(part.names)),
    )  # fmt: skip


def _code_meanings(layout: Layout, where: Mapping[str, str], row: Row) -> str | None:
    """What the coded value of a row means, in words; None where there is none, or none that is known."""
    read = {"true": lambda value: str(truth(value)).lower(), FIRST: natural}
    plain = next((read[target] for target in layout.targets if target in read), None)
    if layout.code not in where or not (layout.codes or plain):
        return None
    value = row.fields[where[layout.code]]
    try:
        means = layout.codes(value) if layout.codes is not None else plain(value) if plain else ""
    except InputError:
        return None
    return CODE_MEANINGS.get(means, means)


def _most_frequent(coded: Counter[tuple[str, str]]) -> dict[str, tuple[str, int]]:
    """Value -> (what it means, rows), the commonest first; of many values, those that mean the same together."""
    if len(coded) <= MAX_LISTED_CODES:
        return {value: (means, rows) for (value, means), rows in coded.most_common()}
    together: dict[str, list[tuple[str, int]]] = {}
    for (value, means), rows in coded.most_common():
        together.setdefault(means, []).append((value, rows))
    return {
        f"{found[0][0]} and {len(found) - 1} more" if len(found) > 1 else found[0][0]: (
            means,
            sum(rows for _, rows in found),
        )
        for means, found in together.items()
    }


def texts_in(value: Any) -> Iterator[str]:
    """The texts of a value, those inside lists and objects too; a number as it is written."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts_in(inner)
    elif value is not None:
        yield str(value)


def _beside(name: str, value: Any, paths: set[str]) -> Iterator[tuple[str, Any]]:
    """(`name.key`, its value) of an object of which only `paths` are read."""
    read = {path.partition(".")[0] for path in paths}
    if isinstance(value, Mapping) and "" not in read:
        yield from ((f"{name}.{key}", inner) for key, inner in value.items() if key not in read and not is_empty(inner))


def _nested(name: str, value: Any, layout: Layout) -> Iterator[tuple[str, Any]]:
    """(`name.key`, its first value) of keys inside a field's turns or answers that nothing reads."""
    items: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    found: dict[str, Any] = {}
    for item in items:
        if not isinstance(item, Mapping):
            continue
        answer = layout.name in ("ranking", "comparison_list") and name in ANSWER_LISTS
        known = TURN_KEYS if "role" in item or "from" in item else ANSWER_KEYS if answer else item.keys()
        for key, inner in item.items():
            if key not in known and not is_empty(inner):
                found.setdefault(f"{name}.{key}", inner)
    yield from found.items()
