"""luthier show"""

from __future__ import annotations

from typing import Any

import click

from luthier.commands.options import Command, option
from luthier.commands.output import as_json, console, print_json, say
from luthier.commands.settings import config_of, with_settings
from luthier.core.machine import share


@with_settings(
    "data",
    "text",
    "model",
    "base",
    "threads",
    without=(
        "data.path",
        "data.eval",
        "data.holdout",
        "data.group",
        "data.stream",
        "data.limit",
        "data.replay",
        "data.replay_share",
    ),
)
@click.command("show", cls=Command, context_settings={"max_content_width": 110})
@click.argument("paths", nargs=-1, metavar="PATH...")
@option(
    "--limit", "rows", former=["--rows"], type=click.IntRange(1), default=3, metavar="N", help="How many rows.  [3]"
)
@option("--plain", is_flag=True, help="Mark trained tokens with characters instead of colour; the default in a pipe.")
@as_json
def command(paths: tuple[str, ...], rows: int, plain: bool, json_: bool, **settings: Any) -> None:
    """Token by token: which tokens of PATH a model reads, and which it learns.

    \b
    Examples:
      luthier show rows.jsonl
      luthier show rows.jsonl --model ./my-model --text.template alpaca --plain
    """
    from luthier.core import log
    from luthier.core.errors import InputError
    from luthier.data.load import head
    from luthier.data.warnings import warnings_of
    from luthier.inspect import show_tokens
    from luthier.report.screens.stages import shown_examples
    from luthier.runs.tokenizer_and_template import open_text_format

    config = config_of(paths, settings)
    share(config.threads)
    if not config.data.path:
        raise InputError("no data given", fix="luthier show PATH, such as luthier show rows.jsonl")
    loaded = head(config.data.path, config.data, rows)
    examples, warnings = loaded.examples, warnings_of(loaded.examples, loaded.reading)
    texts = open_text_format(config)
    screen = console()
    if json_:
        told = loaded.reading.as_dict() | {"warnings": list(warnings)}
        print_json(told | {"rows": show_tokens.records(examples, texts, config)})
        return
    coloured = screen.is_terminal and not plain
    shown: Any = (
        shown_examples(show_tokens.coloured(examples, texts, config, screen.width))
        if coloured
        else show_tokens.plain(examples, texts, config)
    )
    for line in loaded.reading.lines():
        log.note(line)
    for warning in warnings:
        log.warn(warning)
    if coloured:
        screen.print(shown)
    else:
        say(shown)
