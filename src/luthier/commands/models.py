"""luthier models"""

from __future__ import annotations

from dataclasses import asdict

import click

from luthier.commands.output import as_json, console, print_json


@click.command("models")
@as_json
def command(json_: bool) -> None:
    """Models that are embedded or cached here, with their size and licence.

    \b
    Example:
      luthier models
    """
    from luthier.model.listing import cached
    from luthier.report.screens import models_table

    listed = [asdict(item) for item in cached()]
    if json_:
        print_json({"models": listed})
    else:
        console().print(models_table(listed))
