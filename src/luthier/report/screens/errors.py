"""Errors of answers on the screen: what is wrong, where it is worse, which training rows taught it, what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from luthier.core.screen import clean
from luthier.core.verdicts import verdict_kind
from luthier.report.screens.stages import heading
from luthier.report.tables import BAD, CAREFUL, FAINT, STRONG, STYLES, figures, grid_of, shortened, title

Row = Mapping[str, Any]

CATEGORIES = 8  # rows of the table; --json has all
CATEGORIES_WITH_EXAMPLES = 3  # categories with examples
EXAMPLES = 2  # of each
CONFUSIONS = 4  # of labels
NEAREST = 2  # answers whose nearest training row is shown
SLICES = 4  # slices
ANSWERS = 20  # of one category
EXCERPT_WIDTH = 46  # characters of an excerpt


def errors_screen(result: Row) -> list[RenderableType]:
    """What `luthier errors RUN` prints, from the keys of its `--json`: about 40 lines."""
    parts: list[RenderableType] = [
        heading(f"held-out answers of {clean(result['run'])}"),
        *critical_findings(result["first"]),
    ]
    parts += _table(result["rows"])
    if result["categories"]:
        parts += [
            heading("for example, tuned answers"),
            _examples(result["categories"][:CATEGORIES_WITH_EXAMPLES], result["confusions"]),
        ]
    parts += [heading("where it is worse than elsewhere"), _slices(result["slices"], result["bad"])]
    parts += [heading("back to the training rows"), _training(result)]
    parts += [Text(f"  note: {clean(note)}", style=FAINT) for note in result["notes"]]
    ways = ["--fix fixes.jsonl"] * result["fixable"] + [f"--category {c['name']}" for c in result["categories"][:1]]
    for word, way in zip(("next:", "  or:"), ways, strict=False):
        parts.append(Text(f"  {word} luthier errors {clean(result['run'])} {way}", style=STRONG))
    return parts


def critical_findings(items: Sequence[Row]) -> list[RenderableType]:
    """What is graver than any share of a table, a line each."""
    return [Text(f"  ! {clean(item['text'])}", style=BAD) for item in items]


def category_screen(result: Row) -> list[RenderableType]:
    """All answers of one category: those that have it, then those of the base that had it and are rid of it."""
    about = result["category"]
    parts: list[RenderableType] = [
        heading(clean(about["title"])),
        Text(f"  {clean(about['meaning'])}"),
        *_table(result["rows"]),
    ]
    for name, items in (
        ("tuned answers that have it", result["shown"]),
        ("answers that no longer have it", result["gone"]),
    ):
        if items:
            parts.append(heading(f"{name}: {len(items)}"))
            parts += [part for item in items[:ANSWERS] for part in _answer(item, name.startswith("tuned"))]
        if len(items) > ANSWERS:
            parts.append(Text(f"  … and {len(items) - ANSWERS:,} more; --json has them all", style=FAINT))
    if not result["shown"] and not result["gone"]:
        parts.append(Text("  no answer has it, before or after", style=FAINT))
    return parts


def comparison_screen(result: Row) -> list[RenderableType]:
    """This run beside an earlier one."""
    parts: list[RenderableType] = [heading(f"{clean(result['run'])} against {clean(result['against'])}")]
    parts += _table(result["rows"], "earlier", "this run", paired=result["paired"])
    if not result["paired"]:
        old, new = result["answers"]["before"], result["answers"]["after"]
        text = (
            f"  the held-out prompts are not the same ({old:,} then, {new:,} now): intervals of two samples, much wider"
        )
        parts.append(Text(text, style=CAREFUL))
    return parts


def fixes_screen(result: Row) -> list[RenderableType]:
    """What `--fix` proposed, and what to do with it."""
    parts: list[RenderableType] = [heading(f"fixes for {result['rows']:,} training rows")]
    if not result["fixes"]:
        return [*parts, Text("  no row has a defect, contradicts another or is doubtful: nothing is written")]
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, show_edge=False)
    table.add_column("", overflow="fold")
    table.add_column("action")
    for name in ("rows", "ready", "held-out answers with it"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind in result["kinds"]:
        held_out = "" if kind["held_out"] is None else f"{kind['held_out']:,}"
        table.add_row(Text(clean(kind["title"])), kind["action"], f"{kind['rows']:,}", f"{kind['ready']:,}", held_out)
    parts.append(table)
    for fix in result["first"]:
        after = Text("(for you to write)", style=FAINT) if fix["after"] is None else shortened(fix["after"], 2, 160)
        lines: list[tuple[str, str | Text]] = [("why", clean(fix["why"])), ("before", shortened(fix["before"], 2, 160))]
        lines += [("after", Text("(dropped)", style=FAINT) if fix["action"] == "drop" else after)]
        where = f"  {clean(fix['file'])}:{fix['line']}"
        head = Text.assemble((fix["action"], STRONG), (where, FAINT))
        parts += [head, Padding(grid_of(lines), (0, 0, 1, 2))]
    out, run = clean(result["out"]), clean(result["run"])
    parts.append(Text(f"  {result['fixes']:,} lines in {out}"))
    parts.append(Text('  Write "accept": true where you agree, and edit "after" where you do not.'))
    parts.append(Text(f"  next: luthier errors {run} --apply {out} --out NEW.jsonl", style=STRONG))
    return parts


def applied_screen(result: Row) -> list[RenderableType]:
    """What `--apply` wrote."""
    accepted = ", ".join(f"{count:,} {action}" for action, count in result["accepted"].items())
    lines = [
        ("written", f"{result['rows']:,} of {result['from_rows']:,} rows in {result['file']}"),
        ("accepted", accepted),
        ("left alone", f"{result['rejected']:,} rejected, {result['undecided']:,} undecided"),
        ("lineage", str(result["lineage"])),
    ]
    run = clean(result["run"])
    again = f"  next: luthier train {run}/run.yaml {clean(result['file'])} --out NEWRUN"
    then = f"  then: luthier errors NEWRUN --compare {run}"
    return [
        heading("the new version of the data"), grid_of(lines), Text(again, style=STRONG), Text(then, style=STRONG)
    ]  # fmt: skip


def _table(
    rows: Sequence[Row], before: str = "base", after: str = "tuned", *, paired: bool = True
) -> list[RenderableType]:
    """Shares of answers with their change; the most frequent categories after, and how many are left out."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, padding=(0, 1), show_edge=False)
    table.add_column("", overflow="fold")
    for name, style in ((before, FAINT), (after, STRONG), ("change", ""), ("95 % interval", FAINT)):
        table.add_column(name, justify="right", no_wrap=True, style=style)
    table.add_column("", no_wrap=True)
    summary = sum(row["name"] in ("sound", "wrong") for row in rows)
    last = rows[summary + CATEGORIES :][-1:]
    for row in (*rows[: summary + CATEGORIES], *(row for row in last if row["name"] == "sound")):
        old, new, change, low, high = figures(row, ("before", "after", "difference", "low", "high"))
        span = f"{low} … {high}" if row["low"] is not None else ""
        style = STYLES.get(verdict_kind(row["verdict"]), "")
        label = Text(clean(title(row)), style=STRONG if row["name"] in ("sound", "wrong") else "")
        table.add_row(label, old, new, Text(change, style=style), span, Text(row["verdict"], style=style))
    about = f"{rows[0]['n']:,} answers" if rows else "no answers have it"
    if rows and paired:
        about += "; paired intervals, verdicts corrected for all rows (Holm)"
    left = len(rows) - summary - CATEGORIES
    return [table, Text(f"  {about}{f'; {left} rarer ones in --json' if left > 0 else ''}", style=FAINT)]


def _examples(categories: Sequence[Row], confusions: Sequence[Row]) -> Table:
    """The largest categories with an example or two of each; of labels, which was given for which."""
    grid = _two_columns()
    for category in categories:
        grid.add_row(Text(clean(category["title"]), style=STRONG), Text(clean(category["meaning"]), style=FAINT))
        if category["name"] == "wrong" and confusions:
            for pair in confusions[:CONFUSIONS]:
                words = f"should be {_line(pair['reference'])}, {pair['answers']:,} times"
                grid.add_row(Text.assemble("  ", excerpt(pair["answer"], None)), Text(words))
            continue
        for example in category["examples"][:EXAMPLES]:
            grid.add_row(Text.assemble("  ", excerpt(example["after"], example["span"])), Text(_line(example["why"])))
    return grid


def _two_columns(first: int = EXCERPT_WIDTH + 8) -> Table:
    """Two columns of one line each; what does not fit is cut."""
    grid = Table.grid(padding=(0, 2), pad_edge=True)
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=first)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    grid.expand = True
    return grid


def excerpt(answer: str, span: Sequence[int] | None, width: int = EXCERPT_WIDTH) -> Text:
    """One line of an answer, with the span between » and «: what stands around it, as far as it fits."""
    if not answer.strip():
        return Text("(empty)", style=FAINT)
    start, end = span or (0, 0)
    marked = _line(answer[start:end], strip=False)
    if len(marked) > width * 2 // 3:
        half = width // 3
        marked = f"{marked[:half]}…{marked[-half + 1 :]}"
    room = width - len(marked)
    before, behind = _line(answer[:start], strip=False), _line(answer[end:], strip=False)
    left = (
        before[-(room // 2) :]
        if len(before) > room // 2 and len(behind) > room // 2
        else before[-max(0, room - len(behind)) :]
    )
    right = behind[: room - len(left)]
    head, tail = "…" * (len(left) < len(before)), "…" * (len(right) < len(behind))
    if not span or start == end:
        return Text(f"{left}{right}{tail}".strip())
    return Text.assemble(f"{head}{left}".lstrip(), ("»", FAINT), (marked, BAD), ("«", FAINT), f"{right}{tail}".rstrip())


def _line(text: str, *, strip: bool = True) -> str:
    """Text on one line: runs of white space as one blank."""
    line = " ".join(clean(text).split())
    if strip or not line:
        return line
    return f"{' ' * text[:1].isspace()}{line}{' ' * text[-1:].isspace()}"


def _slices(parts: Sequence[Row], bad: str) -> RenderableType:
    worse = [part for part in parts if part["clear"] and part["difference"] > 0]
    if not worse:
        return Text(
            f"  no slice is shown to be worse than the rest ({len(parts)} looked at; bad: {clean(bad)})", style=FAINT
        )
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, show_edge=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    for name in ("answers", "bad, %", "the rest, %", "interval"):
        table.add_column(name, justify="right", no_wrap=True, style=FAINT if name == "interval" else "")
    for part in worse[:SLICES]:
        span = f"{100 * part['low']:+z.0f} … {100 * part['high']:+z.0f}".replace("-", "−")
        table.add_row(
            Text(clean(part["kind"]), style=FAINT), Text(clean(part["value"])), f"{part['n']:,}", f"{100 * part['rate']:.0f}",
            f"{100 * part['rest']:.0f}", span,
        )  # fmt: skip
    return table


def _training(result: Row) -> Table:
    """Where the errors may come from: the same defects in training rows, the rows nearest to the worst answers, doubtful rows
    and contradictions."""
    training, shown = result["training"], result["categories"][:CATEGORIES_WITH_EXAMPLES]
    grid = _two_columns(24)
    for category in shown:
        if found := category["training"]:
            words = f"{found['rows']:,} of {training['looked_at']:,} rows have it too"
            grid.add_row(
                Text(_line(category["title"]), style=FAINT), _places(words, [item["where"] for item in found["first"]])
            )
    for example in _distinct(shown)[:NEAREST]:
        for near in example["nearest"][:1]:
            asked, learned = _without_common_start(example["prompt"], near["prompt"])
            words = f"  {_cut(asked, 24)} ~ {_cut(learned, 24)} → {_cut(near['answer'], 20)}"
            text = Text.assemble(_place(near["where"]), (words, FAINT))
            grid.add_row(Text(f"nearest to {example['row']}", style=FAINT), text)
    suspects, conflicts = training["suspects"], training["conflicts"]
    places = [item["where"] for item in suspects["first"]]
    whose = "the answer of 1 row" if suspects["rows"] == 1 else f"the answers of {suspects['rows']:,} rows"
    grid.add_row(Text("doubtful", style=FAINT), _places(whose, places))
    clash = [" and ".join(_place(w) for w in item["where"][:2]) for item in conflicts["first"][:2]]
    words = f"{conflicts['rows']:,} rows to {conflicts['groups']:,} prompts"
    grid.add_row(Text("contradictions", style=FAINT), _places(words, clash))
    return grid


def _distinct(categories: Sequence[Row]) -> list[Row]:
    """The examples of the categories, each answer once, the first of each category first."""
    ordered = [c["examples"][i] for i in range(EXAMPLES) for c in categories if i < len(c["examples"])]
    return list({example["row"]: example for example in ordered}.values())


def _without_common_start(one: str, other: str) -> tuple[str, str]:
    """Two prompts without a long beginning that both have, such as an instruction."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    return (f"…{one[same:]}", f"…{other[same:]}") if same > 24 else (one, other)


def _places(words: str, places: Sequence[str]) -> Text:
    shown = ", ".join(_place(place) for place in places[:3])
    return Text.assemble(words, (f": {shown}{', …' if len(places) > 3 else ''}" if shown else "", FAINT))


def _place(where: str) -> str:
    """file:line without the folder."""
    return clean(where.rsplit("/", 1)[-1])


def _cut(text: str, width: int) -> str:
    line = _line(text)
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _answer(item: Row, tuned: bool) -> list[RenderableType]:
    """An answer with its finding marked, its prompt and the other model's answer."""
    head = Text.assemble((_line(item["why"]), BAD if tuned else FAINT), (f"  {clean(item['where'])}", FAINT))
    lines: list[tuple[str, str | Text]] = [("prompt", shortened(item["prompt"]))]
    lines += [("reference", shortened(item["reference"]))] if item["reference"] else []
    own, other = (
        excerpt(item["after" if tuned else "before"], item["span"], 240),
        shortened(item["before" if tuned else "after"]),
    )
    lines += [("base", other), ("tuned", own)] if tuned else [("base", own), ("tuned", other)]
    return [head, Padding(grid_of(lines), (0, 0, 1, 2))]
