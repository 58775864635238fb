"""The sections of a run's page, as the values that `run.html` lays out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from markupsafe import Markup

from luthier.report.page import summary
from luthier.report.page.charts import Chart, Line, chart, short
from luthier.report.page.render import render
from luthier.report.page.run_report import Category, ErrorCounts, RewardedAnswer, RunReport, Sample
from luthier.report.page.word_diff import marked, plain_html
from luthier.report.reward_over_divergence import RewardCurves, reward_over_divergence
from luthier.report.tables import Row, figures, how_tested, score_quality, title

SAMPLES_OPEN, SAMPLES_SHOWN = 10, 200  # samples that are open, and that are on the page at all
FORGOTTEN_SHOWN = 4
MIN_LANGUAGE_SHARE = 0.01  # of the rows: a language that is named
SECTIONS = {
    "summary": "Summary", "results": "Before and after", "samples": "Samples", "errors": "Errors",
    "forgetting": "Forgetting", "training": "Training", "speed": "Speed and memory", "data": "Data",
    "settings": "Settings", "lineage": "Lineage",
}  # fmt: skip
GIGA = 1e9


@dataclass(frozen=True)
class MetricCells:
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
class SampleHtml:
    """A sample as HTML: what an answer has that the reference lacks is marked, and in the reference what `after` lacks."""

    number: int
    prompt: Markup
    before: Markup
    after: Markup
    reference: Markup
    rewards: str


@dataclass(frozen=True)
class CodeCount:
    """A count with its share of the largest one, or of all."""

    name: str
    count: int
    share: float


@dataclass(frozen=True)
class CategoryRow:
    """A category of errors: its row of the table, how many answers have it, and their shares in percent."""

    title: str
    meaning: str
    cells: MetricCells
    before: int
    after: int
    before_percent: float
    after_percent: float


@dataclass(frozen=True)
class RolloutAnswer:
    """An answer of a rollout as HTML, and what is known of it."""

    caption: str
    prompt: Markup
    answer: Markup


@dataclass(frozen=True)
class ForgottenHtml:
    """An answer that the model finds less likely now, as HTML; by how many nats per token, and what that keeps."""

    prompt: Markup
    before: Markup
    now: Markup
    drift: str
    probability_kept: str


def render_run_page(report: RunReport) -> str:
    """The page of one run."""
    shown = report.samples[:SAMPLES_SHOWN]
    reward_model = report.result.get("reward_model")
    return render(
        "run.html", title=f"{report.name}, run report", report=report, sections=SECTIONS,
        headline=summary.headline(report), opening=summary.opening(report), verdicts=summary.verdicts(report),
        critical=summary.critical_findings(report), judge_sentence=summary.judge_sentence(report),
        forgetting_sentences=summary.forgetting_sentences(report), costs=summary.costs(report),
        table=[metric_cells(row) for row in report.rows], items=_item_counts(report.rows), tested=how_tested(report.rows),
        samples=[sample_html(number, sample) for number, sample in enumerate(shown, 1)], open=SAMPLES_OPEN,
        samples_left=len(report.samples) - len(shown),
        score_quality=list(score_quality(reward_model)) if reward_model else [],
        errors=report.errors, categories=category_rows(report.errors) if report.errors else {},
        codes=code_counts(report.codes), coded=len(report.codes), forgetting=report.result.get("forgetting"),
        retention=[metric_cells(row) for row in report.retention], retention_tested=how_tested(report.retention),
        forgotten=most_forgotten(report), selected_step=summary.selected_step_sentence(report), charts=curves(report),
        rollouts=rollout_answers(report), speed_charts=speed_charts(report), data=data_facts(report),
        settings=summary.settings(report.config), lineage=lineage(report.lineage), command=summary.command(report.config),
    )  # fmt: skip


def metric_cells(row: Row) -> MetricCells:
    """A metric row as the table shows it."""
    old, new, change, low, high = figures(row, ("before", "after", "difference", "low", "high"))
    interval, span = "", None
    if row["low"] is not None and row["high"] is not None:
        most = max(abs(row["low"]), abs(row["high"]), abs(row["difference"])) or 1.0
        first, middle, last = (50 + 45 * row[name] / most for name in ("low", "difference", "high"))
        interval, span = f"{low} … {high}", (first, middle, last)
    return MetricCells(title(row), old, new, change, interval, row["verdict"], span)


def sample_html(number: int, sample: Sample) -> SampleHtml:
    """A sample with its differences marked."""
    extra, missing = "not in the reference", "not in the answer after"
    rewards = "" if sample.rewards is None else "reward {:z.2f} → {:z.2f}".format(*sample.rewards).replace("-", "−")
    return SampleHtml(
        number, plain_html(sample.prompt), marked(sample.before, sample.reference, extra),
        marked(sample.after, sample.reference, extra),
        marked(sample.reference, sample.after, missing), rewards,
    )  # fmt: skip


def category_rows(errors: ErrorCounts) -> dict[str, list[CategoryRow]]:
    """The categories of errors as the table shows them, below the answers without any, or above these where nothing tells whether
    an answer is right; by heading."""
    groups: dict[str, Sequence[Category]] = {"": [errors.sound], "Defects": errors.categories}
    if not errors.correctness_known:
        groups = {"Defects": errors.categories, "Without": [errors.sound]}
    return {
        heading: [_category_row(category, errors.n) for category in group] for heading, group in groups.items() if group
    }


def _category_row(category: Category, n: int) -> CategoryRow:
    before, after = category.row["before"], category.row["after"]
    counts_and_shares = (round(n * before), round(n * after), 100 * before, 100 * after)
    return CategoryRow(category.title, category.meaning, metric_cells(category.row), *counts_and_shares)


def code_counts(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[CodeCount]]:
    """Tags of answers coded by hand, by heading, the most frequent first; their share is of the coded answers."""
    counts = Counter(str(tag) for line in lines for tag in line["tags"])
    headings = {tag: str(name) for line in lines for tag, name in line.get("headings", {}).items()}
    by_heading: dict[str, list[CodeCount]] = {}
    for tag, count in counts.most_common():
        by_heading.setdefault(headings.get(tag, ""), []).append(CodeCount(tag, count, count / len(lines)))
    return dict(sorted(by_heading.items(), key=lambda group: -sum(bar.count for bar in group[1])))


def most_forgotten(report: RunReport) -> list[ForgottenHtml]:
    """The answers that lost most, those that lost anything."""
    lost = [answer for answer in report.forgotten if answer.drift > 0]
    order = sorted(lost, key=lambda answer: -answer.drift)[:FORGOTTEN_SHOWN]
    return [
        ForgottenHtml(
            plain_html(answer.prompt), plain_html(answer.before), plain_html(answer.now), f"+{answer.drift:.2f}",
            f"{exp(-answer.drift):.0%}",
        )
        for answer in order
    ]  # fmt: skip


def rollout_answers(report: RunReport) -> list[tuple[str, list[RolloutAnswer]]]:
    """The best and then the worst answers of some rollouts, by what these are called, numbered from 1."""
    return [
        (
            f"Rollout {rollout.number + 1:,}",
            [
                _rollout_answer(name, answer)
                for name, group in (("best", rollout.best), ("worst", rollout.worst))
                for answer in group
            ],
        )
        for rollout in report.rollouts
    ]


def _rollout_answer(among: str, answer: RewardedAnswer) -> RolloutAnswer:
    caption = [f"{among}: reward {short(answer.reward)}"]
    if answer.length is not None:
        caption.append(f"{answer.length:,} token{'s' * (answer.length != 1)}")
    if answer.ended:
        caption.append("cut" if answer.ended == "length" else "ended")
    return RolloutAnswer(", ".join(caption), plain_html(answer.prompt), plain_html(answer.answer))


def curves(report: RunReport) -> list[Chart]:
    """What was learned first: reward and divergence where there are any, else loss by step and by token with the held-out
    loss; then what the method reports of itself, gradient norm and learning rate."""
    held_out = _held_out_reward(report, "reward")
    judge = _held_out_reward(report, "judge")
    reward = report.series("reward")
    by_divergence = reward_over_divergence(report.steps, report.rows) if judge else None
    charts = [
        chart("reward", "Reward", "", [Line("training", reward, 1, noisy=True), Line("held-out", held_out, 2, dotted=True)]),
        *(_charts_over_divergence(by_divergence) if by_divergence else ()),
        chart("judge", "Judging reward", "", [Line("held-out", judge, 3, dotted=True)]),
        chart("kl", "Divergence from the starting model", "KL, nats per answer", [Line("rollout", report.series("kl_per_answer"), 1),
              Line("held-out", report.series("eval_kl_per_answer"), 2, dotted=True)]),
        chart("loss-step", "Loss by step", "", _loss_lines(report, "step")) if not reward else None,
        chart("loss-token", "Loss by token", "", _loss_lines(report, "tokens"), "tokens") if not reward else None,
        _chart_from_zero(report, "spread", "Deviation of the rewards", "", "reward_deviation"),
        _chart_from_zero(report, "equal", "Groups of equal rewards", "share", "equal_rewards"),
        _chart_from_zero(report, "length", "Length of the answers", "tokens", "length"),
        _chart_from_zero(report, "ended", "Answers that came to an end", "share", "ended"),
        chart("entropy", "Entropy", "nats per token", [Line("policy", report.series("entropy"), 1, noisy=True)]),
        _chart_from_zero(report, "clipped", "Tokens whose ratio was clipped", "share", "clipped", "policy"),
        chart("critic", "Explained variance of the critic", "share",
              [Line("critic", report.series("explained_variance"), 1, noisy=True)]),
        _chart_from_zero(report, "value", "Loss of the values", "", "value_loss", "critic"),
        chart("policy", "Loss of the policy", "", [Line("training", report.series("loss"), 1, noisy=True)]) if reward else None,
        chart("lost", "Lost of its own earlier answers", "nats per token", [Line("lost", report.series("forgetting"), 2, dotted=True)]),
        chart("margin", "Margin of better answers", "", [Line("training", report.series("margin"), 1, noisy=True)]),
        chart("norm", "Gradient norm", "", [Line("before clipping", report.series("gradient_norm"), 1, noisy=True)]),
        chart("rate", "Learning rate", "", [Line("learning rate", report.series("lr"), 1)]),
    ]  # fmt: skip
    return [drawn for drawn in charts if drawn]


def _chart_from_zero(
    report: RunReport, name: str, title: str, unit: str, series: str, source: str = "rollout"
) -> Chart | None:
    """The figure of a series of which nothing is below zero."""
    return chart(name, title, unit, [Line(source, report.series(series), 1, noisy=True)], from_zero=True)


def _charts_over_divergence(curves: RewardCurves) -> list[Chart | None]:
    """The reward that is learned from and the one that judges, each on a scale of its own, over one distance."""
    along = "KL, nats per answer"
    x_end = max((x for x, _ in (*curves.rollouts, *curves.held_out, *curves.judge)), default=0.0)
    learned = [Line("rollouts", curves.rollouts, 1, noisy=True), Line("held-out", curves.held_out, 2, dotted=True)]
    judge = [Line("held-out", curves.judge, 3, dotted=True)]
    return [
        chart("over", "Reward by distance", "", learned, along, whole=False, x_end=x_end),
        chart("over-judge", "Judging reward by distance", "", judge, along, whole=False, x_end=x_end),
    ]


def _held_out_reward(report: RunReport, name: str) -> list[tuple[float, float]]:
    """A reward of held-out answers by step; where only measured before and after, these two points."""
    points, row = report.series(f"eval_{name}"), next((row for row in report.rows if row["name"] == name), None)
    if points or row is None or not report.series("reward"):
        return points
    return [(0.0, row["before"]), (report.series("reward")[-1][0], row["after"])]


def speed_charts(report: RunReport) -> list[Chart]:
    """Throughput and memory over the steps."""
    memory = [(step, used / GIGA) for step, used in report.series("memory_bytes")]
    charts = [
        chart("throughput", "Throughput", "tokens a second", [Line("training", report.series("tokens_per_second"), 1, noisy=True)],
              from_zero=True),
        chart("memory", "Peak memory", "GB", [Line("highest so far", memory, 1)], from_zero=True),
    ]  # fmt: skip
    return [drawn for drawn in charts if drawn]


def data_facts(report: RunReport) -> list[tuple[str, str]]:
    """Layout and rows, what they are, what was held out, dropped with its reasons, cut; tokens."""
    result, description = report.result, report.data_description
    counts: Mapping[str, Any] = result.get("data", {})
    named = {"rows": "rows learned from", "replay": "general rows mixed in", "held_out": "rows held out"}
    facts = [("layout", str(description["layout"]))] if description else []
    facts += [(words, f"{counts[key]:,}") for key, words in named.items() if key in counts]
    if lengths := description.get("lengths"):
        low, half, most, high = (f"{lengths[name]:,}" for name in ("min", "median", "p95", "max"))
        facts.append(("tokens of a row", f"{low} to {high}; half have up to {half}, 95 % up to {most}"))
    if (duplicates := description.get("duplicates")) is not None:
        looked_at = description.get("compared", counts.get("rows", 0))
        of = f", of the first {looked_at:,}" if looked_at < counts.get("rows", 0) else ""
        facts.append((f"rows equal to an earlier one{of}", f"{duplicates:,}" if duplicates else "none"))
    if languages := description.get("languages"):
        shares = [f"{name} {share:.0%}" for name, share in languages.items() if share >= MIN_LANGUAGE_SHARE]
        rows = f" from {description['looked_at']:,} rows" if "looked_at" in description else ""
        facts.append((f"languages, guessed{rows}", ", ".join(shares)))
    dropped = {**counts.get("dropped", {}), **({"could not be read": n} if (n := counts.get("skipped")) else {})}
    facts.append(("dropped", "; ".join(f"{n:,} {reason}" for reason, n in dropped.items()) or "none"))
    cut = f"{counts['cut']:,} rows, {counts['cut_tokens']:,} tokens of them lost" if counts.get("cut") else "none"
    facts.append((f"cut at {report.config.text.max_length:,} tokens", cut))
    facts.append(("tokens passed through the model", f"{result['tokens']:,}"))
    if result.get("example_tokens", 0) > result["tokens"]:
        saved = 1 - result["tokens"] / result["example_tokens"]
        facts.append(
            ("the same rows one by one", f"{result['example_tokens']:,} ({saved:.0%} saved by sharing prefixes)")
        )
    return facts


def lineage(content: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The hashes of what went in, and the versions that made it, in groups of (name, value)."""
    inputs, groups = content.get("inputs", {}), []
    for name, value in inputs.items():
        if isinstance(value, Mapping) and name != "computing":
            groups.append((f"{name}, sha256", list(_digests(value))))
    text = [(name, str(inputs[name])) for name in ("template", "tokenizer") if name in inputs]
    groups.append(("text", text))
    made = [
        ("seed", str(content.get("seed", ""))),
        ("luthier", str(content.get("luthier", ""))),
        ("code", str(content.get("code", ""))),
    ]
    groups.append(("made by", [*made, *((name, str(value)) for name, value in content.get("environment", {}).items())]))
    if later := content.get("later_starts"):
        groups.append(("resumed later with other code or libraries", [("starts", str(len(later)))]))
    return [(group, rows) for group, rows in groups if rows]


def _digests(files: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, str]]:
    """(file, hash) of each file; groups of files, such as those of a benchmark, by group/file."""
    for name, value in files.items():
        if isinstance(value, Mapping):
            yield from _digests(value, f"{inside}{name}/")
        else:
            yield f"{inside}{name}", str(value)


def _loss_lines(report: RunReport, x_label: str) -> list[Line]:
    """Training and held-out loss; where only measured before and after, the held-out loss has these two points."""
    held_out = report.series("eval_loss", x_label)
    row = next((row for row in report.rows if row["name"] == "loss"), None)
    train = report.series("loss", x_label)
    if not held_out and row and train:
        held_out = [(0.0, row["before"]), (train[-1][0], row["after"])]
    return [Line("training", train, 1, noisy=True), Line("held-out", held_out, 2, dotted=True)]


def _item_counts(rows: Sequence[Row]) -> str:
    counts = sorted({row["n"] for row in rows})
    return " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1]))) if counts else ""
