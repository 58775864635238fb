"""luthier quickstart"""

from __future__ import annotations

from typing import Any

import click

from luthier.commands.options import Command
from luthier.commands.output import as_json, console, print_json
from luthier.commands.settings import given, with_settings
from luthier.config.resolve import resolve
from luthier.config.run import QUICKSTART
from luthier.core import log

SETTINGS = (
    "data.limit", "model", "tune", "out", "seed", "device", "dtype", "threads", "train.epochs", "train.steps", "train.batch",
    "train.tokens", "train.lr", "lora.rank", "eval.every", "eval.rows", "eval.samples",
)  # fmt: skip


@with_settings(*SETTINGS, refused={"dtype": ["float16"]}, defaults=QUICKSTART)
@click.command("quickstart", cls=Command, context_settings={"max_content_width": 110})
@as_json
def command(json_: bool, **settings: Any) -> None:
    """Teach a small model, in a few minutes, to say in one line what a Python function does.

    The data is Python's own standard library: each function without its docstring, and the docstring's first line.
    The test uses modules that were not trained on. Only the model's wheel is fetched.

    \b
    Example:
      luthier quickstart
    """
    config = resolve(QUICKSTART, given(settings))  # what is wrong with them is told at once
    log.note("reading the functions of Python's own library; this takes a few seconds")
    from luthier.report.screens import stages
    from luthier.tune.quickstart import quickstart

    screen = console()
    result = quickstart(
        config, (lambda name, value: None) if json_ else lambda name, value: stages.show(screen, name, value)
    )
    if json_:
        print_json(result)
