"""A run in words: what was tuned on what, the main change with its interval, what got better and what was lost."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.config.run import RunConfig, fields, flag_of
from luthier.core.log import clock, size
from luthier.core.types.run_result import RunResult
from luthier.core.verdicts import BETTER, HIGHER, LOWER, NO_FORGETTING, NONE_SHOWN, ORDER, TOO_FEW, WORSE, verdict_kind
from luthier.report.page.run_report import RunReport
from luthier.report.tables import Row, figures, title

MAIN_METRICS = ("reward", "judge", "accuracy", "loss")  # of these and the metrics of answers, which one a run is about


@dataclass(frozen=True)
class Headline:
    """The main change, as large figures: what it is, before and after, the change, its interval and the verdict."""

    title: str
    before: str
    after: str
    change: str
    interval: str
    verdict: str
    n: int


def critical_findings(report: RunReport) -> list[str]:
    """What is told before all else: what is wrong with the answers, and a rise of the reward that the judge did not see."""
    found = [item["text"] for item in report.result.get("findings", ())]
    judge = report.result.get("judge")
    return [*found, judge["sentence"]] if judge and judge["confirmed"] is False else found


def judge_sentence(report: RunReport) -> str:
    """What the judge saw of the reward's rise, where that is not told first; nothing without a judge."""
    judge = report.result.get("judge")
    return (
        ""
        if judge is None or judge["confirmed"] is False
        else f"{judge['sentence'][0].upper()}{judge['sentence'][1:]}."
    )


def main_row(rows: Sequence[Row]) -> Row | None:
    """The row that a run is about: the reward it learned from, else the first metric in which more or less is better,
    answers before the loss. Chosen by what was measured and never by how it came out."""
    telling = [row for row in rows if row.get("higher_is_better") is not None]
    for name in MAIN_METRICS[:-1]:
        if found := [row for row in telling if row["name"] == name]:
            return found[0]
    answers = [row for row in telling if row["name"] != "loss"]
    return next(iter([*answers, *telling]), None)


def headline(report: RunReport) -> Headline | None:
    """The main change of a run; None where nothing was measured before and after."""
    row = main_row(report.rows)
    if row is None:
        return None
    old, new, change, low, high = figures(row, ("before", "after", "difference", "low", "high"))
    interval = f"{low} … {high}" if row["low"] is not None else ""
    return Headline(title(row), old, new, change, interval, row["verdict"], row["n"])


def opening(report: RunReport) -> str:
    """What was tuned on what, in one sentence."""
    config, result = report.config, report.result
    share = ""
    if result.get("parameters"):
        share = f", {result['trainable'] / result['parameters']:.2%} of its weights".replace("%", " %")
    rows = f"{result['data']['rows']:,} rows of {data_name(config)}" if "data" in result else data_name(config)
    return f"{'/'.join(Path(config.model).parts[-2:])} was tuned {what_was_tuned(config)}{share}, on {rows}. Method: {report.method}."


def verdicts(report: RunReport) -> list[str]:
    """The outcome in sentences: first whether anything is shown at all, then what got better, worse and neither. What was not
    to change and got worse, and what was forgotten, is part of it."""
    rows = [*report.rows, *(row for row in report.retention if row["verdict"] == WORSE)]
    telling = [row for row in rows if row.get("higher_is_better") is not None]
    found = {words: [row for row in rows if verdict_kind(row["verdict"]) == words] for words in ORDER}
    if not report.rows:
        return ["Nothing was measured before and after: there were no held-out rows."]
    out = []
    if not {row["verdict"] for row in telling} & {BETTER, WORSE}:
        few = any(row["verdict"] == TOO_FEW for row in telling)
        reason = " There are too few held-out rows to tell." if few else ""
        out.append(f"No difference between before and after is shown on the held-out rows.{reason}")
    for words in (BETTER, WORSE):
        if found[words]:
            out.append(f"{words.capitalize()}: {'; '.join(_before_to_after(row) for row in found[words])}.")
    if found[BETTER] and not found[WORSE]:
        out += _nothing_worse(report.result)
    if found[NONE_SHOWN] and (found[BETTER] or found[WORSE]):
        out.append(f"No difference shown: {', '.join(str(row['title']) for row in found[NONE_SHOWN])}.")
    moved = [_before_to_after(row) for words in (HIGHER, LOWER) for row in found[words]]
    if moved:
        out.append(f"Changed, where neither is better: {'; '.join(moved)}.")
    return out


def _nothing_worse(result: RunResult) -> list[str]:
    """What may be said where no row got worse: nothing where refusals were lost or the model collapsed, which is told first; and
    what the model forgot is measured too, or was not."""
    forgetting = result.get("forgetting")
    if result.get("findings"):
        return []
    if forgetting is None:
        return ["Nothing measured got worse; what the model forgot was not measured."]
    if forgetting["size"] == NO_FORGETTING:
        return ["Nothing measured got worse."]
    return [
        f"No row got worse, but the model forgot: {forgetting['drift']:z.2f} nats/token of its own earlier answers."
    ]


def forgetting_sentences(report: RunReport) -> list[str]:
    """What the model forgot, in sentences: its own earlier answers first, then how far its distributions moved."""
    forgetting = report.result.get("forgetting")
    if not forgetting:
        return ["What the model forgot was not measured."]
    sentence = str(forgetting["sentence"])
    interval = (
        f" 95 % interval {_interval(forgetting)}, {forgetting['n']} answers." if forgetting["low"] is not None else ""
    )
    out = [f"{sentence[0].upper()}{sentence[1:]}.{interval}"]
    for name, where in (("before", "of its answers before"), ("after", "of those it gives now")):
        if kl := (forgetting.get("kl") or {}).get(f"on_answers_{name}"):
            span = f" ({_interval(kl)})" if kl["low"] is not None else ""
            out.append(f"Divergence from the starting model (KL) on the tokens {where}: {kl['value']:z.2f} nats{span}.")
    return out


def selected_step_sentence(report: RunReport) -> str:
    """Which step's weights the run gave out, and why."""
    found = report.result["kept"]
    return f"The weights are those of step {found['step']:,} of {report.result['steps']:,}: {found['why']}."


def costs(report: RunReport) -> list[tuple[str, str]]:
    """Time, memory and size of the run, each with its name; what is not known is left out."""
    result = report.result
    out = [("time", clock(result["seconds"])), ("steps", f"{result['steps']:,}"), ("tokens", f"{result['tokens']:,}")]
    if result.get("tokens_per_second"):
        out.append(("tokens a second", f"{result['tokens_per_second']:,.0f}"))
    out += [
        ("peak memory", size(result["peak_memory_bytes"])),
        ("weights learned", f"{result['trainable']:,}"),
    ]
    if result.get("kl_per_answer") is not None:
        out.append(("KL, nats an answer", f"{result['kl_per_answer']:z.2f}"))
    return out


def data_name(config: RunConfig) -> str:
    """The data as people call it: its file names."""
    if config.data.path == ("stdlib",):
        return "Python's standard library"
    names = [Path(path).name or path for path in config.data.path]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def what_was_tuned(config: RunConfig) -> str:
    """What learned, in words."""
    kind, _, rest = config.tune.partition(":")
    return {
        "full": "in full",
        "head": "at its head alone",
        "last": f"in its last {rest} layers",
        "layers": f"in the layers {rest}",
        "lora": f"with LoRA adapters of rank {config.lora.rank}",
        "qlora": f"with LoRA adapters of rank {config.lora.rank} on a base in {config.quant.kind}",
    }.get(kind, config.tune)


def settings(config: RunConfig) -> list[tuple[str, str, str, bool]]:
    """Every setting as (name, value, what it means, whether it differs from the default), those that differ first."""
    out = []
    for name, info in fields().items():
        value = _value(config, name)
        differs = value != info.get_default(call_default_factory=True)
        out.append((name, _value_text(value), str(info.description), differs))
    return sorted(out, key=lambda row: not row[3])


def command(config: RunConfig) -> str:
    """The command that makes the run again: `luthier train` with every setting that differs from its default."""
    parts = [shlex.join(["luthier", "train", *config.data.path])]
    for name, info in fields().items():
        value = _value(config, name)
        if name in ("data.path", "out", "version") or value == info.get_default(call_default_factory=True):
            continue
        if isinstance(value, bool):
            parts.append(flag_of(name) if value else f"--no-{name}")
        else:
            pairs = [f"{key}={item}" for key, item in value.items()] if isinstance(value, dict) else value
            several = pairs if isinstance(pairs, list | tuple) else [pairs]
            parts += [shlex.join([flag_of(name), str(item)]) for item in several]
    return " \\\n  ".join(parts)


def _before_to_after(row: Row) -> str:
    old, new = figures(row, ("before", "after"))
    return f"{title(row)} {old} → {new}"


def _interval(found: Mapping[str, Any]) -> str:
    return f"{found['low']:z.2f} … {found['high']:z.2f}".replace("-", "−")


def _value(config: RunConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _value_text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "none"
    if isinstance(value, tuple):
        return " ".join(str(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
