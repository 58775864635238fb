"""luthier merge"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from luthier.commands.options import Command, option
from luthier.commands.output import as_json, print_json, say
from luthier.commands.settings import config_of, with_settings, with_threads


@with_settings("base")
@click.command("merge", cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder of the merged model.  [RUN/merged]",
)
@option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    help="Number type of the merged weights: float32 is closest to the run, the others take half the space.  [float32]",
)
@with_threads
@as_json
def command(run: Path, out: Path | None, dtype: str, threads: int | None, json_: bool, **values: Any) -> None:
    """Merge the adapter of RUN into its model, and measure the difference in log-probability.

    \b
    Example:
      luthier merge runs/quickstart --dtype bfloat16
    """
    from luthier.core.threads import use_threads
    from luthier.export.merge import merge

    use_threads(threads)
    result = merge(run, out, dtype, config_of((), values).base)
    if json_:
        print_json(result)
    else:
        say(
            f"{result['merged']} ({dtype}): log-probabilities of {result['tokens']} tokens differ from those of the run "
            f"by at most {result['largest_difference']:.2g}, {result['mean_difference']:.2g} on average"
        )
