"""luthier models"""

from __future__ import annotations

from dataclasses import asdict

import click

from luthier.commands.options import Command, option
from luthier.commands.output import as_json, console, print_json


@click.command("models", cls=Command)
@option(
    "--check",
    is_flag=True,
    help="Read every byte of each model here and say whether it is intact; exit status 2 if one is not.",
)
@as_json
def command(check: bool, json_: bool) -> None:
    """Models that are embedded or cached here, with their size and licence.

    \b
    Examples:
      luthier models
      luthier models --check
    """
    from luthier.model.hub.listing import cached, damaged
    from luthier.report.screens.stages import models_table

    rows = cached(check=check)
    listed = [asdict(item) for item in rows]
    if json_:
        print_json({"models": listed})
    else:
        console().print(models_table(listed, checked=check))
    if error := damaged(rows):
        raise error
