"""luthier verify"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from luthier.commands.options import Command, option
from luthier.commands.output import as_json, print_json, say
from luthier.commands.settings import with_threads


@click.command("verify", cls=Command)
@click.argument("run", type=click.Path(path_type=Path), required=False)
@option(
    "--resume", is_flag=True, help="Repeat the steps between the last two checkpoints of RUN, and compare every bit."
)
@option(
    "--method", metavar="NAME", help="Check a method by the rules for every loss; with RUN, name your own method that it was trained with."
)  # fmt: skip
@with_threads
@as_json
def command(run: Path | None, resume: bool, method: str | None, json_: bool, threads: int | None) -> None:
    """Prove on RUN itself that stopping and resuming ends with the same bits, or on a method that its gradient does not depend on
    how examples are batched, packed and padded. Nothing in RUN is changed.

    \b
    Examples:
      luthier verify runs/quickstart --resume
      luthier verify --method python:my_method.py:loss
    """
    if not resume and (run is not None or method is None):
        raise click.UsageError("say what to verify: --resume of a RUN, or --method NAME")
    if resume and run is None:
        raise click.UsageError("say which run: luthier verify RUN --resume")
    from luthier.core.threads import use_threads
    from luthier.tune import verify

    if run is None:
        assert method is not None
        use_threads(threads or 1)
        result = verify.method(method)
        holds = result["holds"]
        print_json(result) if json_ else _show_checks(result)
    else:
        result = verify.resume(run, threads, method)
        holds = result["same_bits"]
        print_json(result) if json_ else _show_steps(result)
    if not holds:
        sys.exit(1)


def _show_steps(result: dict[str, Any]) -> None:
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


def _show_checks(result: dict[str, Any]) -> None:
    for one in result["checks"]:
        differs = "" if one["difference"] is None else f": {one['difference']:.1e} apart"
        say(f"{'holds' if one['holds'] else 'FAILS'}  {one['name']:<13}  {one['found']}{differs}")
    if not result["holds"]:
        say(
            "a loss is a sum of terms times batch.weight or batch.tree_weight; see docs/methods.md, A method of your own"
        )
