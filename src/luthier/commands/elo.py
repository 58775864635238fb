"""luthier elo"""

from __future__ import annotations

import click

from luthier.commands.options import Command, option
from luthier.commands.output import as_json, console, print_json


@click.command("elo", cls=Command, context_settings={"max_content_width": 110})
@click.argument("judgments", nargs=-1, required=True)
@option("--anchor", metavar="MODEL[=X]", help="The model whose rating is fixed; without one, the mean is 1000.")
@option(
    "--length-control", is_flag=True, help="Rate answers as if all were equally long, and show the effect of length."
)
@option("--rounds", type=click.IntRange(100), default=1000, metavar="N", help="Fits to resampled prompts.  [1000]")
@option("--seed", type=int, default=0, metavar="N", help="Seed of the resampling.  [0]")
@as_json
def command(
    judgments: tuple[str, ...], anchor: str | None, length_control: bool, rounds: int, seed: int, json_: bool
) -> None:
    """Rate models on the Elo scale from JUDGMENTS: files of `luthier judge`, of people, or of AlpacaEval.

    Prints ratings with intervals, the points of each pair of models, and the habits and agreement of the annotators.

    \b
    Examples:
      luthier elo judgments.jsonl
      luthier elo judge.jsonl people.jsonl --anchor base=1000 --length-control
    """
    from luthier.comparison.elo import ratings
    from luthier.report.screens.ratings import ratings_screen

    result = ratings(judgments, anchor=anchor, length=length_control, rounds=rounds, seed=seed)
    if json_:
        print_json(result)
    else:
        screen = console()
        for part in ratings_screen(result):
            screen.print(part)
