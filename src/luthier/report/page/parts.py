"""The sections of a run's page, as the values that `run.html` lays out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from markupsafe import Markup

from luthier.report.over import Over, over_divergence
from luthier.report.page import summary
from luthier.report.page.charts import Chart, Line, chart, short
from luthier.report.page.page import render
from luthier.report.page.view import Category, Errors, Rewarded, Sample, View
from luthier.report.page.words import block, marked
from luthier.report.tables import Row, called, figures, title, worth

OPEN, MOST = 10, 200  # samples that are open, and that are on the page at all
LOST_SHOWN = 4
LEAST = 0.01  # of the rows: a language that is named
SECTIONS = {
    "summary": "Summary", "results": "Before and after", "samples": "Samples", "errors": "Errors",
    "forgetting": "Forgetting", "training": "Training", "speed": "Speed and memory", "data": "Data",
    "settings": "Settings", "lineage": "Lineage",
}  # fmt: skip
GIGA = 1e9


@dataclass(frozen=True)
class Cells:
    """A row of the table before | after as text. `span` is (low, change, high) of the change, in percent of a picture's
    width of which the middle is zero; None without an interval."""

    title: str
    before: str
    after: str
    change: str
    interval: str
    verdict: str
    span: tuple[float, float, float] | None


@dataclass(frozen=True)
class Side:
    """A sample as HTML: what an answer has that the reference lacks is marked, and in the reference what `after` lacks."""

    number: int
    prompt: Markup
    before: Markup
    after: Markup
    reference: Markup
    rewards: str


@dataclass(frozen=True)
class Bar:
    """A count with its share of the largest one, or of all."""

    name: str
    count: int
    share: float


@dataclass(frozen=True)
class Kind:
    """A category of errors: its row of the table, how many answers have it, and their shares in percent."""

    title: str
    meaning: str
    cells: Cells
    before: int
    after: int
    old: float
    new: float


@dataclass(frozen=True)
class Rolled:
    """An answer of a rollout as HTML, and what is known of it."""

    known: str
    prompt: Markup
    answer: Markup


@dataclass(frozen=True)
class ForgottenItem:
    """An answer that the model finds less likely now, as HTML; by how many nats per token, and what that keeps."""

    prompt: Markup
    before: Markup
    now: Markup
    drift: str
    kept: str


def run_page(view: View) -> str:
    """The page of one run."""
    some = view.samples[:MOST]
    return render(
        "run.html", title=f"{view.name}, run report", view=view, sections=SECTIONS,
        headline=summary.headline(view), opening=summary.opening(view), verdicts=summary.verdicts(view),
        first=summary.first(view), judged=summary.judged(view), lost=summary.lost(view), cost=summary.cost(view),
        table=[cells(row) for row in view.rows], items=_items(view.rows), called=called(view.rows),
        samples=[side(number, sample) for number, sample in enumerate(some, 1)], open=OPEN,
        left=len(view.samples) - len(some),
        worth=list(worth(found)) if (found := view.result.get("reward_model")) else [],
        errors=view.errors, kinds=kinds(view.errors) if view.errors else {}, codes=codes(view.codes), coded=len(view.codes),
        forgetting=view.result.get("forgetting"), beside=[cells(row) for row in view.beside],
        beside_called=called(view.beside),
        forgot=forgot(view), kept=summary.kept(view),
        curves=curves(view), rollouts=rollouts(view), speed=speed(view), data=data(view),
        settings=summary.settings(view.config),
        lineage=lineage(view.lineage), command=summary.command(view.config),
    )  # fmt: skip


def cells(row: Row) -> Cells:
    """A metric row as the table shows it."""
    old, new, change, low, high = figures(row, ("before", "after", "difference", "low", "high"))
    interval, span = "", None
    if row["low"] is not None and row["high"] is not None:
        most = max(abs(row["low"]), abs(row["high"]), abs(row["difference"])) or 1.0
        first, middle, last = (50 + 45 * row[name] / most for name in ("low", "difference", "high"))
        interval, span = f"{low} … {high}", (first, middle, last)
    return Cells(title(row), old, new, change, interval, row["verdict"], span)


def side(number: int, sample: Sample) -> Side:
    """A sample with its differences marked."""
    odd, missing = "not in the reference", "not in the answer after"
    rewards = "" if sample.rewards is None else "reward {:.2f} → {:.2f}".format(*sample.rewards).replace("-", "−")
    return Side(
        number, block(sample.prompt), marked(sample.before, sample.reference, odd),
        marked(sample.after, sample.reference, odd),
        marked(sample.reference, sample.after, missing), rewards,
    )  # fmt: skip


def kinds(errors: Errors) -> dict[str, list[Kind]]:
    """The categories of errors as the table shows them, below the answers without any, or above these where nothing tells whether
    an answer is right; by heading."""
    groups: dict[str, Sequence[Category]] = {"": [errors.sound], "Defects": errors.categories}
    if not errors.told:
        groups = {"Defects": errors.categories, "Without": [errors.sound]}
    return {heading: [_kind(one, errors.n) for one in group] for heading, group in groups.items() if group}


def _kind(one: Category, n: int) -> Kind:
    before, after = one.row["before"], one.row["after"]
    return Kind(one.title, one.meaning, cells(one.row), round(n * before), round(n * after), 100 * before, 100 * after)


def codes(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Bar]]:
    """Tags of answers coded by hand, by heading, the most frequent first; their share is of the coded answers."""
    counts = Counter(str(tag) for line in lines for tag in line["tags"])
    headings = {tag: str(name) for line in lines for tag, name in line.get("headings", {}).items()}
    out: dict[str, list[Bar]] = {}
    for tag, count in counts.most_common():
        out.setdefault(headings.get(tag, ""), []).append(Bar(tag, count, count / len(lines)))
    return dict(sorted(out.items(), key=lambda group: -sum(bar.count for bar in group[1])))


def forgot(view: View) -> list[ForgottenItem]:
    """The answers that lost most, those that lost anything."""
    order = sorted((one for one in view.lost if one.drift > 0), key=lambda one: -one.drift)[:LOST_SHOWN]
    return [
        ForgottenItem(
            block(one.prompt), block(one.before), block(one.now), f"+{one.drift:.2f}", f"{exp(-one.drift):.0%}"
        )
        for one in order
    ]


def rollouts(view: View) -> list[tuple[str, list[Rolled]]]:
    """The best and then the worst answers of some rollouts, by what these are called, numbered from 1."""
    return [
        (
            f"Rollout {one.number + 1:,}",
            [_rolled(name, answer) for name, group in (("best", one.best), ("worst", one.worst)) for answer in group],
        )
        for one in view.rollouts
    ]


def _rolled(among: str, one: Rewarded) -> Rolled:
    known = [f"{among}: reward {short(one.reward)}"]
    if one.length is not None:
        known.append(f"{one.length:,} token{'s' * (one.length != 1)}")
    if one.ended:
        known.append("cut" if one.ended == "length" else "ended")
    return Rolled(", ".join(known), block(one.prompt), block(one.answer))


def curves(view: View) -> list[Chart]:
    """What was learned first: reward and divergence where there are any, else loss by step and by token with the held-out
    loss; then what the method reports of itself, gradient norm and learning rate."""
    held = _held(view, "reward")
    judge = _held(view, "judge")
    reward = view.series("reward")
    over = over_divergence(view.steps, view.rows) if judge else None
    found = [
        chart("reward", "Reward", "", [Line("training", reward, 1, noisy=True), Line("held-out", held, 2, dotted=True)]),
        *(_over(over) if over else ()),
        chart("judge", "Judging reward", "", [Line("held-out", judge, 3, dotted=True)]),
        chart("kl", "Distance from the start", "KL, nats per answer", [Line("rollout", view.series("kl_per_answer"), 1),
              Line("held-out", view.series("eval_kl_per_answer"), 2, dotted=True)]),
        chart("loss-step", "Loss by step", "", _losses(view, "step")) if not reward else None,
        chart("loss-token", "Loss by token", "", _losses(view, "tokens"), "tokens") if not reward else None,
        _amount(view, "spread", "Deviation of the rewards", "", "reward_deviation"),
        _amount(view, "equal", "Groups of equal rewards", "share", "equal_rewards"),
        _amount(view, "length", "Length of the answers", "tokens", "length"),
        _amount(view, "ended", "Answers that came to an end", "share", "ended"),
        chart("entropy", "Entropy", "nats per token", [Line("policy", view.series("entropy"), 1, noisy=True)]),
        _amount(view, "clipped", "Tokens whose ratio was clipped", "share", "clipped", "policy"),
        chart("critic", "Explained variance of the critic", "share",
              [Line("critic", view.series("explained_variance"), 1, noisy=True)]),
        _amount(view, "value", "Loss of the values", "", "value_loss", "critic"),
        chart("policy", "Loss of the policy", "", [Line("training", view.series("loss"), 1, noisy=True)]) if reward else None,
        chart("lost", "Lost of its own earlier answers", "nats per token", [Line("lost", view.series("forgetting"), 2, dotted=True)]),
        chart("margin", "Margin of better answers", "", [Line("training", view.series("margin"), 1, noisy=True)]),
        chart("norm", "Gradient norm", "", [Line("before clipping", view.series("gradient_norm"), 1, noisy=True)]),
        chart("rate", "Learning rate", "", [Line("learning rate", view.series("lr"), 1)]),
    ]  # fmt: skip
    return [one for one in found if one]


def _amount(view: View, name: str, title: str, unit: str, series: str, of: str = "rollout") -> Chart | None:
    """The figure of a series of which nothing is below zero."""
    return chart(name, title, unit, [Line(of, view.series(series), 1, noisy=True)], zero=True)


def _over(found: Over) -> list[Chart | None]:
    """The reward that is learned from and the one that judges, each on a scale of its own, over one distance."""
    along = "KL, nats per answer"
    until = max((x for x, _ in (*found.rollouts, *found.held, *found.judge)), default=0.0)
    learned = [Line("rollouts", found.rollouts, 1, noisy=True), Line("held-out", found.held, 2, dotted=True)]
    judge = [Line("held-out", found.judge, 3, dotted=True)]
    return [
        chart("over", "Reward by distance", "", learned, along, whole=False, until=until),
        chart("over-judge", "Judging reward by distance", "", judge, along, whole=False, until=until),
    ]


def _held(view: View, name: str) -> list[tuple[float, float]]:
    """A reward of held-out answers by step; where only measured before and after, these two points."""
    found, row = view.series(f"eval_{name}"), next((row for row in view.rows if row["name"] == name), None)
    if found or row is None or not view.series("reward"):
        return found
    return [(0.0, row["before"]), (view.series("reward")[-1][0], row["after"])]


def speed(view: View) -> list[Chart]:
    """Throughput and memory over the steps."""
    memory = [(step, held / GIGA) for step, held in view.series("memory_bytes")]
    found = [
        chart("throughput", "Throughput", "tokens a second", [Line("training", view.series("tokens_per_second"), 1, noisy=True)],
              zero=True),
        chart("memory", "Peak memory", "GB", [Line("highest so far", memory, 1)], zero=True),
    ]  # fmt: skip
    return [one for one in found if one]


def data(view: View) -> list[tuple[str, str]]:
    """Layout and rows, what they are, what was held out, dropped with its reasons, cut; tokens."""
    counts, result, about = view.result.get("data", {}), view.result, view.about
    named = {"rows": "rows learned from", "replay": "general rows mixed in", "held_out": "rows held out"}
    out = [("layout", str(about["layout"]))] if about else []
    out += [(words, f"{counts[key]:,}") for key, words in named.items() if key in counts]
    if found := about.get("lengths"):
        low, half, most, high = (f"{found[name]:,}" for name in ("min", "median", "p95", "max"))
        out.append(("tokens of a row", f"{low} to {high}; half have up to {half}, 95 % up to {most}"))
    if (again := about.get("duplicates")) is not None:
        first = about.get("compared", counts.get("rows", 0))
        of = f", of the first {first:,}" if first < counts.get("rows", 0) else ""
        out.append((f"rows equal to an earlier one{of}", f"{again:,}" if again else "none"))
    if spoken := about.get("languages"):
        shares = [f"{name} {share:.0%}" for name, share in spoken.items() if share >= LEAST]
        rows = f" from {about['looked_at']:,} rows" if "looked_at" in about else ""
        out.append((f"languages, guessed{rows}", ", ".join(shares)))
    dropped = {**counts.get("dropped", {}), **({"could not be read": n} if (n := counts.get("skipped")) else {})}
    out.append(("dropped", "; ".join(f"{n:,} {reason}" for reason, n in dropped.items()) or "none"))
    cut = f"{counts['cut']:,} rows, {counts['cut_tokens']:,} tokens of them lost" if counts.get("cut") else "none"
    out.append((f"cut at {view.config.text.max_length:,} tokens", cut))
    out.append(("tokens passed through the model", f"{result['tokens']:,}"))
    if result.get("example_tokens", 0) > result["tokens"]:
        saved = 1 - result["tokens"] / result["example_tokens"]
        out.append(
            ("the same rows one by one", f"{result['example_tokens']:,} ({saved:.0%} saved by sharing prefixes)")
        )
    return out


def lineage(found: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The hashes of what went in, and the versions that made it, in groups of (name, value)."""
    inputs, out = found.get("inputs", {}), []
    for name, value in inputs.items():
        if isinstance(value, Mapping) and name != "computing":
            out.append((f"{name}, sha256", list(_digests(value))))
    text = [(name, str(inputs[name])) for name in ("template", "tokenizer") if name in inputs]
    out.append(("text", text))
    made = [
        ("seed", str(found.get("seed", ""))),
        ("luthier", str(found.get("luthier", ""))),
        ("code", str(found.get("code", ""))),
    ]
    out.append(("made by", [*made, *((name, str(value)) for name, value in found.get("environment", {}).items())]))
    if later := found.get("later_starts"):
        out.append(("resumed later with other code or libraries", [("starts", str(len(later)))]))
    return [(group, rows) for group, rows in out if rows]


def _digests(files: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, str]]:
    """(file, hash) of each file; groups of files, such as those of a benchmark, by group/file."""
    for name, value in files.items():
        if isinstance(value, Mapping):
            yield from _digests(value, f"{inside}{name}/")
        else:
            yield f"{inside}{name}", str(value)


def _losses(view: View, along: str) -> list[Line]:
    """Training and held-out loss; where only measured before and after, the held-out loss has these two points."""
    held = view.series("eval_loss", along)
    row = next((row for row in view.rows if row["name"] == "loss"), None)
    train = view.series("loss", along)
    if not held and row and train:
        held = [(0.0, row["before"]), (train[-1][0], row["after"])]
    return [Line("training", train, 1, noisy=True), Line("held-out", held, 2, dotted=True)]


def _items(rows: Sequence[Row]) -> str:
    counts = sorted({row["n"] for row in rows})
    return " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1]))) if counts else ""
