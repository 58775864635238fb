"""luthier data"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import SettingsCommand, config_of, with_settings


@with_settings("data", "text.max_length", "model", "seed", without=("data.path", "data.replay", "data.replay_share"))
@click.command("data", cls=SettingsCommand, context_settings={"max_content_width": 110})
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option(
    "--split", is_flag=True, help="Write train.jsonl and test.jsonl; --data.holdout is the share of the test."
)
@click.option(
    "--clean", is_flag=True, help="Write clean.jsonl, and dropped.jsonl with the reason of every dropped row."
)
@click.option(
    "--near",
    type=click.FloatRange(0, 1),
    default=0.8,
    metavar="X",
    help="--clean: least similarity of a near duplicate; 0 keeps them.  [0.8]",
)
@click.option("--drop-conflicts", is_flag=True, help="--clean: of several answers to one prompt keep the first.")
@click.option("--shortest", type=int, default=0, metavar="N", help="--clean: drop rows of fewer characters.")
@click.option("--longest", type=int, default=None, metavar="N", help="--clean: drop rows of more characters.")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder for the new files.  [.]",
)
@as_json
def command(
    paths: tuple[str, ...], split: bool, clean: bool, near: float, drop_conflicts: bool, shortest: int, longest: int | None,
    folder: Path, json_: bool, **settings: Any,
) -> None:  # fmt: skip
    """What is in PATH (files, folders, globs, or '-'): layout, lengths, languages, duplicates, what to mend.

    \b
    Examples:
      luthier data rows.jsonl
      luthier data train.csv --data.eval test.csv
      luthier data rows.jsonl --clean --split --to cleaned/
    """
    from luthier.app.card import describe, rewrite
    from luthier.core.errors import InputError
    from luthier.data.clean import CleanSettings
    from luthier.report.screens import written
    from luthier.report.tables import card_table

    config = config_of(paths, settings)
    described = describe(config)
    result = described.as_dict()
    if clean or split:
        if described.loaded is None:
            raise InputError(
                "a stream is only described", where="--data.stream", mend="leave it out to write new files"
            )
        cleaning = (
            CleanSettings(near=near, conflicts=drop_conflicts, shortest=shortest, longest=longest) if clean else None
        )
        result["written"] = rewrite(described.loaded, folder, config, cleaning, split)
    if json_:
        print_json(result)
        return
    screen = console()
    screen.print(card_table(result | {"reading": described.about.lines()}))
    for line in written(result.get("written", {})):
        screen.print(line)
