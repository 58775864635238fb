"""luthier eval"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from luthier.commands.options import MACHINE, Command, option
from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import config_of, with_settings


@with_settings("base", "text.system", "device", "dtype", "threads")
@click.command("eval", cls=Command, context_settings={"max_content_width": 110})
@click.argument("model")
@option(
    "--tasks",
    default="",
    metavar="NAMES",
    help="Benchmarks, with commas between them; leaderboard is several (25, 10, 5, 0 shots).",
)
@option("--suite", default=None, hidden=True)  # what --tasks takes too
@option(
    "--shots",
    type=click.IntRange(0),
    default=None,
    metavar="N",
    help="Examples before each question.  [the task's own]",
)
@option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder with the benchmarks' files as their authors publish them, at any depth.",
)
@option("--hub", is_flag=True, help="Fetch the data from the Hugging Face hub (needs the package datasets).")
@option("--text", "texts", multiple=True, metavar="FILE", help="Texts of the task perplexity.")
@option(
    "--limit",
    type=click.IntRange(1),
    default=None,
    metavar="N",
    help="Only the first N documents of a task or subject.",
)
@option("--chat", is_flag=True, help="Ask through the chat template, with each example as a turn.  [off]")
@option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=None, help="Folder of the records.  [RUN/evals]"
)
@option(
    "--tokens",
    group=MACHINE,
    type=click.IntRange(64),
    default=None,
    metavar="N",
    help="Tokens per forward pass; lower it to save memory. Results change only by rounding.  [2048; on a GPU 8192]",
)
@as_json
def command(model: str, json_: bool, **options: Any) -> None:
    """Measure MODEL (a run directory, or any model that --model takes) on benchmarks.

    \b
    Tasks:  arc_easy arc_challenge hellaswag mmlu (or mmlu_SUBJECT) truthfulqa_mc1 truthfulqa_mc2
            piqa winogrande boolq lambada gsm8k wikitext, and perplexity of texts of your own
    Prompts, examples and scores are those of lm-evaluation-harness 0.4.13.

    \b
    Examples:
      luthier eval runs/quickstart --tasks arc_easy,piqa --data-dir benchmarks
      luthier eval smollm2-135m --tasks leaderboard --data-dir benchmarks --limit 100
      luthier eval runs/mine --tasks perplexity --text notes.txt

    Run the same command again to resume an unfinished measurement.
    """
    from luthier.evals.benchmarks.evaluation import BenchmarkOptions, evaluate
    from luthier.evals.benchmarks.results import METRICS
    from luthier.report.screens.benchmarks import tables

    place = {name: options.pop(name) for name in ("base", "text__system", "device", "dtype", "threads")}
    config = config_of((), place)
    opening = {name: getattr(config, name) for name in ("device", "dtype", "threads", "base")}
    result = evaluate(model, BenchmarkOptions(**options, **opening, system=config.text.system))
    if json_:
        print_json(result)
        return
    screen = console()
    for part in tables(result, METRICS):
        screen.print(part)
