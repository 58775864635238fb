"""Results as rich renderables: 80 columns, and just as readable without colour in a pipe.

Values come as plain mappings, the same that `--json` prints. Text of users and models is never read as
markup, and its control characters are shown as �, so that no answer can move the cursor.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from luthier.core.log import clock, size
from luthier.core.screen import clean
from luthier.core.verdicts import BETTER, NONE_SHOWN, NOT_SEEN, TOO_FEW, WORSE, verdict_kind

Row = Mapping[str, Any]

GOOD, BAD, CAREFUL, FAINT, STRONG = "green", "red", "yellow", "dim", "bold"
STYLES = {BETTER: GOOD, WORSE: BAD, NONE_SHOWN: FAINT, TOO_FEW: FAINT, NOT_SEEN: FAINT}
SAMPLE_LINES = 6
LABELS_SHOWN = 5
LABEL_WIDTH = 16  # characters of a label in the name of a row


def figures(row: Row, names: Sequence[str]) -> list[str]:
    """The named values of a metric row as text, all with the decimals that its largest value asks for.

    Shares (unit '%') read as percentages, without the sign: the title carries it. None is '?'.
    """
    scale = 100.0 if row.get("unit") == "%" else 1.0
    largest = scale * max(abs(row[name]) for name in ("before", "after") if name in row)
    decimals = 1 if scale > 1 else 3 if largest < 10 else 1 if largest < 1000 else 0
    signed = {"difference", "low", "high"}
    values = ((name, row[name]) for name in names)
    return [
        "?" if value is None else f"{scale * value:{'+' if name in signed else ''}z.{decimals}f}".replace("-", "−")
        for name, value in values
    ]


def how_tested(rows: Sequence[Row]) -> str:
    """How the verdicts of a table came about: corrected for being one of many, or each by its interval alone."""
    tests = sum(row.get("corrected") is not None for row in rows)
    if not tests:
        return "verdicts not corrected for the number of rows"
    return f"verdicts corrected for {tests} rows (Holm)" if tests > 1 else "verdicts by interval and test"


def title(row: Row) -> str:
    """The metric's name for people, with its unit; of the accuracy of labels with what always saying one of them reaches."""
    name = str(row.get("title") or row["name"])
    name = f"{name}, %" if row.get("unit") == "%" else name
    if baseline := row.get("baseline"):
        label = baseline["answer"] if len(baseline["answer"]) <= LABEL_WIDTH else baseline["answer"][:LABEL_WIDTH] + "…"
        name += f" (always '{label}': {100 * baseline['share']:.1f})"
    return name


def before_after(rows: Sequence[Row], before: str = "before", after: str = "after") -> Table:
    """Metric rows (`measure_answers.table`) as a table: both values, the difference with its interval, the verdict."""
    items = sorted({row["n"] for row in rows})
    counted = (
        f"{items[0]:,}" if len(items) == 1 else " to ".join(f"{n:,}" for n in (items[0], items[-1])) if items else "0"
    )
    table = Table(
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        caption=Text(f"  {counted} items; paired interval of the change\n  {how_tested(rows)}", style=FAINT),
        caption_justify="left",
    )
    table.add_column("")
    table.add_column(clean(before), justify="right", style=FAINT)
    table.add_column(clean(after), justify="right", style=STRONG)
    table.add_column("change", justify="right")
    table.add_column("95 % interval", justify="right", style=FAINT, no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        old, new, change, low, high = figures(row, ("before", "after", "difference", "low", "high"))
        words = row["verdict"]
        style = STYLES.get(verdict_kind(words), "")
        span = f"{low} … {high}" if row["low"] is not None else ""
        table.add_row(Text(clean(title(row))), old, new, Text(change, style=style), span, Text(words, style=style))
    return table


def samples_side_by_side(
    prompts: Sequence[str],
    references: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    names: tuple[str, str] = ("before", "after"),
) -> Group:
    """Each prompt with its reference, and under them the two answers side by side; long text is cut and says so."""
    blocks: list[RenderableType] = []
    items = list(zip(prompts, references, before, after, strict=True))
    for number, (prompt, reference, old, new) in enumerate(items, 1):
        head = Table.grid(padding=(0, 2))
        head.add_column(style=FAINT, justify="right")
        head.add_column(overflow="fold")
        head.add_row("prompt", shortened(prompt))
        head.add_row("reference", shortened(reference))
        answers = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1), show_edge=False)
        answers.add_column(names[0], ratio=1, overflow="fold", header_style=FAINT)
        answers.add_column(names[1], ratio=1, overflow="fold", header_style=STRONG)
        answers.add_row(shortened(old), shortened(new))
        blocks += [Rule(Text(f"{number} of {len(items)}"), style=FAINT), head, Text(), answers, Text()]
    return Group(*blocks)


def sample(prompt: str, reference: str, answer: str) -> Group:
    """One prompt, its reference and an answer to it, below each other; long text is cut and says so."""
    named = (("prompt", prompt), ("reference", reference), ("answer", answer))
    return Group(Text(), grid_of((name, shortened(text)) for name, text in named))


def card_table(card: Mapping[str, Any]) -> Group:
    """The data card: what is in the data, one line each, then the warnings. Keys that are absent are left out."""
    grid = grid_of(_card_lines(card))
    warnings = Table.grid(padding=(0, 0, 0, 2), pad_edge=True)
    for warning in card.get("warnings") or ():
        warnings.add_row(Text("!", style=CAREFUL), Text(clean(str(warning))))
    return Group(grid, Text(), warnings) if warnings.rows else Group(grid)


def run_summary(results: Mapping[str, Any]) -> Table:
    """What a run took and reached, from the keys of `luthier train --json`; absent keys are left out."""
    return grid_of(_run_lines(results))


def grid_of(lines: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and their values, one line each. Values are text as it is: rich would read a `[tag]` in a string."""
    grid = Table.grid(padding=(0, 2), pad_edge=True)
    grid.add_column(style=FAINT, no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in lines:
        grid.add_row(name, Text(clean(value)) if isinstance(value, str) else value)
    return grid


def shortened(text: str, lines: int = SAMPLE_LINES, width: int = 320) -> Text:
    """The beginning of a text, with how much is left out; a text of nothing is named."""
    whole = clean(text).strip()
    if not whole:
        return Text("(empty)", style=FAINT)
    kept = "\n".join(whole.split("\n")[:lines])[:width].rstrip()
    left = len(whole) - len(kept)
    return Text.assemble(kept, (f" … {left:,} more characters", FAINT)) if left else Text(kept)


def _card_lines(card: Mapping[str, Any]) -> Iterator[tuple[str, str | Text]]:
    if "layout" in card:
        yield "layout", Text(clean(str(card["layout"])), style=STRONG)
    if "rows" in card:
        yield "rows", _count(card["rows"])
    for line in card.get("reading", ()):
        yield ("read", line.removeprefix("read: ")) if line.startswith("read: ") else ("codes", line)
    if tokens := card.get("tokens"):
        yield str(tokens.get("unit") or "tokens"), _lengths(tokens)
    if answers := card.get("answers"):
        yield "of answers", _lengths(answers)
    if over := card.get("over_limit"):
        words = f"{_count(over['rows'])} rows over {_count(over['limit'])} tokens ({_percent(over['share'])})"
        yield "too long", _problem(words, bool(over["rows"]))
    if turns := card.get("turns"):
        yield "turns", _lengths(turns)
    for key, guess in (("scripts", ""), ("languages", " (a guess)")):
        if shares := card.get(key):
            ordered = sorted(shares.items(), key=lambda item: -item[1])[:LABELS_SHOWN]
            yield key, ", ".join(f"{name} {_percent(share)}" for name, share in ordered) + guess
    for key in ("duplicates", "leaks", "empty", "conflicts", "dropped"):
        if (counts := card.get(key)) is not None:
            yield key, _counts(counts)
    if diversity := card.get("diversity"):
        yield "diversity", " · ".join(f"{key.replace('_', '-')} {value:.2f}" for key, value in diversity.items())
    if labels := card.get("labels"):
        top = list(labels["top"].items())[:LABELS_SHOWN]
        shown = ", ".join(f"{label} {_count(count)}" for label, count in top)
        more = f", {labels['distinct'] - len(top)} more" if labels["distinct"] > len(top) else ""
        yield "labels", f"{_count(labels['distinct'])}: {shown}{more}; rarest {_count(labels['least'])} rows"


def _lengths(values: Mapping[str, Any]) -> str:
    names = {"min": "min", "median": "median", "p95": "95 %", "max": "max"}
    parts = [f"{label} {_count(values[key])}" for key, label in names.items() if values.get(key) is not None]
    return " · ".join(parts + ([f"{_count(values['total'])} in all"] if "total" in values else []))


def _run_lines(results: Mapping[str, Any]) -> Iterator[tuple[str, str | Text]]:
    if "run" in results:
        yield "run", Text(clean(str(results["run"])), style=STRONG)
    if "seconds" in results:
        yield "time", clock(results["seconds"])
    if "steps" in results:
        yield "steps", _count(results["steps"])
    if "tokens" in results:
        speed = results.get("tokens_per_second")
        yield "tokens", _count(results["tokens"]) + (f", {speed:,.0f} a second" if speed else "")
    if "peak_memory_bytes" in results:
        yield "peak memory", size(results["peak_memory_bytes"])
    if "trainable" in results and results.get("parameters"):
        trainable, parameters = results["trainable"], results["parameters"]
        yield "trained", f"{_count(trainable)} of {_count(parameters)} parameters ({trainable / parameters:.2%})"
    if loss := results.get("loss"):
        parts = [f"{key} {value:z.4f}" for key, value in loss.items() if isinstance(value, int | float)]
        yield "loss", " · ".join(parts)
    if "reward_model" in results:
        yield from score_quality(results["reward_model"])
    if results.get("kl_per_answer") is not None:
        yield "moved by", f"{results['kl_per_answer']:z.2f} nats an answer from the starting model (KL)"
    if "run" in results:
        run = clean(shlex.quote(str(results["run"])))
        yield "report", clean(str(Path(results["run"], "report.html")))
        yield "next", f"luthier score {run} DATA" if "reward_model" in results else f"luthier chat {run} --compare base"


def score_quality(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a reward model's scores are worth: calibration and the pull of length, each with what it means."""
    if result["calibration_error"] is not None:
        yield "calibration error", f"{result['calibration_error']:.3f}  (0: its probabilities come true)"
    if result["length_correlation"] is not None:
        yield "score and length", f"r = {result['length_correlation']:+z.2f}  (0: length alone earns nothing)"


def _counts(counts: Any) -> Text:
    """One count, or several by name; yellow when there is any."""
    if isinstance(counts, Mapping):
        words = " · ".join(f"{_count(count)} {clean(str(name))}" for name, count in counts.items()) or "0"
        return _problem(words, any(counts.values()))
    return _problem(_count(counts), bool(counts))


def _problem(words: str, there: bool) -> Text:
    return Text(words, style=CAREFUL if there else FAINT)


def _count(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() or value >= 100 else f"{value:,.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
