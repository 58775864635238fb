"""luthier verify"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from luthier.commands.options import Command, option
from luthier.commands.output import as_json, print_json, say
from luthier.commands.settings import with_threads


@click.command("verify", cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@option("--resume", is_flag=True, help="Repeat the steps between the last two checkpoints, and compare every bit.")
@with_threads
@as_json
def command(run: Path, resume: bool, json_: bool, threads: int | None) -> None:
    """Prove on RUN itself that stopping and resuming ends with the same bits. Nothing in RUN is changed.

    \b
    Example:
      luthier verify runs/quickstart --resume
    """
    if not resume:
        raise click.UsageError("say what to verify: --resume")
    from luthier.tune.verify import resume as proof

    result = proof(run, threads)
    if json_:
        print_json(result)
    else:
        verdict = (
            "the same bits"
            if result["same_bits"]
            else f"NOT the same: largest difference {result['largest_difference']:.3g}"
        )
        say(f"steps {result['from']} to {result['to']} repeated from the checkpoint: {verdict}")
        if result["changed_since"] and not result["same_bits"]:
            say(
                f"changed since the run was made: {', '.join(result['changed_since'])}; equal bits are promised only where nothing changed"
            )
    if not result["same_bits"]:
        sys.exit(1)
