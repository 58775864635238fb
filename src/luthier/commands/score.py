"""luthier score"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from luthier.commands.options import Command, option
from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import given, with_settings


@with_settings(
    "base",
    "seed",
    "device",
    "dtype",
    "threads",
    "data.layout",
    "data.columns",
    "data.values",
    "data.skip_bad",
    "data.limit",
)
@click.command("score", cls=Command, context_settings={"max_content_width": 110})
@click.argument("run", metavar="REWARD_RUN")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("scores.jsonl"), metavar="FILE",
              help="The new file: one line per answer.  [scores.jsonl]")  # fmt: skip
@as_json
def command(run: str, data: tuple[str, ...], out: Path, json_: bool, **settings: Any) -> None:
    """Score the answers in DATA with the reward model of REWARD_RUN, a run of `luthier train --method reward`.

    Where rows say which answer is better, the accuracy and calibration of the scores are shown too.

    \b
    Example:
      luthier score runs/reward answers.jsonl --out scores.jsonl
    """
    from luthier.config.resolve import resolve
    from luthier.feedback.score import score
    from luthier.report.screens.scores import score_screen

    result = score(resolve({"model": run, "data.path": data}, given(settings)), out)
    if json_:
        print_json(result)
    else:
        console().print(score_screen(result))
