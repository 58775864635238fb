"""luthier compare"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from luthier.commands.judge_options import judge_of, with_judge
from luthier.commands.options import Command, option
from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import config_of, given, with_settings


@with_settings(
    "data.layout", "data.prompt", "data.completion", "data.columns", "data.values", "data.group", "data.limit",
    "data.skip_bad", "text.template",
    "text.template_kwargs", "text.system", "text.train_on", "text.max_length",
    "eval.rows", "eval.samples", "eval.metrics", "eval.max_new_tokens", "eval.repeat", "reward.timeout",
    "reward.memory", "seed", "base", "device", "dtype", "threads",
    short={"eval.max_new_tokens": "max-new-tokens"},
)  # fmt: skip
@click.command("compare", cls=Command, context_settings={"max_content_width": 110})
@click.argument("sides", nargs=-1, required=True, metavar="A B [C ...]")
@option("--data", multiple=True, metavar="FILE", help="Held-out rows: their loss, and the metrics of the answers.")
@option(
    "--suite", type=click.Path(path_type=Path), metavar="FILE",
    help="A test suite, compared by what passes.",
)  # fmt: skip
@option(
    "--tasks",
    default="",
    metavar="NAMES",
    help="Benchmarks that `luthier eval` has measured for all, 'leaderboard', or 'all'.",
)
@option(
    "--false-alarms",
    "check",
    former=["--check"],
    is_flag=True,
    help="Also say how often two equal models would be called different here.",
)
@option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write every item, one per line."
)
@with_judge()
@as_json
def command(
    sides: tuple[str, ...], data: tuple[str, ...], suite: Path | None, tasks: str, check: bool, out: Path | None,
    json_: bool, **values: Any,
) -> None:  # fmt: skip
    """Compare B, C, ... with A on the same items: regressions first, with intervals, tests and their correction.

    Each is a model or a run. Several training runs of one recipe are pooled: LABEL=RUN,RUN,RUN.

    \b
    Examples:
      luthier compare smollm2-135m runs/mine --data held_out.jsonl
      luthier compare runs/old runs/new --suite suite.yaml
      luthier compare base=smollm2-135m new=runs/s0,runs/s1,runs/s2 --tasks arc_easy,hellaswag
    """
    from luthier.comparison.compare import CompareOptions, compare_all
    from luthier.core.threads import use_threads
    from luthier.report.screens.comparison import compare_screen

    config = config_of(data, values)
    use_threads(config.threads)
    judge = judge_of(values, config.device, config.dtype)
    result = compare_all(CompareOptions(sides, config, given(values), suite, tasks, judge, check, out))
    if json_:
        print_json(result)
    else:
        screen = console()
        for part in compare_screen(result):
            screen.print(part)
