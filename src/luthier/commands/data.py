"""luthier data"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import SettingsCommand, config_of, with_settings


@with_settings("data", "text.max_length", "model", "seed", without=("data.path", "data.stream"))
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
    show_default=True,
    help="--clean: least similarity of a near duplicate; 0 keeps them.",
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
    from luthier.app import card
    from luthier.data.clean import CleanSettings
    from luthier.report.screens import written
    from luthier.report.tables import card_table

    config = config_of(paths, settings)
    loaded, described = card.describe(config)
    result = described.as_dict() | {"skipped": loaded.skipped.count, "unused": loaded.unused.count}
    if clean:
        result |= card.write_clean(
            loaded, folder, CleanSettings(near=near, conflicts=drop_conflicts, shortest=shortest, longest=longest)
        )
    if split:
        result["split"] = card.write_split(loaded, folder, config.data.holdout, config.seed)
    if json_:
        print_json(result)
        return
    screen = console()
    screen.print(card_table(described.as_dict()))
    for line in written(result):
        screen.print(line)
