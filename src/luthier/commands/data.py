"""luthier data"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from luthier.commands.options import CLEANING, Command, option
from luthier.commands.output import as_json, console, print_json, say
from luthier.commands.settings import config_of, with_settings
from luthier.config.data import FORMATS
from luthier.core.machine import share


@with_settings(
    "data", "text.max_length", "model", "threads", "seed", without=("data.path", "data.replay", "data.replay_share")
)
@click.command("data", cls=Command, context_settings={"max_content_width": 110})
@click.argument("paths", nargs=-1, metavar="PATH...")
@option("--split", is_flag=True, help="Write train.jsonl and test.jsonl; --data.holdout is the share of the test.")
@option("--clean", is_flag=True, help="Write clean.jsonl, and dropped.jsonl with the reason of every dropped row.")
@option(
    "--near",
    group=CLEANING,
    type=click.FloatRange(0, 1),
    default=0.8,
    metavar="X",
    help="--clean: similarity from which rows are near duplicates; 0 keeps all.  [0.8]",
)
@option(
    "--drop-conflicts",
    group=CLEANING,
    is_flag=True,
    help="--clean: keep only the first of several answers to a prompt.",
)
@option(
    "--shortest", group=CLEANING, type=int, default=0, metavar="N", help="--clean: drop rows with fewer characters."
)
@option(
    "--longest", group=CLEANING, type=int, default=None, metavar="N", help="--clean: drop rows with more characters."
)
@option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder for the new files.  [.]",
)
@option(
    "--to", type=(click.Choice(list(FORMATS)), click.Path(path_type=Path, dir_okay=False)), metavar="FORMAT OUT",
    help=f"Write the rows as another tool takes them ({', '.join(FORMATS)}) to the new file OUT.",
)  # fmt: skip
@option(
    "--suggest", is_flag=True,
    help="Write the settings by which PATH is read as YAML: its layout, and a mapping of its columns.",
)  # fmt: skip
@option(
    "--role",
    type=click.Choice(["train", "test"]),
    default="train",
    help="What the rows are for; test says whether the file is a good test set, and what it can show.  [train]",
)
@option(
    "--training",
    multiple=True,
    metavar="FILE",
    help="--role test: the training rows; shows which of them are in the test.",
)
@as_json
def command(
    paths: tuple[str, ...], to: tuple[str, Path] | None, suggest: bool, role: str, training: tuple[str, ...],
    split: bool, clean: bool, near: float,
    drop_conflicts: bool, shortest: int, longest: int | None, folder: Path, json_: bool, **settings: Any,
) -> None:  # fmt: skip
    """What is in PATH (files, folders, globs, or '-'): layout, lengths, languages, duplicates, what to fix.

    \b
    Examples:
      luthier data rows.jsonl
      luthier data train.csv --data.eval test.csv
      luthier data rows.jsonl --clean --split --out cleaned/
      luthier data tickets.jsonl --suggest > tickets.yaml
      luthier data test.csv --role test --training train.csv
    """
    from luthier.core.errors import InputError
    from luthier.data.clean import CleanSettings
    from luthier.inspect.describe_data import describe, rewrite, translate
    from luthier.report.screens.stages import written
    from luthier.report.tables import card_table

    config = config_of(paths, settings)
    share(config.threads)
    if suggest:
        _suggest(config, json_)
        return
    if role == "test":
        _test(config, training, json_, splitting=split, cleaning=clean)
        return
    if training:
        raise InputError("this is only for test rows", where="--training", fix="give --role test, or --data.eval")
    described = describe(config)
    result = described.as_dict()
    if clean or split or to:
        if described.loaded is None:
            raise InputError("a stream is only described", where="--data.stream", fix="leave it out to write new files")
        cleaning = (
            CleanSettings(near=near, conflicts=drop_conflicts, shortest=shortest, longest=longest) if clean else None
        )
        result["written"] = rewrite(described.loaded, folder, config, cleaning, split) if clean or split else {}
        result["written"] |= translate(described.loaded, *to) if to else {}
    if json_:
        print_json(result)
        return
    screen = console()
    screen.print(card_table(result | {"reading": described.reading.lines()}))
    for line in written(result.get("written", {})):
        screen.print(line)


def _suggest(config: Any, json_: bool) -> None:
    import yaml

    from luthier.inspect.suggest_mapping import suggested

    settings = suggested(config)
    if json_:
        print_json(settings)
    else:
        say(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), end="")


def _test(config: Any, training: tuple[str, ...], json_: bool, *, splitting: bool, cleaning: bool) -> None:
    from luthier.core.errors import InputError
    from luthier.inspect.test_file import describe_test
    from luthier.report.screens.test_file import test_file_screen

    if splitting or cleaning:
        where = "--split" if splitting else "--clean"
        raise InputError("test rows are only described", where=where, fix="leave --role test out to write new files")
    described = describe_test(config, training)
    result = described.as_dict()
    if json_:
        print_json(result)
    else:
        console().print(test_file_screen(result))
